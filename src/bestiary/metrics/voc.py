"""Average precision as the PASCAL VOC development kit takes it (Everingham et al., IJCV 2010): 11 points for VOC2007,
all since 2010.

Unlike COCO's, each detection goes to the truth that it overlaps most, taken or not, and must overlap by *more* than
the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from bestiary.errors import UsageError
from bestiary.metrics.curves import PrecisionRecall, advice
from bestiary.metrics.matching import HIT, IGNORED, box_overlaps, class_cells, inclusive_box_overlaps, match_voc
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.table import DetectionRows, DetectionTable
from bestiary.predictions import Detections
from bestiary.records import Target

ELEVEN_RECALLS = np.arange(0.0, 1.1, 0.1)
"""As the kit's Python version writes them: the fourth is 0.30000000000000004, not 0.3, and a recall of exactly 0.3
misses it.
"""

NO_LIMIT = np.iinfo(np.int64).max


def eleven_point_ap(recall: Float64[np.ndarray, " D"], precision: Float64[np.ndarray, " D"]) -> float:
    """Mean over the recalls 0, .1 ... 1 of the highest precision at that recall or beyond, 0 where not reached."""
    best = [precision[recall >= wanted].max(initial=0.0) for wanted in ELEVEN_RECALLS]
    return float(sum(value / 11.0 for value in best))


def all_point_ap(recall: Float64[np.ndarray, " D"], precision: Float64[np.ndarray, " D"]) -> float:
    """Area under the precision made monotone from the right: the sum of its value times each step of recall."""
    steps = np.diff(recall, prepend=0.0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((steps * envelope).sum())


@dataclass(frozen=True, eq=False)
class VocCurve:
    """One category after every detection in score order.

    Attributes:
        recall, precision: after each detection; those of difficult objects change neither.
        curve: by score.
    """

    recall: Float64[np.ndarray, " D"]
    precision: Float64[np.ndarray, " D"]
    curve: PrecisionRecall


def voc_curves(table: DetectionTable, iou_threshold: float = 0.5, legacy_plus_one: bool = False) -> list[VocCurve]:
    """Recall and precision of every category; recall is NaN where a category has no truth that counts.

    Args:
        iou_threshold: a detection is right if it overlaps by more.
        legacy_plus_one: take box ends as pixel numbers, both included, as the kit does with the numbers in its files.
            Not for boxes in this library's convention, whose reader has already moved the ends apart: for them the
            plain overlap equals the kit's.
    """
    overlaps = inclusive_box_overlaps if legacy_plus_one else box_overlaps
    curves = []
    for cells in class_cells(table, NO_LIMIT):
        outcome, _ = match_voc(table, cells, overlaps(table, cells), iou_threshold)
        judged = outcome != IGNORED
        right = outcome[judged] == HIT
        hits = np.cumsum(right).astype(np.float64)
        truths = int((~table.truth_ignored[cells.truth_rows]).sum())
        recall = hits / truths if truths else np.full(len(hits), np.nan)
        precision = hits / np.arange(1, len(hits) + 1)
        scores = table.found_scores[cells.found_rows][judged]
        curves.append(VocCurve(recall, precision, PrecisionRecall.of(scores, right, truths)))
    return curves


class VocScores:
    """VOC's average precision, gathered picture by picture. Difficult objects (and crowds) neither count nor harm.

    Args:
        categories: K names.
        points: "11" as in VOC2007, or "all" as since VOC2010: which of the two is the headline `mAP` (both are given).
        iou_threshold: a detection is right if it overlaps by more.
        legacy_plus_one: see `voc_curves`.
    """

    def __init__(
        self,
        categories: Sequence[str],
        points: Literal["11", "all"] = "all",
        iou_threshold: float = 0.5,
        legacy_plus_one: bool = False,
    ) -> None:
        if not 0 <= iou_threshold < 1:
            raise UsageError(f"got {iou_threshold}, wanted 0 <= threshold < 1", where="iou_threshold")
        self.rows = DetectionRows(categories)
        self.points: Literal["11", "all"] = points
        self.iou_threshold, self.legacy_plus_one = iou_threshold, legacy_plus_one

    def update(self, predictions: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add pictures; `RecordError` where a target has no objects (an empty `Objects` is fine) or the lengths
        differ.
        """
        self.rows.update(predictions, targets)

    def merge(self, other: "VocScores") -> None:
        """Add another accumulator's pictures after this one's."""
        self.rows.merge(other.rows)

    def compute(self) -> Scores:
        """`mAP`, and both kinds by name; AP of every category; curves and thresholds."""
        table = self.rows.table()
        return voc_scores(table, self.points, self.iou_threshold, self.legacy_plus_one)


def voc_scores(
    table: DetectionTable,
    points: Literal["11", "all"] = "all",
    iou_threshold: float = 0.5,
    legacy_plus_one: bool = False,
) -> Scores:
    """The numbers of a table; arguments as in `VocScores`."""
    per_class, curves, thresholds = {}, {}, {}
    for category, count, found in zip(
        table.categories, table.truth_counts.tolist(), voc_curves(table, iou_threshold, legacy_plus_one), strict=True
    ):
        eleven = eleven_point_ap(found.recall, found.precision) if count else math.nan
        every = all_point_ap(found.recall, found.precision) if count else math.nan
        per_class[category] = {"AP": eleven if points == "11" else every, "AP_11_point": eleven, "AP_all_points": every}
        per_class[category]["count"] = float(count)
        thresholds[category] = advice(found.curve)
        if count:
            kept = np.unique(np.linspace(0, len(found.recall) - 1, 101).astype(int)) if len(found.recall) else []
            curves[category] = {"recall": found.recall[kept], "precision": found.precision[kept]}
    values = {
        "mAP": mean_of_measured({name: numbers["AP"] for name, numbers in per_class.items()}),
        "mAP_11_point": mean_of_measured({name: numbers["AP_11_point"] for name, numbers in per_class.items()}),
        "mAP_all_points": mean_of_measured({name: numbers["AP_all_points"] for name, numbers in per_class.items()}),
    }
    kind = "VOC2007, 11-point" if points == "11" else "VOC2010 and later, all points"
    sides = "; boxes of inclusive pixel numbers" if legacy_plus_one else ""
    protocol = f"{kind}; IoU > {iou_threshold:g}; difficult neither count nor harm; every detection{sides}"
    details = {
        "task": "detection",
        "pictures": table.n_images,
        "curves": curves,
        "thresholds": {"per_class": thresholds},
    }
    return Scores("mAP", values, protocol, per_class, details)
