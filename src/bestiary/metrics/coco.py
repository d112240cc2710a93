"""Average precision and recall of detections as COCO takes them (Lin et al., ECCV 2014; the reference is pycocotools).

CocoScores                    accumulator: predictions and targets in, the twelve numbers out
average_precision             the pure function: a table in, precision and recall of every category out
coco_from_files               annotation and result files in, the twelve numbers out
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from bestiary.errors import UsageError
from bestiary.metrics.coco_files import read_table
from bestiary.metrics.confusion import detection_confusion
from bestiary.metrics.curves import PrecisionRecall, advice
from bestiary.metrics.matching import HIT, IGNORED, Overlaps, RowMatches, box_overlaps, class_cells, match_coco
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.table import DetectionRows, DetectionTable
from bestiary.predictions import Detections
from bestiary.records import Target

IOU_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
RECALLS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels, both bounds inside."""

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
        rows = slice(None) if iou is None else [i for i, t in enumerate(self.iou_thresholds) if abs(t - iou) < 1e-9]
        return mean_of_measured(self.precision[rows, :, :, setting])

    def ar(self, area: str, limit: int) -> float:
        """Highest recall, mean over thresholds and categories, with at most `limit` detections; NaN without truths."""
        return mean_of_measured(self.recall[:, :, self.settings.index((area, limit))])


def average_precision(
    table: DetectionTable,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] = (1, 10, 100),
    overlaps: Overlaps = box_overlaps,
) -> AveragePrecision:
    """Precision at 101 recalls and highest recall of every category.

    Args:
        iou_thresholds: ascending; a detection is right if its overlap is at least this.
        max_detections: ascending; the best of a category in a picture. All are taken on all areas, the last on each
            range.
        overlaps: what a pair's overlap is.

    Raises:
        UsageError: a list is empty or not ascending.
    """
    from bestiary.metrics._kernels import detection

    _require_ascending("iou_thresholds", iou_thresholds)
    _require_ascending("max_detections", max_detections)
    limit, thresholds = max_detections[-1], np.asarray(iou_thresholds, dtype=np.float64)
    settings = tuple([("all", m) for m in max_detections] + [(name, limit) for name in AREA_RANGES if name != "all"])
    areas = [list(AREA_RANGES).index(name) for name, _ in settings]
    ranges = np.array(list(AREA_RANGES.values()))
    count, at_half = len(table.categories), iou_thresholds.index(_first_from_half(iou_thresholds))
    precision = np.full((len(thresholds), len(RECALLS), count, len(settings)), np.nan)
    recall, scores = np.full((len(thresholds), count, len(settings)), np.nan), precision.copy()
    curves, counted = [], np.zeros(count, np.int64)
    at_half_rows = RowMatches.nothing(table)
    for cells in class_cells(table, limit):
        matches = match_coco(table, cells, overlaps(table, cells), thresholds, ranges)
        found_scores = table.found_scores[cells.found_rows]
        for s, (_, most) in enumerate(settings):
            truths = int(matches.counted[areas[s]])
            if not truths:
                continue
            for t in range(len(thresholds)):
                row = detection.interpolate(
                    matches.outcome[areas[s], t], cells.ranks, found_scores, most, truths, RECALLS
                )
                precision[t, :, cells.label, s], scores[t, :, cells.label, s], recall[t, cells.label, s] = row
        outcome = matches.outcome[0, at_half]
        at_half_rows.fill(cells, outcome, matches.truths[0, at_half])
        judged = outcome != IGNORED
        counted[cells.label] = matches.counted[0]
        curves.append(PrecisionRecall.of(found_scores[judged], outcome[judged] == HIT, int(matches.counted[0])))
    return AveragePrecision(
        settings, tuple(iou_thresholds), precision, recall, scores, tuple(curves), counted, at_half_rows
    )


def _require_ascending(name: str, values: Sequence[float] | Sequence[int]) -> None:
    if not values or any(b <= a for a, b in pairwise(values)):
        raise UsageError(f"got {list(values)}, wanted ascending numbers", where=name)


