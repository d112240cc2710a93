"""Detections and truths of a whole data set as flat arrays, gathered picture by picture: what every detection metric
reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.masks import RunTexts, texts_of_masks
from bestiary.metrics.pose import COCO_SIGMAS
from bestiary.predictions import Detections
from bestiary.records import Objects, Target, require

Kind = Literal["boxes", "masks", "keypoints"]
"""What of a detection is compared with the truth."""


class MaskPairs(NamedTuple):
    """Masks of all detections and of all truths."""

    found: RunTexts
    truths: RunTexts


class JointPairs(NamedTuple):
    """Joints of all detections `[D, J, 2]` (x, y) and truths `[G, J, 3]` (x, y, visibility), and J sigmas."""

    found: np.ndarray
    truths: np.ndarray
    sigmas: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """All detections and truths of I pictures; detections picture by picture, since equal scores rank in that order.

    Boxes are x, y, width, height in float64, as COCO files hold them, so that overlaps are equal to the reference
    tool's.

    Attributes:
        categories: K names.
        n_images: I.
        found_images: picture of each of the D detections. found_labels, found_scores, found_boxes_xywh, found_areas:
            the rest of it.
        truth_images: picture of each of the G truths. truth_labels, truth_boxes_xywh, truth_areas: the rest of it.
        truth_crowd: a group: any number of detections may match it, none counts.
        truth_ignored: crowds and difficult objects: a detection that matches it does not count, and it need not be
            found.
        masks, joints: what is compared instead of boxes; at most one of the two.
        found_forgiven: detections that do not count unless they match (LVIS: of a category that the picture's
            annotators may have left incomplete).

    Raises:
        RecordError: a label is not one of the categories, a score is NaN, or the detections are not in the order of
            pictures.
    """

    categories: tuple[str, ...]
    n_images: int
    found_images: Int64[np.ndarray, " D"]
    found_labels: Int64[np.ndarray, " D"]
    found_scores: Float64[np.ndarray, " D"]
    found_boxes_xywh: Float64[np.ndarray, "D 4"]
    found_areas: Float64[np.ndarray, " D"]
    truth_images: Int64[np.ndarray, " G"]
    truth_labels: Int64[np.ndarray, " G"]
    truth_boxes_xywh: Float64[np.ndarray, "G 4"]
    truth_areas: Float64[np.ndarray, " G"]
    truth_crowd: Bool[np.ndarray, " G"]
    truth_ignored: Bool[np.ndarray, " G"]
    masks: MaskPairs | None = None
    joints: JointPairs | None = None
    found_forgiven: Bool[np.ndarray, " D"] | None = None

    def __post_init__(self) -> None:
        for name, labels in (("predicted", self.found_labels), ("annotated", self.truth_labels)):
            if labels.size:
                worst = int(labels.max()) if labels.min() >= 0 else int(labels.min())
                wanted = f"0 to {len(self.categories) - 1}"
                require(0 <= worst < len(self.categories), f"{name} labels", worst, wanted)
        require(not np.isnan(self.found_scores).any(), "predicted scores", "NaN", "numbers")
        require(bool((np.diff(self.found_images) >= 0).all()), "found_images", "pictures mixed", "ascending numbers")

    @property
    def kind(self) -> Kind:
        """What is compared."""
        return "masks" if self.masks is not None else "keypoints" if self.joints is not None else "boxes"

    def keep_found(self, rows: Int64[np.ndarray, " M"]) -> "DetectionTable":
        """The table with the detections of `rows` (ascending) alone."""
        columns = ("images", "labels", "scores", "boxes_xywh", "areas", "forgiven")
        kept = {f"found_{name}": getattr(self, f"found_{name}") for name in columns}
        changed = {name: column[rows] for name, column in kept.items() if column is not None}
        masks = self.masks and self.masks._replace(found=self.masks.found.take(rows))
        joints = self.joints and self.joints._replace(found=self.joints.found[rows])
        return replace(self, **changed, masks=masks, joints=joints)  # type: ignore[arg-type]

    @property
    def truth_counts(self) -> Int64[np.ndarray, " K"]:
        """How many truths of each category count."""
        return np.bincount(self.truth_labels[~self.truth_ignored], minlength=len(self.categories)).astype(np.int64)


class _Picture(NamedTuple):
    """One picture's rows; shapes are texts and their picture's size, or joints."""

    found_boxes: np.ndarray
    found_labels: np.ndarray
    found_scores: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    truth_areas: np.ndarray
    truth_crowd: np.ndarray
    truth_ignored: np.ndarray
    found_shapes: "_Masks | np.ndarray | None" = None
    truth_shapes: "_Masks | np.ndarray | None" = None


class _Masks(NamedTuple):
    texts: list[np.ndarray]
    size_hw: tuple[int, int]


class DetectionRows:
    """Gathers detections and truths picture by picture: 24 bytes a detection, and its run lengths or joints; `table()`
    hands them out as arrays.

    Args:
        categories: K names; labels index into them.
        kind: what is compared.
        sigmas: of the joints; COCO's 17 if not given.
    """

    def __init__(
        self, categories: Sequence[str], kind: Kind = "boxes", sigmas: Sequence[int | float] | None = None
    ) -> None:
        require_kind(kind, sigmas)
        self.categories, self.kind = tuple(categories), kind
        self.sigmas = tuple(float(sigma) for sigma in (COCO_SIGMAS if sigmas is None else sigmas))
        self._pictures: list[_Picture] = []

    @property
    def n_images(self) -> int:
        """Pictures seen so far."""
        return len(self._pictures)

    def update(self, predictions: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add pictures.

        Raises:
            RecordError: the lengths differ, a target was not annotated with objects (an empty `Objects` is fine), or
                masks or joints are wanted and not there, or not of one size.
        """
        require_pairs(predictions, targets)
        for prediction, target in zip(predictions, targets, strict=True):
            if target.objects is None:
                raise RecordError(
                    "got a target without objects, wanted annotated boxes",
                    where=f"Target.objects of {prediction.name!r}",
                )
            shapes = self._shapes(prediction, target.objects)
            self._pictures.append(
                _Picture(
                    prediction.boxes_xyxy.cpu().numpy().copy(),
                    prediction.labels.cpu().numpy().astype(np.int32),
                    prediction.scores.cpu().numpy().copy(),
                    *_truth_arrays(target.objects, shapes[1] if self.kind == "keypoints" else None),
                    *shapes,
                )
            )

    def _shapes(
        self, prediction: Detections, objects: Objects
    ) -> tuple[_Masks | np.ndarray | None, _Masks | np.ndarray | None]:
        """Masks or joints of a picture's detections and truths."""
        if self.kind == "boxes":
            return None, None
        where = f"{self.kind} of {prediction.name!r}"
        found, truths = getattr(prediction, self.kind), getattr(objects, self.kind)
        require(found is not None or not len(prediction), f"predicted {where}", "none", "one a detection")
        require(truths is not None or not len(objects), f"annotated {where}", "none", "one an object")
        if self.kind == "keypoints":
            joints = len(self.sigmas)
            for name, points in (("predicted", found), ("annotated", truths)):
                got = joints if points is None else int(points.shape[1])
                require(got == joints, f"{name} {where}", f"{got} joints", f"{joints}, one a sigma")
            none = np.zeros((0, joints, 3), np.float32)
            points = [none if p is None else p.detach().cpu().numpy().copy() for p in (found, truths)]
            return points[0][..., :2], points[1]
        sizes = {(int(m.shape[1]), int(m.shape[2])) for m in (found, truths) if m is not None and len(m)}
        require(len(sizes) <= 1, where, f"sizes {sorted(sizes)}", "predicted masks as large as the annotated")
        size = next(iter(sizes), (0, 0))
        empty: list[np.ndarray] = []
        texts = [empty if m is None or not len(m) else texts_of_masks(m) for m in (found, truths)]
        return _Masks(texts[0], size), _Masks(texts[1], size)

    def merge(self, other: "DetectionRows") -> None:
        """Add the pictures of another store, after this one's (another process's share of the data)."""
        require(other.categories == self.categories, "merge", other.categories, str(self.categories))
        require(
            (other.kind, other.sigmas) == (self.kind, self.sigmas), "merge", f"{other.kind} of other rules", self.kind
        )
        self._pictures += other._pictures

    def table(self) -> DetectionTable:
        """Everything seen so far.

        Raises:
            UsageError: nothing was seen.
        """
        if not self._pictures:
            raise UsageError("got no picture, wanted at least one", where="compute()", mend="Call update() first")
        boxes = [_as_xywh(self._column(f"{side}_boxes", np.float64).reshape(-1, 4)) for side in ("found", "truth")]
        measured = [sides[:, 2] * sides[:, 3] for sides in boxes]
        masks = joints = None
        if self.kind == "masks":
            masks = MaskPairs(self._masks("found_shapes"), self._masks("truth_shapes"))
            measured = [masks.found.areas, masks.truths.areas]
        elif self.kind == "keypoints":
            shapes = [self._column(f"{side}_shapes", np.float64) for side in ("found", "truth")]
            joints = JointPairs(shapes[0], shapes[1], np.array(self.sigmas))
        areas = self._column("truth_areas", np.float64)
        return DetectionTable(
            categories=self.categories,
            n_images=self.n_images,
            found_images=_picture_of_rows([picture.found_labels for picture in self._pictures]),
            found_labels=self._column("found_labels", np.int64),
            found_scores=self._column("found_scores", np.float64),
            found_boxes_xywh=boxes[0],
            found_areas=measured[0],
            truth_images=_picture_of_rows([picture.truth_labels for picture in self._pictures]),
            truth_labels=self._column("truth_labels", np.int64),
            truth_boxes_xywh=boxes[1],
            truth_areas=np.where(np.isnan(areas), measured[1], areas),
            truth_crowd=self._column("truth_crowd", bool),
            truth_ignored=self._column("truth_ignored", bool),
            masks=masks,
            joints=joints,
        )

    def _column(self, name: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(picture, name) for picture in self._pictures]).astype(dtype)

    def _masks(self, name: str) -> RunTexts:
        given = [getattr(picture, name) for picture in self._pictures]
        texts = [text for masks in given for text in masks.texts]
        return RunTexts.joined(texts, [masks.size_hw for masks in given for _ in masks.texts])


