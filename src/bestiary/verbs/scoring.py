"""Predictions that any program made, scored by any protocol: `bestiary score`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bestiary.data.opening import open_and_say
from bestiary.data.results.gathering import KINDS, Results
from bestiary.data.results.opening import PANOPTIC, read_results, recognise
from bestiary.data.results.truth import Truth, picture_file
from bestiary.errors import DataError, PictureError, RecordError, UsageError
from bestiary.metrics.coco import CocoScores, coco_from_files
from bestiary.metrics.errors import error_split
from bestiary.metrics.json_files import load_json
from bestiary.metrics.lvis import LIMIT, is_federated, lvis_from_entries, lvis_from_files
from bestiary.metrics.panoptic_files import panoptic_from_files
from bestiary.metrics.scores import Scores
from bestiary.metrics.table import Kind
from bestiary.pictures.decode import read_image
from bestiary.predictions import Detections, Prediction
from bestiary.records import IGNORE_LABEL, Target
from bestiary.reports.examples import ExampleCollector, ReadPicture
from bestiary.reports.html import write_report
from bestiary.training.contracts import Evaluator
from bestiary.verbs.evaluating import Evaluation, best_threshold
from bestiary.verbs.protocols import Protocol, Rules, chosen_protocols

FIELDS = {"classification": {"label"}, "segmentation": {"label_map"}}
"""What must be known of each picture; of detections that depends on their kinds."""


@dataclass(frozen=True)
class Formats:
    """How truth and predictions are to be read, where that is not to be found out.

    Attributes:
        truth: a reader of data sets.
        predictions: a reader of results (`bestiary.data.results.opening.RESULT_FORMATS`).
        split: of the truth.
        task: what the predictions must answer.
        skip_unknown: leave out results of pictures and categories that the truth does not have.
    """

    truth: str | None = None
    predictions: str | None = None
    split: str | None = None
    task: str | None = None
    skip_unknown: bool = False


def score(
    truth: str | Path,
    predictions: str | Path,
    protocols: Sequence[str] = (),
    *,
    rules: Rules | None = None,
    formats: Formats | None = None,
    report: str | Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Score predictions against a truth.

    COCO results of a COCO file are scored from the two files, so that the numbers are the reference tool's to the last
    bit; LVIS and panoptic files likewise. All others go through the accumulators that `eval` uses, which hold boxes in
    float32. Detections of an LVIS file are scored by LVIS's protocol where none is named.

    Args:
        truth: a folder or annotation file in any format that is read.
        predictions: a file or folder in any format of `RESULT_FORMATS`, or COCO's panoptic JSON.
        protocols: names out of `PROTOCOLS`; the usual ones of the task if none.
        rules: thresholds, limits, classes.
        formats: how to read both, where that is not to be found out.
        report: where to write the HTML report; it shows pictures where they are found.
        say: told how both were read, and what was left out.

    Raises:
        DataError: one of the two cannot be read, or they do not fit each other.
        UsageError: a protocol, split, class or kind that does not exist or does not fit.
    """
    rules, formats = rules or Rules(), formats or Formats()
    opened = open_and_say(truth, formats.truth)
    say(f"truth {opened.why}")
    found = Path(predictions).expanduser()
    joined = Truth(opened.index, _split(formats.split, opened.index.splits))
    read_as = formats.predictions or recognise(found, joined)
    say(f"predictions read as {read_as}")
    if read_as == PANOPTIC:
        if rules != Rules():
            raise UsageError("panoptic quality has no rules to set", where="rules", mend="Leave the flags out")
        return _score_panoptic(Path(truth).expanduser(), found, joined, protocols, formats, report)
    results = read_results(found, joined, read_as, formats.skip_unknown)
    for note in results.notes:
        say(note)
    if formats.task not in (None, results.task):
        raise UsageError(f"got predictions of {results.task}, wanted {formats.task}", where="task")
    job = _Job(joined, results, rules, found, say)
    job.require_fit()
    chosen = job.choose(protocols, report is not None)
    scores, errors, examples = job.run(chosen, with_examples=report is not None)
    facts = {
        "truth": str(truth),
        "predictions": f"{predictions} ({read_as})",
        "pictures": f"{len(joined)} ({joined.split})",
    }
    facts |= {"left out": "; ".join(results.notes)} if results.notes else {}
    page = None
    if report is not None:
        title = f"{found.name} on {Path(truth).name}"
        page = write_report(
            report,
            title=title,
            scores=scores[0],
            extra_scores=scores[1:],
            facts=facts,
            examples=examples,
            errors=errors,
        )
    return Evaluation(scores, page, facts=facts)


