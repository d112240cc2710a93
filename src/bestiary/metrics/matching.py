"""Which detection found which object: the part that COCO's numbers, VOC's and the error split have in common.

One category at a time (a few at once, in threads), so that memory is bounded by the largest. How much a detection and
a truth overlap comes from a provider, a function of table and cells: `overlaps_of` picks that of the table's kind.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from bestiary.metrics.table import DetectionTable, JointPairs, MaskPairs
from bestiary.ops._kernels.threads import in_threads
from bestiary.records import require

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


class ClassGroups:
    """A table's rows by category; cells are formed for one category at a time.

    Args:
        table: whose.
        limit: most detections (the best) of a category in a picture.
    """

    def __init__(self, table: DetectionTable, limit: int) -> None:
        from bestiary.metrics._kernels import detection

        self.table, self.limit, count = table, limit, len(table.categories)
        numbers = np.arange(max(table.found_labels.size, table.truth_labels.size))
        self._found, self._found_starts = detection.group(table.found_labels, numbers[: table.found_labels.size], count)
        self._truths, self._truth_starts = detection.group(
            table.truth_labels, numbers[: table.truth_labels.size], count
        )

    def cells(self, label: int) -> ClassCells:
        """One category's."""
        found = self._found[self._found_starts[label] : self._found_starts[label + 1]]
        truths = self._truths[self._truth_starts[label] : self._truth_starts[label + 1]]
        return _form(self.table, label, found, truths, self.limit)

    def in_threads(self, work: Callable[[ClassCells], None]) -> None:
        """Call `work` for every category's cells, a few at once; it must write to its category's places only."""

        def several(first: int, last: int) -> None:
            for label in range(first, last):
                work(self.cells(label))

        in_threads(several, len(self.table.categories), torch.get_num_threads())


def class_cells(table: DetectionTable, limit: int) -> Iterator[ClassCells]:
    """The cells of every category in turn; at most `limit` detections (the best) of a category in a picture."""
    groups = ClassGroups(table, limit)
    return (groups.cells(label) for label in range(len(table.categories)))


def picture_cells(table: DetectionTable, found_rows: Int64[np.ndarray, " D"]) -> ClassCells:
    """Cells of pictures, categories mixed: the given detections, best score first, with all truths that count."""
    truths = np.flatnonzero(~table.truth_ignored)
    return _form(table, -1, found_rows, truths, np.iinfo(np.int64).max)


def _form(
    table: DetectionTable, label: int, found: Int64[np.ndarray, " D"], truths: Int64[np.ndarray, " G"], limit: int
) -> ClassCells:
    from bestiary.metrics._kernels import detection

    found = found[np.argsort(-table.found_scores[found], kind="stable")]
    dets, gts, starts, ranks = detection.form_cells(
        table.found_images[found], table.truth_images[truths], table.n_images, limit
    )
    return ClassCells(label, found, truths, ranks, dets, gts, starts)


def box_overlaps(table: DetectionTable, cells: ClassCells, plus_one: bool = False) -> Float64[np.ndarray, " pairs"]:
    """IoU of boxes; the detection's share inside the truth where that is a crowd.

    Args:
        plus_one: sides are inclusive pixel numbers, one longer than the difference of their ends.
    """
    from bestiary.metrics._kernels import detection

    found, truths = table.found_boxes_xywh[cells.found_rows], table.truth_boxes_xywh[cells.truth_rows]
    crowd = table.truth_crowd[cells.truth_rows]
    return detection.box_overlaps(found, truths, crowd, cells.dets, cells.gts, cells.starts, 1.0 if plus_one else 0.0)


def mask_overlaps(table: DetectionTable, cells: ClassCells) -> Float64[np.ndarray, " pairs"]:
    """IoU of masks; the detection's share inside the truth where that is a crowd."""
    from bestiary.metrics._kernels import masks

    require(table.masks is not None, "mask_overlaps", f"a table of {table.kind}", "one of masks")
    pairs = cast(MaskPairs, table.masks)
    dets, gts = cells.found_rows[cells.dets], cells.truth_rows[cells.gts]
    return masks.mask_overlaps(pairs.found.arrays(), pairs.truths.arrays(), table.truth_crowd, dets, gts, cells.starts)


def keypoint_overlaps(table: DetectionTable, cells: ClassCells) -> Float64[np.ndarray, " pairs"]:
    """Object keypoint similarity: the mean over a truth's annotated joints of exp(-d^2 / (2 area (2 sigma)^2)).

    Of a truth without any, all of the detection's joints count, and d is their distance to the box three times as wide
    and high about its centre.
    """
    from bestiary.metrics._kernels import joints

    require(table.joints is not None, "keypoint_overlaps", f"a table of {table.kind}", "one of keypoints")
    pairs = cast(JointPairs, table.joints)
    dets, gts = cells.found_rows[cells.dets], cells.truth_rows[cells.gts]
    spreads = (2 * pairs.sigmas) ** 2
    return joints.keypoint_overlaps(
        pairs.found, pairs.truths, table.truth_boxes_xywh, table.truth_areas, spreads, dets, gts, cells.starts
    )


def overlaps_of(table: DetectionTable) -> Overlaps:
    """The provider of the table's kind."""
    return {"boxes": box_overlaps, "masks": mask_overlaps, "keypoints": keypoint_overlaps}[table.kind]


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
    if table.found_forgiven is not None:
        out |= table.found_forgiven[cells.found_rows]
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


EVERYTHING = (0.0, math.inf)
"""The area range of all."""


def match_rows(
    table: DetectionTable,
    iou_threshold: int | float = 0.5,
    limit: int = 100,
    area: tuple[int | float, int | float] = EVERYTHING,
) -> RowMatches:
    """What became of every detection of a table at one threshold, with at most `limit` of a category in a picture.

    Args:
        area: truths outside, and unmatched detections outside, do not count.
    """
    rows, overlaps = RowMatches.nothing(table), overlaps_of(table)
    thresholds, ranges = np.array([iou_threshold], np.float64), np.array([area], np.float64)

    def work(cells: ClassCells) -> None:
        matches = match_coco(table, cells, overlaps(table, cells), thresholds, ranges)
        rows.fill(cells, matches.outcome[0, 0], matches.truths[0, 0])

    ClassGroups(table, limit).in_threads(work)
    return rows


def pair_free(
    table: DetectionTable, found_rows: Int64[np.ndarray, " D"], taken: Bool[np.ndarray, " G"], threshold: float
) -> tuple[Int64[np.ndarray, " D"], Int64[np.ndarray, " D"]]:
    """Detections, best score first, each take the free truth of any category that they overlap most, from `threshold`
    on; `taken` is marked.

    Returns:
        The detections' rows in that order, and the row of each one's truth, or -1.
    """
    from bestiary.metrics._kernels import mistakes

    cells = picture_cells(table, found_rows)
    overlaps = overlaps_of(table)(table, cells)
    return cells.found_rows, mistakes.pair_free(
        overlaps, cells.dets, cells.gts, cells.starts, cells.truth_rows, taken, threshold
    )
