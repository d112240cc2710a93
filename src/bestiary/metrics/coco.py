"""Average precision and recall of detections as COCO takes them (Lin et al., ECCV 2014; the reference is pycocotools).

CocoScores                    accumulator: predictions and targets in, the twelve numbers out
average_precision             the pure function: a table in, precision and recall of every category out
coco_from_files               annotation and result files in, the twelve numbers out
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from bestiary.errors import UsageError
from bestiary.metrics.coco_files import read_table
from bestiary.metrics.confusion import detection_confusion
from bestiary.metrics.curves import PrecisionRecall, advice
from bestiary.metrics.matching import (
    EVERYTHING,
    HIT,
    IGNORED,
    ClassCells,
    ClassGroups,
    Overlaps,
    RowMatches,
    match_coco,
    overlaps_of,
)
from bestiary.metrics.operating import DetectionCurves, detection_curves
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.table import DetectionRows, DetectionTable, Kind
from bestiary.predictions import Detections
from bestiary.records import Target

IOU_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
RECALLS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels, both bounds inside."""

AreaRanges = Mapping[str, tuple[int | float, int | float]]
"""Name -> smallest and largest area in square pixels."""

MAX_DETECTIONS: dict[Kind, tuple[int, ...]] = {"boxes": (1, 10, 100), "masks": (1, 10, 100), "keypoints": (20,)}
"""Detections of a category in a picture, the best, that count."""

LARGEST_CONFUSION = 200
"""Categories up to which the confusion matrix is part of the details."""


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """Precision and recall of K categories at T thresholds in S settings, a setting being an area range and a number
    of detections.

    Attributes:
        settings: (area range, most detections of a category in a picture).
        iou_thresholds: what counts as found.
        precision: at 101 recalls, NaN for categories without truths in the range.
        recall: the highest reached.
        scores: score at which each of the 101 recalls is reached, 0 where it is not.
        curves: precision and recall by score, at the first threshold from 0.5 on, all areas, most detections.
        counted: truths that count, all areas.
        matches: what became of every detection, where `curves` are taken.
    """

    settings: tuple[tuple[str, int], ...]
    iou_thresholds: tuple[float, ...]
    precision: Float64[np.ndarray, "T 101 K S"]
    recall: Float64[np.ndarray, "T K S"]
    scores: Float64[np.ndarray, "T 101 K S"]
    curves: tuple[PrecisionRecall, ...]
    counted: Int64[np.ndarray, " K"]
    matches: RowMatches

    def ap(self, area: str = "all", iou: float | None = None) -> float:
        """Mean precision over thresholds (or at `iou`), recalls and categories, at most detections; NaN without
        truths.
        """
        setting = max(i for i, (name, _) in enumerate(self.settings) if name == area)
        return mean_of_measured(self.precision[self._rows(iou)][..., setting])

    def ar(self, area: str, limit: int, iou: float | None = None) -> float:
        """Highest recall, mean over thresholds (or at `iou`) and categories, with at most `limit` detections; NaN
        without truths.
        """
        return mean_of_measured(self.recall[self._rows(iou)][:, :, self.settings.index((area, limit))])

    def _rows(self, iou: float | None) -> list[int]:
        return [i for i, t in enumerate(self.iou_thresholds) if iou is None or abs(t - iou) < 1e-9]


def average_precision(
    table: DetectionTable,
    iou_thresholds: Sequence[int | float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] | None = None,
    overlaps: Overlaps | None = None,
    area_ranges: AreaRanges | None = None,
) -> AveragePrecision:
    """Precision at 101 recalls and highest recall of every category.

    Args:
        iou_thresholds: ascending; a detection is right if its overlap is at least this.
        max_detections: ascending; the best of a category in a picture. All are taken on all areas, the last on each
            range. 1, 10, 100 if not given, 20 for keypoints.
        overlaps: what a pair's overlap is; that of the table's kind if not given.
        area_ranges: name -> smallest and largest area, both inside; COCO's if not given, for keypoints without the
            small. "all" need not be among them.

    Raises:
        UsageError: a list is empty or not ascending, or a range's bounds are the wrong way round.
    """
    from bestiary.metrics._kernels import detection

    rules = Rules.of(table.kind, iou_thresholds, max_detections, area_ranges)
    overlaps = overlaps_of(table) if overlaps is None else overlaps
    limit, thresholds = rules.max_detections[-1], np.asarray(rules.iou_thresholds, dtype=np.float64)
    settings, names = rules.settings(), list(rules.area_ranges)
    areas = np.array([names.index(name) for name, _ in settings])
    limits = np.array([most for _, most in settings])
    ranges = np.array(list(rules.area_ranges.values()), np.float64)
    count, at_half = len(table.categories), _first_from_half(rules.iou_thresholds)
    precision = np.full((len(thresholds), len(RECALLS), count, len(settings)), np.nan)
    recall, scores = np.full((len(thresholds), count, len(settings)), np.nan), precision.copy()
    curves, counted = [PrecisionRecall.pooled([])] * count, np.zeros(count, np.int64)
    at_half_rows = RowMatches.nothing(table)

    def work(cells: ClassCells) -> None:
        matches = match_coco(table, cells, overlaps(table, cells), thresholds, ranges)
        found_scores, label = table.found_scores[cells.found_rows], cells.label
        precision[:, :, label], scores[:, :, label], recall[:, label] = detection.interpolate_settings(
            matches.outcome, cells.ranks, found_scores, areas, limits, matches.counted, RECALLS
        )
        outcome = matches.outcome[0, at_half]
        at_half_rows.fill(cells, outcome, matches.truths[0, at_half])
        judged = outcome != IGNORED
        counted[label] = matches.counted[0]
        curves[label] = PrecisionRecall.of(found_scores[judged], outcome[judged] == HIT, int(matches.counted[0]))

    ClassGroups(table, limit).in_threads(work)
    return AveragePrecision(
        settings, rules.iou_thresholds, precision, recall, scores, tuple(curves), counted, at_half_rows
    )


