"""What is taken for what: the confusion matrix of a detector, with a row for nothing there and a column for not
found.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from bestiary.metrics.matching import FALSE_ALARM, HIT, RowMatches, match_rows, pair_free
from bestiary.metrics.table import DetectionTable

BACKGROUND = "(nothing there)"
MISSED = "(missed)"


@dataclass(frozen=True, eq=False)
class DetectionConfusion:
    """Truths in rows, predictions in columns.

    Attributes:
        counts: the last row is for detections where nothing was, the last column for truths not found; their corner
            is 0.
        categories: names of the first K rows and columns.
        threshold: lowest score kept.
        protocol: how pairs were formed.
    """

    counts: Int64[np.ndarray, "rows columns"]
    categories: tuple[str, ...]
    threshold: float
    protocol: str

    @property
    def row_names(self) -> tuple[str, ...]:
        """The truths' names."""
        return (*self.categories, BACKGROUND)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The predictions' names."""
        return (*self.categories, MISSED)


def detection_confusion(
    table: DetectionTable,
    threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    matches: RowMatches | None = None,
) -> DetectionConfusion:
    """Pair detections that score at least `threshold` with truths, first within each category as COCO does, so that
    the diagonal is its number of hits, then what is left, best score first, with any free truth that it overlaps
    most. Crowds and difficult objects, and detections on them, are left out.

    Args:
        threshold: lowest score kept.
        iou_threshold: a pair overlaps at least this much.
        max_detections: the best of a category in a picture.
        matches: the pairs within categories at `iou_threshold`, where they are known already.
    """
    matches = matches or match_rows(table, iou_threshold, max_detections)
    count = len(table.categories)
    counts = np.zeros((count + 1, count + 1), np.int64)
    kept = table.found_scores >= threshold
    hits = kept & (matches.outcome == HIT)
    np.add.at(counts, (table.found_labels[hits], table.found_labels[hits]), 1)
    # Scores fall along the matching, so that leaving out low ones changes nothing for those above.
    taken = table.truth_ignored.copy()
    taken[matches.truth_rows[hits]] = True
    rest, paired = pair_free(table, np.flatnonzero(kept & (matches.outcome == FALSE_ALARM)), taken, iou_threshold)
    truths = (
        np.where(paired >= 0, table.truth_labels[paired], count)
        if table.truth_labels.size
        else np.full(len(rest), count)
    )
    np.add.at(counts, (truths, table.found_labels[rest]), 1)
    counts[:count, count] += np.bincount(table.truth_labels[~taken], minlength=count)
    protocol = (
        f"score >= {threshold:.3g}, IoU >= {iou_threshold:g}; each category first within itself, then what is left"
    )
    return DetectionConfusion(counts, table.categories, threshold, protocol)
