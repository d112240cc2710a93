"""Every way in which predictions are scored, by name; what `eval` and `score` choose from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bestiary.errors import UsageError
from bestiary.metrics.boundary import BoundaryScores
from bestiary.metrics.boundary_iou import BoundaryIouScores
from bestiary.metrics.class_masks import ClassMaskScores
from bestiary.metrics.classification import ClassificationScores
from bestiary.metrics.coco import CocoScores
from bestiary.metrics.membranes import MembraneScores
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.metrics.table import Kind
from bestiary.metrics.trimap import TrimapScores
from bestiary.metrics.voc import VocScores
from bestiary.training.contracts import Evaluator


@dataclass(frozen=True)
class Rules:
    """What a user may set of a protocol.

    Attributes:
        kinds: of detections to score; all that truth and predictions have, if empty.
        iou_thresholds: what counts as found, ascending; the protocol's own if empty.
        max_detections: the best of a category in a picture (of LVIS, of all categories together), ascending; the
            protocol's own if empty.
        classes: categories that are scored; all if empty. For label maps the means run over them.
        ignore: categories of label maps whose true pixels are not scored.
        sigmas: how far each joint may be off, as COCO's 17 say; those if empty.
    """

    kinds: Sequence[Kind] = ()
    iou_thresholds: Sequence[float] = ()
    max_detections: Sequence[int] = ()
    classes: Sequence[str] = ()
    ignore: Sequence[str] = ()
    sigmas: Sequence[int | float] = ()

    def averaged(self, categories: Sequence[str]) -> list[str] | None:
        """The classes that means over label maps run over; None for all."""
        chosen = [name for name in (self.classes or categories) if name not in self.ignore]
        return None if len(chosen) == len(categories) else chosen

    def coco(self, kind: Kind) -> dict[str, Any]:
        """The arguments that COCO's numbers are taken with."""
        said: dict[str, Any] = {"kind": kind}
        if self.iou_thresholds:
            said["iou_thresholds"] = tuple(self.iou_thresholds)
        if self.max_detections:
            said["max_detections"] = tuple(self.max_detections)
        if self.sigmas and kind == "keypoints":
            said["sigmas"] = tuple(self.sigmas)
        return said


FLAGS = {
    "iou_thresholds": "--iou",
    "max_detections": "--max-detections",
    "classes": "--classes",
    "ignore": "--ignore-label",
    "sigmas": "--sigmas",
}
"""What the command line calls the fields of `Rules`."""


@dataclass(frozen=True)
class Protocol:
    """A way of scoring.

    Attributes:
        task: whose predictions it scores.
        about: what it measures, in a line.
        make: an accumulator for categories and one kind of detections; None where files are read instead.
        kinds: of detections that it knows.
        usual: taken where nobody asks for another.
        reported: also where nobody asks, but a report is written, which draws it.
        obeys: fields of `Rules` that it can be taken by, besides the kinds; of some, one value alone.
    """

    task: str
    about: str
    make: Callable[[Sequence[str], Rules, Kind], Evaluator] | None
    kinds: tuple[Kind, ...] = ("boxes",)
    usual: bool = True
    reported: bool = False
    obeys: tuple[str, ...] = ()
    one_value_of: tuple[str, ...] = ()

    def refuses(self, rules: Rules) -> str | None:
        """The first rule that was set and that this protocol does not know; None if it obeys all."""
        for name, flag in FLAGS.items():
            values = getattr(rules, name)
            if values and name not in self.obeys and not (name in self.one_value_of and len(values) == 1):
                return flag
        return None


def _voc(points: Any) -> Callable[[Sequence[str], Rules, Kind], Evaluator]:
    def make(categories: Sequence[str], rules: Rules, kind: Kind) -> Evaluator:
        return VocScores(categories, points, rules.iou_thresholds[0] if rules.iou_thresholds else 0.5)

    return make


_VOC_OBEYS: dict[str, Any] = {"obeys": ("classes",), "one_value_of": ("iou_thresholds",)}