def require_kind(kind: str, sigmas: Sequence[int | float] | None) -> None:
    """Raise `UsageError` unless the kind is known and sigmas are positive."""
    if kind not in ("boxes", "masks", "keypoints"):
        raise UsageError(f"got {kind!r}, wanted boxes, masks or keypoints", where="kind")
    if sigmas is not None and (not len(sigmas) or min(sigmas) <= 0):
        raise UsageError(f"got {list(sigmas)}, wanted a positive number for each joint", where="sigmas")


def require_pairs(predictions: Sequence[object], targets: Sequence[object]) -> None:
    """Raise `RecordError` unless there is one target a prediction."""
    require(
        len(predictions) == len(targets),
        "update",
        f"{len(predictions)} predictions and {len(targets)} targets",
        "as many",
    )


def _truth_arrays(
    objects: Objects, joints: "_Masks | np.ndarray | None"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels, areas (NaN where box or mask is to be measured), crowd, and ignored of one picture; without any
    annotated joint an object is ignored too.
    """
    count = len(objects)
    crowd = np.zeros(count, bool) if objects.crowd is None else objects.crowd.cpu().numpy().copy()
    difficult = np.zeros(count, bool) if objects.difficult is None else objects.difficult.cpu().numpy()
    areas = np.full(count, np.nan, np.float32) if objects.areas is None else objects.areas.cpu().numpy().copy()
    boxes = objects.boxes_xyxy.cpu().numpy().copy()
    bare = (joints[..., 2] > 0).sum(1) == 0 if isinstance(joints, np.ndarray) else np.zeros(count, bool)
    return boxes, objects.labels.cpu().numpy().astype(np.int32), areas, crowd, crowd | difficult | bare


def _picture_of_rows(per_picture: Sequence[np.ndarray]) -> Int64[np.ndarray, " N"]:
    """The picture's number of each row when the pictures' rows are laid end to end."""
    return np.repeat(np.arange(len(per_picture)), [len(rows) for rows in per_picture])


def _as_xywh(boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)