@dataclass(frozen=True)
class Rules:
    """What an evaluation is taken by.

    Attributes:
        iou_thresholds: ascending.
        max_detections: of a category in a picture, ascending.
        area_ranges: name -> bounds in square pixels, both inside; "all" first.
    """

    iou_thresholds: tuple[float, ...]
    max_detections: tuple[int, ...]
    area_ranges: dict[str, tuple[float, float]]

    @classmethod
    def of(
        cls,
        kind: Kind,
        iou_thresholds: Sequence[int | float] | None,
        max_detections: Sequence[int] | None,
        area_ranges: AreaRanges | None,
    ) -> "Rules":
        """The given, and COCO's for what is not given; errors as in `average_precision`."""
        ious = tuple(float(t) for t in (IOU_THRESHOLDS if iou_thresholds is None else iou_thresholds))
        most = tuple(MAX_DETECTIONS[kind] if max_detections is None else max_detections)
        _require_ascending("iou_thresholds", ious)
        _require_ascending("max_detections", most)
        if area_ranges is None:
            area_ranges = {name: AREA_RANGES[name] for name in AREA_RANGES if kind != "keypoints" or name != "small"}
        ranges = {name: (float(low), float(high)) for name, (low, high) in area_ranges.items()}
        for name, (low, high) in ranges.items():
            if not low < high:
                raise UsageError(f"got {low:g} to {high:g}, wanted the smaller first", where=f"area_ranges[{name!r}]")
        return cls(ious, most, {"all": ranges.pop("all", AREA_RANGES["all"]), **ranges})

    def settings(self) -> tuple[tuple[str, int], ...]:
        """All areas with each number of detections, then each range with the last."""
        ranges = [(name, self.max_detections[-1]) for name in self.area_ranges if name != "all"]
        return (*(("all", most) for most in self.max_detections), *ranges)


def _require_ascending(name: str, values: Sequence[float] | Sequence[int]) -> None:
    if not values or any(b <= a for a, b in pairwise(values)):
        raise UsageError(f"got {list(values)}, wanted ascending numbers", where=name)


