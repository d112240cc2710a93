"""Which detection found which object: the part that COCO's numbers, VOC's and the error split have in common.

One category at a time, so that memory is bounded by the largest. How much a detection and a truth overlap comes from a
provider, a function of table and cells: `box_overlaps` here; masks and joints have their own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from bestiary.metrics.table import DetectionTable

FALSE_ALARM, HIT, IGNORED = 0, 1, 2
"""What became of a detection: it counts as wrong, as right, or not at all."""


@dataclass(frozen=True, eq=False)
class ClassCells:
    """One category's D detections (best score first) and G truths, grouped by picture into C cells.

    Attributes:
        label: the category.
        found_rows: row in the table of each detection, best score first; equal scores in the order they came.
        truth_rows: row in the table of each truth, in the order they came.
        ranks: place of each detection among those of its category in its picture, from 0.
        dets: numbers (places in `found_rows`) of the detections, grouped by cell, without those of too high a rank.
        gts: numbers (places in `truth_rows`) of the truths, grouped by cell.
        starts: where each cell starts in `dets`, in `gts` and in the flat list of all pairs, and where the last ends.
    """

    label: int
    found_rows: Int64[np.ndarray, " D"]
    truth_rows: Int64[np.ndarray, " G"]
    ranks: Int64[np.ndarray, " D"]
    dets: Int64[np.ndarray, " kept"]
    gts: Int64[np.ndarray, " G"]
    starts: Int64[np.ndarray, "3 bounds"]


Overlaps = Callable[[DetectionTable, ClassCells], np.ndarray]
"""Overlap 0..1 of every detection x truth pair, cell after cell, detections in the outer loop: float64."""


@dataclass(frozen=True, eq=False)
class Matches:
    """COCO's assignment of one category in A area ranges at T thresholds.

    Attributes:
        outcome: `FALSE_ALARM`, `HIT` or `IGNORED` for each detection, in score order.
        truths: place in `truth_rows` of the truth it was given, or -1.
        counted: how many truths are not ignored in each area range.
    """

    outcome: UInt8[np.ndarray, "A T D"]
    truths: Int32[np.ndarray, "A T D"]
    counted: Int64[np.ndarray, " A"]


def class_cells(table: DetectionTable, limit: int) -> Iterator[ClassCells]:
    """The cells of every category in turn; at most `limit` detections (the best) of a category in a picture."""
    from bestiary.metrics._kernels import detection

    best_first = np.argsort(-table.found_scores, kind="stable")
    count = len(table.categories)
    found, found_starts = detection.group(table.found_labels, best_first, count)
    truths, truth_starts = detection.group(table.truth_labels, np.arange(table.truth_labels.size), count)
    for label in range(count):
        found_rows = found[found_starts[label] : found_starts[label + 1]]
        truth_rows = truths[truth_starts[label] : truth_starts[label + 1]]
        dets, gts, starts, ranks = detection.form_cells(
            table.found_images[found_rows], table.truth_images[truth_rows], table.n_images, limit
        )
        yield ClassCells(label, found_rows, truth_rows, ranks, dets, gts, starts)


def box_overlaps(table: DetectionTable, cells: ClassCells, plus_one: bool = False) -> Float64[np.ndarray, " pairs"]:
    """IoU of boxes; the detection's share inside the truth where that is a crowd.

    Args:
        plus_one: sides are inclusive pixel numbers, one longer than the difference of their ends.
    """
    from bestiary.metrics._kernels import detection

    found, truths = table.found_boxes_xywh[cells.found_rows], table.truth_boxes_xywh[cells.truth_rows]
    crowd = table.truth_crowd[cells.truth_rows]
    return detection.box_overlaps(found, truths, crowd, cells.dets, cells.gts, cells.starts, 1.0 if plus_one else 0.0)


inclusive_box_overlaps = partial(box_overlaps, plus_one=True)
"""IoU of boxes whose ends are pixel numbers, both included."""


def outside(areas: Float64[np.ndarray, " N"], ranges: Float64[np.ndarray, "A 2"]) -> Bool[np.ndarray, "A N"]:
    """Which areas lie outside each range; both bounds are inside."""
    return (areas[None] < ranges[:, :1]) | (areas[None] > ranges[:, 1:])


def match_coco(
    table: DetectionTable,
    cells: ClassCells,
    overlaps: Float64[np.ndarray, " pairs"],
    thresholds: Float64[np.ndarray, " T"],
    area_ranges: Float64[np.ndarray, "A 2"],
) -> Matches:
    """Best score first, each detection takes the free truth of highest overlap that is at least the threshold.

    Truths to be ignored (crowds, difficult ones, those outside the area range) are taken only if no other is free,
    and then the detection does not count; crowds are never used up. Detections without truth outside the range do not
    count either.
    """
    from bestiary.metrics._kernels import detection

    ignored = outside(table.truth_areas[cells.truth_rows], area_ranges) | table.truth_ignored[cells.truth_rows]
    out = outside(table.found_areas[cells.found_rows], area_ranges)
    crowd = table.truth_crowd[cells.truth_rows]
    outcome, truths = detection.match_coco(
        overlaps, cells.dets, cells.gts, cells.starts, ignored, crowd, out, thresholds
    )
    return Matches(outcome, truths, (~ignored).sum(1))


def match_voc(
    table: DetectionTable, cells: ClassCells, overlaps: Float64[np.ndarray, " pairs"], threshold: float
) -> tuple[UInt8[np.ndarray, " D"], Int32[np.ndarray, " D"]]:
    """Best score first, each detection goes to its truth of highest overlap, taken or not, if that is above the
    threshold.

    Returns:
        What became of each detection, in score order, and the place in `truth_rows` of its truth, or -1.
    """
    from bestiary.metrics._kernels import detection

    ignored = table.truth_ignored[cells.truth_rows]
    return detection.match_voc(overlaps, cells.dets, cells.gts, cells.starts, ignored, threshold)


@dataclass(frozen=True, eq=False)
class RowMatches:
    """COCO's assignment at one threshold, all areas, for every row of a table.

    Attributes:
        outcome: `FALSE_ALARM`, `HIT` or `IGNORED`.
        truth_rows: row of the truth it was given, or -1.
    """

    outcome: UInt8[np.ndarray, " D"]
    truth_rows: Int64[np.ndarray, " D"]

    @classmethod
    def nothing(cls, table: DetectionTable) -> "RowMatches":
        """Every detection ignored: to be filled category by category."""
        count = table.found_scores.size
        return cls(np.full(count, IGNORED, np.uint8), np.full(count, -1, np.int64))

    def fill(self, cells: ClassCells, outcome: UInt8[np.ndarray, " D"], truths: Int32[np.ndarray, " D"]) -> None:
        """Enter one category's outcome and truths (places in `cells.truth_rows`, or -1), in place."""
        self.outcome[cells.found_rows] = outcome
        given = truths >= 0
        self.truth_rows[cells.found_rows[given]] = cells.truth_rows[truths[given]]


def match_rows(table: DetectionTable, iou_threshold: float = 0.5, limit: int = 100) -> RowMatches:
    """What became of every detection of a table: boxes, one threshold, at most `limit` of a category in a picture."""
    rows = RowMatches.nothing(table)
    everything = np.array([[0.0, np.inf]])
    for cells in class_cells(table, limit):
        matches = match_coco(table, cells, box_overlaps(table, cells), np.array([iou_threshold]), everything)
        rows.fill(cells, matches.outcome[0, 0], matches.truths[0, 0])
    return rows


def counted_by_image(table: DetectionTable) -> tuple[Int64[np.ndarray, " counted"], Int64[np.ndarray, " bounds"]]:
    """Rows of the truths that count, grouped by picture, and where each picture's start."""
    from bestiary.metrics._kernels import detection

    return detection.group(table.truth_images, np.flatnonzero(~table.truth_ignored), table.n_images)