def _split(wanted: str | None, splits: dict[str, Any]) -> str | None:
    return next(iter(splits)) if wanted is None and len(splits) == 1 else wanted


class _Job:
    """One truth, one set of results, and the rules they are scored by."""

    def __init__(self, truth: Truth, results: Results, rules: Rules, path: Path, say: Callable[[str], None]) -> None:
        self.truth, self.results, self.rules, self.path, self.say = truth, results, rules, path, say
        self.kinds: list[Kind] = []
        if results.task == "detection":
            self.kinds = self._kinds()
        for name in (*rules.classes, *rules.ignore):
            if name not in truth.categories:
                from difflib import get_close_matches

                near = get_close_matches(name, truth.categories, 1, 0.5)
                mend = f"Did you mean {near[0]}?" if near else f"It has {', '.join(truth.categories)[:300]}"
                raise UsageError(f"the truth has no category {name!r}", where="classes", mend=mend)

    def _kinds(self) -> list[Kind]:
        """Kinds of detections to score: those asked for, or all that both sides have."""
        offered = {kind for kind in KINDS if kind in self.truth.offered}
        for kind in self.rules.kinds:
            for side, have in (("predictions", self.results.kinds), ("truth", offered)):
                if kind not in have:
                    got = f"the {side} has no {kind}" if side == "truth" else f"the {side} have no {kind}"
                    raise UsageError(f"{got}; there are {', '.join(sorted(have)) or 'none'}", where="kind")
        kinds: list[Kind] = [kind for kind in KINDS if kind in (self.rules.kinds or self.results.kinds & offered)]
        if not kinds:
            got = f"predictions of {', '.join(sorted(self.results.kinds))}, and a truth of {', '.join(sorted(offered))}"
            raise DataError(f"got {got or 'nothing'}, wanted a kind in common", where=str(self.path))
        return kinds

    def require_fit(self) -> None:
        """Raise `DataError` or `UsageError` where rules and what is there do not go together."""
        task, rules = self.results.task, self.rules
        missing = FIELDS.get(task, set()) - self.truth.offered
        if missing:
            have = ", ".join(sorted(self.truth.offered)) or "nothing"
            raise DataError(f"predictions of {task} want a truth with {', '.join(missing)}; it has {have}")
        said = {"iou": rules.iou_thresholds, "max-detections": rules.max_detections, "kind": rules.kinds}
        wrong = [name for name, value in said.items() if value and task != "detection"]
        wrong += ["ignore-label"] if rules.ignore and task != "segmentation" else []
        wrong += ["classes"] if rules.classes and task == "classification" else []
        wrong += ["sigmas"] if rules.sigmas and "keypoints" not in self.kinds else []
        if wrong:
            what = "detections without keypoints" if wrong == ["sigmas"] and self.kinds else f"predictions of {task}"
            raise UsageError(f"{what} have no such rule", where=f"--{wrong[0]}")

    def choose(self, names: Sequence[str], with_report: bool) -> dict[str, Protocol]:
        """The protocols of these names, or the usual ones that know what is there and all rules that were set.

        Raises:
            UsageError: a protocol that was named, or every usual one, does not.
        """
        wanted = names or self._federated()
        chosen = chosen_protocols(self.results.task, wanted, with_report)
        refused = {name: error for name, protocol in chosen.items() if (error := self._misfit(name, protocol))}
        if refused and (wanted or len(refused) == len(chosen)):
            raise next(iter(refused.values()))
        for name, error in refused.items():
            self.say(f"{name} is left out: {error.where + ': ' if error.where else ''}{error.message}")
        return {name: protocol for name, protocol in chosen.items() if name not in refused}

    def _misfit(self, name: str, protocol: Protocol) -> UsageError | None:
        if self.kinds and not set(protocol.kinds) & set(self.kinds):
            return UsageError(f"{name} scores {', '.join(protocol.kinds)}, not {', '.join(self.kinds)}")
        flag = protocol.refuses(self.rules)
        message = f"{name} has no such rule (or only one value of it)"
        return UsageError(message, where=flag, mend="Leave it out") if flag else None

    def _federated(self) -> Sequence[str]:
        """LVIS's protocol where the truth is LVIS's: any other would count detections that nobody can judge."""
        file = self.truth.coco_file
        if file is None or self.kinds == ["keypoints"] or not is_federated(file):
            return ()
        self.say("the truth says what its pictures were searched for: scored by lvis; --protocol names another")
        return ("lvis",)

    def run(self, chosen: dict[str, Protocol], with_examples: bool) -> tuple[list[Scores], Any, list[Any]]:
        """Scores in the order of the protocols, the split of a detector's mistakes, and the pictures to show."""
        makers: list[Callable[[], Scores]] = []
        gathered: list[Evaluator] = []
        for name, protocol in chosen.items():
            kinds: list[Kind | None] = [k for k in protocol.kinds if k in self.kinds]
            for kind in kinds or [None]:
                from_files = self._from_files(name, kind)
                if from_files is not None:
                    makers.append(from_files)
                elif protocol.make is not None:
                    gathered.append(protocol.make(self.truth.categories, self.rules, kind or "boxes"))
                    makers.append(gathered[-1].compute)
        split = next((g for g in gathered if isinstance(g, CocoScores)), None)
        # LVIS's protocol leaves out what nobody can judge, and the split would call it a mistake.
        if split is None and with_examples and self.kinds and list(chosen) != ["lvis"]:
            split = CocoScores(self.truth.categories, **self.rules.coco(self.kinds[0]))
            gathered.append(split)
        collector = ExampleCollector() if with_examples else None
        if gathered or collector is not None:
            self._gather(gathered, collector)
        scores = [self._trimmed(make()) for make in makers]
        errors = error_split(split.table()) if split is not None and with_examples else None
        threshold = best_threshold(scores[0])
        return scores, errors, collector.examples(self.truth.categories, threshold) if collector is not None else []

    def _from_files(self, name: str, kind: Kind | None) -> Callable[[], Scores] | None:
        """What scores the files themselves; None where predictions must be read into records first."""
        truth = self.truth.coco_file
        if name == "lvis":
            if truth is None or not is_federated(truth):
                got = "lvis wants an LVIS annotation file, whose pictures say what they were searched for"
                raise UsageError(got, where="protocol", mend="Name it as TRUTH, or leave the protocol to be chosen")
            return partial(self._lvis, truth, "masks" if kind == "masks" else "boxes")
        if name == "coco" and truth is not None and kind is not None and self.results.by_ids and not self.rules.classes:
            arguments = self.rules.coco(kind)
            return lambda: coco_from_files(truth, self._document(), **arguments)
        return None

    def _lvis(self, truth: Path, kind: Literal["boxes", "masks"]) -> Scores:
        limit = self.rules.max_detections[0] if self.rules.max_detections else LIMIT
        if self.results.by_ids:
            return lvis_from_files(truth, self._document(), kind, limit)
        pictures, entries = self.truth.pictures, []
        for i in self.results.answered:
            found = self.results.predict(i)
            if isinstance(found, Detections):
                entries += found.to_coco(pictures[i].extra["id"], self.truth.category_ids)
        return lvis_from_entries(truth, entries, kind, limit, self.path)

    def _document(self) -> Path:
        return self.path if self.path.is_file() else next(self.path.glob("*.json"))

    def _gather(self, gathered: Sequence[Evaluator], collector: ExampleCollector | None) -> None:
        fields = FIELDS.get(self.results.task) or set(self.kinds) | {"boxes"}
        lost = 0
        for i in range(len(self.truth)):
            prediction, target = self._chosen(
                self.results.predict(i), self.truth.target(i, fields & self.truth.offered)
            )
            try:
                for evaluator in gathered:
                    evaluator.update([prediction], [target])
            except RecordError as error:
                raise DataError(error.message, where=error.where, mend=error.mend) from error
            if collector is not None:
                file = picture_file(self.truth.pictures[i])
                lost += file is None
                if file is not None:
                    collector.add(prediction, target, _reader(file))
        if lost:
            self.say(f"{lost} of {len(self.truth)} pictures are not there: the report cannot show them")

    def _chosen(self, prediction: Prediction, target: Target) -> tuple[Prediction, Target]:
        """Both without what is not scored."""
        rules, categories = self.rules, self.truth.categories
        if target.label_map is not None and rules.ignore:
            ignored = torch.tensor([categories.index(name) for name in rules.ignore], dtype=torch.uint8)
            hidden = torch.isin(target.label_map, ignored)
            target = replace(target, label_map=target.label_map.masked_fill(hidden, IGNORE_LABEL))
        if isinstance(prediction, Detections) and rules.classes:
            labels = torch.tensor([categories.index(name) for name in rules.classes])
            prediction = prediction[torch.isin(prediction.labels, labels)]
            if target.objects is not None:
                target = replace(target, objects=target.objects[torch.isin(target.objects.labels, labels)])
        return prediction, target

    def _trimmed(self, scores: Scores) -> Scores:
        """Without numbers that need what the predictions do not have, and without classes that were not scored."""
        drop = {"log_loss", "calibration_error"} if self.results.labels_only else set()
        drop |= {"log_loss"} if self.results.partial else set()
        drop |= {
            name for name in scores.values if self.results.labels_only and name.startswith("top") and name != "top1"
        }
        values = {name: value for name, value in scores.values.items() if name not in drop}
        details = {
            k: v
            for k, v in scores.details.items()
            if not (self.results.labels_only and k in ("calibration", "thresholds"))
        }
        protocol, per_class = scores.protocol, scores.per_class
        if self.results.labels_only:
            protocol += "; classes without probabilities"
        if self.rules.classes:
            per_class = {name: row for name, row in per_class.items() if name in self.rules.classes}
            protocol += f"; only {', '.join(self.rules.classes)}"
            if len(per_class) < len(scores.per_class) and "confusion_rows" not in details:
                # A matrix without names of its own is named by the classes, all of them.
                details = details | _named_matrix(details, list(scores.per_class))
        return replace(scores, values=values, protocol=protocol, per_class=per_class, details=details)