class CocoScores:
    """COCO's evaluation of boxes, masks or keypoints, gathered picture by picture.

    Truths marked as crowd follow COCO's rule; difficult ones neither count nor harm. A truth's size is its `areas`
    (of the mask, in COCO) or its box.

    Args:
        categories: K names.
        iou_thresholds: .50, .55 ... .95 if not given.
        max_detections: the best of a category in a picture, ascending; numbers are called after them. 1, 10, 100 if not
            given, 20 for keypoints.
        kind: what is compared: IoU of boxes, IoU of masks (kept as run lengths), or similarity of joints.
        sigmas: of the joints; COCO's 17 if not given.
        area_ranges: as in `average_precision`.
    """

    def __init__(
        self,
        categories: Sequence[str],
        iou_thresholds: Sequence[int | float] | None = None,
        max_detections: Sequence[int] | None = None,
        kind: Kind = "boxes",
        sigmas: Sequence[int | float] | None = None,
        area_ranges: AreaRanges | None = None,
    ) -> None:
        self.rows = DetectionRows(categories, kind, sigmas)
        self.rules = Rules.of(kind, iou_thresholds, max_detections, area_ranges)

    def update(self, predictions: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add pictures; `RecordError` where a target has no objects (an empty `Objects` is fine), the lengths differ,
        or masks or joints do not fit.
        """
        self.rows.update(predictions, targets)

    def merge(self, other: "CocoScores") -> None:
        """Add another accumulator's pictures after this one's."""
        self.rows.merge(other.rows)

    def table(self) -> DetectionTable:
        """Everything seen so far, for the error split, confusion matrix or VOC's numbers on the same data."""
        return self.rows.table()

    def compute(self) -> Scores:
        """COCO's numbers (AP, AP50, AP75, AP_small ..., AR1, AR10, AR100, AR_small ...; for keypoints AP ..., AR,
        AR50, AR75 ...), classes, curves and thresholds.
        """
        table, rules = self.rows.table(), self.rules
        result = average_precision(table, rules.iou_thresholds, rules.max_detections, area_ranges=rules.area_ranges)
        return coco_scores(result, table)

    def curves(
        self, iou_threshold: int | float = 0.5, area: tuple[int | float, int | float] = EVERYTHING
    ) -> DetectionCurves:
        """Precision and recall at any score, of each category and of all together."""
        return detection_curves(self.rows.table(), iou_threshold, self.rules.max_detections[-1], area)


def coco_scores(result: AveragePrecision, table: DetectionTable) -> Scores:
    """The numbers that people know, from precision and recall."""
    limits = [limit for area, limit in result.settings if area == "all"]
    sizes = [area for area, _ in result.settings if area != "all"]
    values = {"AP": result.ap(), "AP50": result.ap(iou=0.5), "AP75": result.ap(iou=0.75)}
    values |= {f"AP_{size}": result.ap(size) for size in sizes}
    if table.kind == "keypoints":
        ious = {"AR": None, "AR50": 0.5, "AR75": 0.75}
        values |= {name: result.ar("all", limits[-1], iou) for name, iou in ious.items()}
    else:
        values |= {f"AR{limit}": result.ar("all", limit) for limit in limits}
    values |= {f"AR_{size}": result.ar(size, limits[-1]) for size in sizes}
    per_class, curves = _class_numbers(result, table, len(limits) - 1)
    pooled = PrecisionRecall.pooled(result.curves)
    thresholds = {
        "overall": advice(pooled),
        "per_class": {category: advice(curve) for category, curve in zip(table.categories, result.curves, strict=True)},
    }
    details = {
        "task": "detection",
        "pictures": table.n_images,
        "detections": int(table.found_scores.size),
        "ignored truths": int(table.truth_ignored.sum()),
        "curves": curves,
        "thresholds": thresholds,
    }
    if len(table.categories) <= LARGEST_CONFUSION:
        best = pooled.best_f1()
        threshold = best.threshold if best else 0.5
        iou = result.iou_thresholds[_first_from_half(result.iou_thresholds)]
        confusion = detection_confusion(table, threshold, iou, matches=result.matches)
        details |= {
            "confusion": confusion.counts,
            "confusion_rows": confusion.row_names,
            "confusion_columns": confusion.column_names,
            "confusion_protocol": confusion.protocol,
        }
    return Scores("AP", values, _protocol(result, table.kind, limits[-1]), per_class, details)


def _class_numbers(
    result: AveragePrecision, table: DetectionTable, setting: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, np.ndarray]]]:
    """Numbers of every category, and the curves of those that have truths, in one setting."""
    half = _row_of_half(result.iou_thresholds)
    per_class, curves = {}, {}
    for label, category in enumerate(table.categories):
        precision = result.precision[:, :, label, setting]
        best = result.curves[label].best_f1()
        per_class[category] = {
            "AP": mean_of_measured(precision),
            "AP50": mean_of_measured(precision[half]) if half is not None else math.nan,
            "best_f1": best.f1 if best else math.nan,
            "best_threshold": best.threshold if best else math.nan,
            "count": float(result.counted[label]),
        }
        if result.counted[label]:
            row = half or 0
            score = result.scores[row, :, label, setting]
            curves[category] = {"recall": RECALLS.copy(), "precision": precision[row], "score": score}
    return per_class, curves


def _first_from_half(thresholds: Sequence[float]) -> int:
    """Which threshold is the first that is at least 0.5, or else the first."""
    return next((i for i, t in enumerate(thresholds) if t >= 0.5 - 1e-9), 0)


def _row_of_half(thresholds: Sequence[float]) -> int | None:
    return next((i for i, t in enumerate(thresholds) if abs(t - 0.5) < 1e-9), None)


def _protocol(result: AveragePrecision, kind: Kind, limit: int) -> str:
    first, last = result.iou_thresholds[0], result.iou_thresholds[-1]
    ious = f"{first:.2f}" if first == last else f"{first:.2f}:{last:.2f}, {len(result.iou_thresholds)} thresholds"
    measure, bare = ("OKS", ", objects without joints") if kind == "keypoints" else ("IoU", "")
    return (
        f"COCO {kind}, AP at {measure} {ious}, 101 recalls, at most {limit} detections of a category in a picture; "
        f"crowds{bare} and difficult ignored"
    )


def coco_from_files(
    truth: str | Path,
    results: str | Path,
    iou_thresholds: Sequence[int | float] | None = None,
    max_detections: Sequence[int] | None = None,
    kind: Kind = "boxes",
    sigmas: Sequence[int | float] | None = None,
    area_ranges: AreaRanges | None = None,
) -> Scores:
    """COCO's numbers from an annotation file and a file of results, both JSON; arguments as in `CocoScores`.

    Raises:
        DataError: a file is missing or broken, or results name pictures or categories that the annotations do not have.
    """
    rules = Rules.of(kind, iou_thresholds, max_detections, area_ranges)
    table = read_table(Path(truth), Path(results), kind, sigmas)
    result = average_precision(table, rules.iou_thresholds, rules.max_detections, area_ranges=rules.area_ranges)
    return coco_scores(result, table)