class CocoScores:
    """COCO's evaluation of boxes, gathered picture by picture.

    Truths marked as crowd follow COCO's rule; difficult ones neither count nor harm. A truth's size is its `areas`
    (of the mask, in COCO) or its box.

    Args:
        categories: K names.
        iou_thresholds: .50, .55 ... .95 if not given.
        max_detections: the best of a category in a picture, ascending; numbers are called after them.
    """

    def __init__(
        self,
        categories: Sequence[str],
        iou_thresholds: Sequence[float] | None = None,
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> None:
        self.rows = DetectionRows(categories)
        self.iou_thresholds = tuple(IOU_THRESHOLDS if iou_thresholds is None else iou_thresholds)
        self.max_detections = tuple(max_detections)
        _require_ascending("iou_thresholds", self.iou_thresholds)
        _require_ascending("max_detections", self.max_detections)

    def update(self, predictions: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add pictures; `RecordError` where a target has no objects (an empty `Objects` is fine) or the lengths
        differ.
        """
        self.rows.update(predictions, targets)

    def merge(self, other: "CocoScores") -> None:
        """Add another accumulator's pictures after this one's."""
        self.rows.merge(other.rows)

    def table(self) -> DetectionTable:
        """Everything seen so far, for the error split, confusion matrix or VOC's numbers on the same data."""
        return self.rows.table()

    def compute(self) -> Scores:
        """The twelve numbers (AP, AP50, AP75, AP_small ..., AR1, AR10, AR100, AR_small ...), classes, curves and
        thresholds.
        """
        table = self.rows.table()
        return coco_scores(average_precision(table, self.iou_thresholds, self.max_detections), table)


def coco_scores(result: AveragePrecision, table: DetectionTable) -> Scores:
    """The numbers that people know, from precision and recall."""
    limits = [limit for area, limit in result.settings if area == "all"]
    sizes = [area for area, _ in result.settings if area != "all"]
    values = {"AP": result.ap(), "AP50": result.ap(iou=0.5), "AP75": result.ap(iou=0.75)}
    values |= {f"AP_{size}": result.ap(size) for size in sizes}
    values |= {f"AR{limit}": result.ar("all", limit) for limit in limits}
    values |= {f"AR_{size}": result.ar(size, limits[-1]) for size in sizes}
    per_class, curves = _class_numbers(result, table, len(limits) - 1)
    pooled = _pool(result.curves)
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
        threshold, iou = best.threshold if best else 0.5, _first_from_half(result.iou_thresholds)
        confusion = detection_confusion(table, threshold, iou, matches=result.matches)
        details |= {
            "confusion": confusion.counts,
            "confusion_rows": confusion.row_names,
            "confusion_columns": confusion.column_names,
            "confusion_protocol": confusion.protocol,
        }
    return Scores("AP", values, _protocol(result, limits[-1]), per_class, details)


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


def _first_from_half(thresholds: Sequence[float]) -> float:
    """The first threshold that is at least 0.5, or else the first."""
    return next((t for t in thresholds if t >= 0.5 - 1e-9), thresholds[0])


def _row_of_half(thresholds: Sequence[float]) -> int | None:
    return next((i for i, t in enumerate(thresholds) if abs(t - 0.5) < 1e-9), None)


def _protocol(result: AveragePrecision, limit: int) -> str:
    first, last = result.iou_thresholds[0], result.iou_thresholds[-1]
    ious = f"{first:.2f}" if first == last else f"{first:.2f}:{last:.2f}, {len(result.iou_thresholds)} thresholds"
    return (
        f"COCO boxes, AP at IoU {ious}, 101 recalls, at most {limit} detections of a category in a picture; "
        "crowds and difficult ignored"
    )


def _pool(curves: Sequence[PrecisionRecall]) -> PrecisionRecall:
    """One curve over all categories: one threshold for all of them."""
    scores, hits, alarms = [], [], []
    for curve in curves:
        scores.append(curve.thresholds)
        hits.append(np.diff(curve.hits, prepend=0))
        alarms.append(np.diff(curve.false_alarms, prepend=0))
    merged, inverse = np.unique(-np.concatenate(scores), return_inverse=True)
    all_hits = np.bincount(inverse, np.concatenate(hits), minlength=len(merged)).cumsum().astype(np.int64)
    all_alarms = np.bincount(inverse, np.concatenate(alarms), minlength=len(merged)).cumsum().astype(np.int64)
    return PrecisionRecall(-merged, all_hits, all_alarms, sum(curve.positives for curve in curves))


def coco_from_files(
    truth: str | Path,
    results: str | Path,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] = (1, 10, 100),
) -> Scores:
    """COCO's box numbers from an annotation file and a file of results, both JSON.

    Raises:
        DataError: a file is missing or broken, or results name pictures or categories that the annotations do not have.
    """
    table = read_table(Path(truth), Path(results))
    return coco_scores(average_precision(table, iou_thresholds, max_detections), table)