PROTOCOLS: dict[str, Protocol] = {
    "classification": Protocol(
        "classification",
        "top-k accuracy, mean recall, precision, F1, log loss, calibration",
        lambda categories, rules, kind: ClassificationScores(categories),
    ),
    "coco": Protocol(
        "detection",
        "COCO: AP over IoU .50:.95, AP50, AP75, by size, AR; boxes, masks, keypoints",
        lambda categories, rules, kind: CocoScores(categories, **rules.coco(kind)),
        ("boxes", "masks", "keypoints"),
        obeys=("iou_thresholds", "max_detections", "classes", "sigmas"),
    ),
    "voc": Protocol(
        "detection", "PASCAL VOC 2010 and later: mAP over all points, IoU > 0.5", _voc("all"), **_VOC_OBEYS
    ),
    "voc07": Protocol(
        "detection", "PASCAL VOC 2007: mAP over 11 points, IoU > 0.5", _voc("11"), usual=False, **_VOC_OBEYS
    ),
    "lvis": Protocol(
        "detection",
        "LVIS: federated AP, by frequency; boxes, masks; usual where the truth is an LVIS file",
        None,
        ("boxes", "masks"),
        usual=False,
        one_value_of=("max_detections",),
    ),
    "iou": Protocol(
        "segmentation",
        "mean IoU, pixel accuracy, frequency-weighted IoU, Dice",
        lambda categories, rules, kind: SegmentationScores(categories, averaged=rules.averaged(categories)),
        obeys=("classes", "ignore"),
    ),
    "boundary": Protocol(
        "segmentation",
        "boundary F1 within 0.75 % of the diagonal (Csurka et al. 2013)",
        lambda categories, rules, kind: BoundaryScores(categories, averaged=rules.averaged(categories)),
        obeys=("classes", "ignore"),
    ),
    "boundary_iou": Protocol(
        "segmentation",
        "IoU of the bands along outlines, 2 % of the diagonal wide (Cheng et al. 2021)",
        lambda categories, rules, kind: BoundaryIouScores(categories, averaged=rules.averaged(categories)),
        obeys=("classes", "ignore"),
    ),
    "trimap": Protocol(
        "segmentation",
        "mean IoU within 1 to 32 pixels of true boundaries",
        lambda categories, rules, kind: TrimapScores(categories),
        usual=False,
        reported=True,
        obeys=("ignore",),
    ),
    "isbi": Protocol(
        "segmentation",
        "ISBI 2012 membranes: Rand, information, warping and pixel scores at the best threshold",
        lambda categories, rules, kind: MembraneScores(categories),
        usual=False,
        obeys=("ignore",),
    ),
    "class_masks": Protocol(
        "multi_label_segmentation",
        "mean IoU, Dice, precision and recall of classes that may overlap",
        lambda categories, rules, kind: ClassMaskScores(categories, averaged=rules.averaged(categories)),
        obeys=("classes",),
    ),
    "panoptic": Protocol("panoptic", "panoptic quality PQ = SQ x RQ, things and stuff; from its own files", None),
}
"""In the order in which they are shown; of a task's, the first is the chief one."""


def chosen_protocols(task: str, names: Sequence[str] = (), with_report: bool = False) -> dict[str, Protocol]:
    """The protocols of these names, or the usual ones of a task, with those that only a report shows if there is one.

    Raises:
        UsageError: an unknown name (the nearest is named), or one of another task.
    """
    if not names:
        wanted = {name: p for name, p in PROTOCOLS.items() if p.usual or (with_report and p.reported)}
        found = {name: p for name, p in wanted.items() if p.task == task}
        if not found:
            raise UsageError(f"no evaluator for the task {task!r}")
        return found
    for name in names:
        if name not in PROTOCOLS:
            near = get_close_matches(name, PROTOCOLS, 1, 0.5)
            mend = f"Did you mean {near[0]}?" if near else f"There are {', '.join(PROTOCOLS)}"
            raise UsageError(f"no protocol is called {name!r}", where="protocol", mend=mend)
        if PROTOCOLS[name].task != task:
            fitting = ", ".join(n for n, p in PROTOCOLS.items() if p.task == task)
            got = f"{name} scores {PROTOCOLS[name].task}, and these are predictions of {task}"
            raise UsageError(got, where="protocol", mend=f"There are {fitting}")
    return {name: PROTOCOLS[name] for name in dict.fromkeys(names)}


def evaluators(
    task: str, categories: Sequence[str], names: Sequence[str] = (), with_report: bool = False
) -> list[Evaluator]:
    """Accumulators of `chosen_protocols` (boxes, of detections); the first is the one models are chosen by.

    Raises:
        UsageError: as there, or one that is read from files alone.
    """
    made: list[Evaluator] = []
    for name, protocol in chosen_protocols(task, names, with_report).items():
        if protocol.make is not None:
            made.append(protocol.make(tuple(categories), Rules(), "boxes"))
        elif names:
            mend = "Write predictions to a file, and use `bestiary score`"
            raise UsageError(f"{name} is taken from files alone", where="protocol", mend=mend)
    if not made:
        raise UsageError(f"no evaluator for the task {task!r}")
    return made