def _named_matrix(details: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if "confusion" not in details:
        return {}
    return {
        "confusion": np.asarray(details["confusion"]),
        "confusion_rows": list(names),
        "confusion_columns": list(names),
    }


def _reader(file: Path) -> ReadPicture:
    def read() -> torch.Tensor | None:
        try:
            return read_image(file)
        except PictureError:
            return None  # the report shows another; the numbers do not need it

    return read


def _score_panoptic(
    truth: Path, found: Path, joined: Truth, protocols: Sequence[str], formats: Formats, report: str | Path | None
) -> Evaluation:
    chosen_protocols("panoptic", protocols)
    if formats.task not in (None, "panoptic"):
        raise UsageError(f"got predictions of panoptic, wanted {formats.task}", where="task")
    file = _panoptic_json(joined.index.root / joined.pictures[0].where.file)
    maps = {p.instance_map.parent for p in joined.pictures if p.instance_map is not None}
    document = found if found.is_file() else next(found.glob("*.json"))
    folder = document.with_suffix("")
    names = {str(e.get("file_name")) for e in load_json(document)["annotations"]}
    if not folder.is_dir() and all((document.parent / name).is_file() for name in names):
        folder = document.parent
    scores = panoptic_from_files(file, document, maps.pop() if len(maps) == 1 else None, folder)
    facts = {"truth": str(truth), "predictions": f"{found} ({PANOPTIC})", "pictures": f"{len(joined)} ({joined.split})"}
    page = None
    if report is not None:
        page = write_report(report, title=f"{found.name} on {truth.name}", scores=scores, facts=facts)
    return Evaluation([scores], page, facts=facts)


def _panoptic_json(file: Path) -> Path:
    if not file.is_file():
        raise DataError("got no panoptic annotation file for these results", where=str(file))
    return file
