"""A detector at work: precision and recall at a score, a recall or a precision; of one category or of all."""

from dataclasses import dataclass

import numpy as np

from bestiary.errors import UsageError
from bestiary.metrics.curves import OperatingPoint, PrecisionRecall
from bestiary.metrics.matching import EVERYTHING, HIT, IGNORED, match_rows, outside
from bestiary.metrics.table import DetectionTable


@dataclass(frozen=True, eq=False)
class DetectionCurves:
    """Precision and recall by score, at one overlap.

    Attributes:
        categories: K names.
        per_class: each category's curve.
        pooled: all categories with one threshold.
        protocol: how detections were judged.
    """

    categories: tuple[str, ...]
    per_class: tuple[PrecisionRecall, ...]
    pooled: PrecisionRecall
    protocol: str

    def of(self, category: str | None = None) -> PrecisionRecall:
        """A category's curve, or that of all together; `UsageError` for a name that is none of them."""
        if category is None:
            return self.pooled
        if category not in self.categories:
            raise UsageError(f"got {category!r}, wanted one of {list(self.categories)}", where="category")
        return self.per_class[self.categories.index(category)]

    def at_score(self, score: float, category: str | None = None) -> OperatingPoint:
        """What happens when everything that scores at least `score` is kept."""
        return self.of(category).at(score)

    def at_recall(self, recall: float, category: str | None = None) -> OperatingPoint | None:
        """The highest threshold whose recall is at least `recall`; None where it is not reached."""
        return self.of(category).for_recall(recall)

    def at_precision(self, precision: float, category: str | None = None) -> OperatingPoint | None:
        """The lowest threshold whose precision is at least `precision`; None where it is not reached."""
        return self.of(category).for_precision(precision)


def detection_curves(
    table: DetectionTable,
    iou_threshold: int | float = 0.5,
    max_detections: int = 100,
    area: tuple[int | float, int | float] = EVERYTHING,
) -> DetectionCurves:
    """Judge every detection at one overlap, as COCO does, and count by score.

    Args:
        iou_threshold: a detection is right if its overlap is at least this.
        max_detections: the best of a category in a picture.
        area: smallest and largest area, both inside; others do not count.
    """
    matches = match_rows(table, iou_threshold, max_detections, area)
    counts = ~table.truth_ignored & ~outside(table.truth_areas, np.array([area], np.float64))[0]
    positives = np.bincount(table.truth_labels[counts], minlength=len(table.categories))
    judged = np.flatnonzero(matches.outcome != IGNORED)
    curves = []
    for label in range(len(table.categories)):
        rows = judged[table.found_labels[judged] == label]
        curves.append(PrecisionRecall.of(table.found_scores[rows], matches.outcome[rows] == HIT, int(positives[label])))
    sized = "" if area == EVERYTHING else f", areas {area[0]:g} to {area[1]:g}"
    measure = "OKS" if table.kind == "keypoints" else "IoU"
    protocol = (
        f"{table.kind}, {measure} >= {iou_threshold:g}, at most {max_detections} of a category in a picture{sized}"
    )
    return DetectionCurves(table.categories, tuple(curves), PrecisionRecall.pooled(curves), protocol)
