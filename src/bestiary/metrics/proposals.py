"""How many objects are among the first so many boxes that a method proposes, whatever their category.

ProposalScores                accumulator: boxes and targets in, recall by number and overlap out
find_ranks                    the pure function: which of one picture's boxes finds each object

Boxes and objects are matched as COCO matches detections when categories do not count (Lin et al., ECCV 2014;
pycocotools with useCats = 0): best box first, each takes the free object that it overlaps most. Whether an object is
found by the first N boxes then depends on the rank of the box that takes it alone, so that one match gives recall at
every N. Average recall, AR, is the mean over the overlaps .50, .55 ... .95 (Hosang et al., PAMI 2016; COCO).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.metrics.averages import require_same_rules
from bestiary.metrics.coco import AREA_RANGES, IOU_THRESHOLDS
from bestiary.metrics.matching import box_overlaps, class_cells, match_coco
from bestiary.metrics.scores import Scores
from bestiary.metrics.table import DetectionRows
from bestiary.predictions import Detections
from bestiary.records import Target, require_boxes

NEVER = np.iinfo(np.int64).max
"""Rank of an object that no box finds."""

CHUNK = 1000
"""Boxes whose overlaps with all objects of a picture are held at once."""


@dataclass(frozen=True, eq=False)
class FoundRanks:
    """The G objects of one picture in A area ranges at T overlaps.

    Attributes:
        ranks: number of the box that finds each, from 0; `NEVER` if none does.
        counts: whether it counts in the range: not a crowd, not difficult, of that size.
        best_overlaps: largest IoU with any of the first boxes, for each of the numbers of boxes asked for.
    """

    ranks: Int64[np.ndarray, "A T G"]
    counts: Bool[np.ndarray, "A G"]
    best_overlaps: Float64[np.ndarray, "C G"]


def find_ranks(
    boxes_xyxy: Float[Tensor, "N 4"],
    target: Target,
    numbers: Sequence[int],
    iou_thresholds: Sequence[float],
    area_ranges: Float64[np.ndarray, "A 2"],
) -> FoundRanks:
    """Which of the boxes, best first, finds each object.

    Args:
        numbers: ascending; boxes after the last do not count.
        iou_thresholds: an object is found by an overlap of at least this.
        area_ranges: square pixels, both bounds inside.

    Raises:
        RecordError: the target was not annotated with objects (an empty `Objects` is fine), or boxes are not `[N, 4]`.
    """
    require_boxes("proposals", boxes_xyxy.detach().cpu().float())
    if target.objects is None:
        raise RecordError("got a target without objects, wanted annotated boxes", where="Target.objects")
    boxes = boxes_xyxy.detach().cpu().float()[: numbers[-1]]
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    falling = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    objects = replace(target.objects, labels=torch.zeros_like(target.objects.labels))
    rows = DetectionRows(("object",))
    rows.update([Detections(boxes, labels, falling)], [replace(target, objects=objects)])
    table = rows.table()
    cells = next(class_cells(table, len(boxes) + 1))
    thresholds = np.asarray(iou_thresholds, np.float64)
    matches = match_coco(table, cells, box_overlaps(table, cells), thresholds, area_ranges)
    ranks = np.full((*matches.truths.shape[:2], len(objects)), NEVER, np.int64)
    a, t, d = np.nonzero(matches.truths >= 0)
    # Only one box takes an object that counts; of those that share a crowd, which does not count, any may be entered.
    ranks[a, t, cells.truth_rows[matches.truths[a, t, d]]] = cells.found_rows[d]
    areas = table.truth_areas
    inside = (areas >= area_ranges[:, :1]) & (areas <= area_ranges[:, 1:])
    return FoundRanks(ranks, inside & ~table.truth_ignored, _best_overlaps(boxes, objects.boxes_xyxy, numbers))


def _best_overlaps(
    boxes_xyxy: Float[Tensor, "N 4"], truth_xyxy: Float[Tensor, "G 4"], numbers: Sequence[int]
) -> Float64[np.ndarray, "C G"]:
    best = torch.zeros(len(numbers), len(truth_xyxy), dtype=torch.float64)
    reached, start = torch.zeros(len(truth_xyxy), dtype=torch.float64), 0
    for row, number in enumerate(numbers):
        while start < min(number, len(boxes_xyxy)):
            stop = min(start + CHUNK, number, len(boxes_xyxy))
            overlaps = pairwise_iou(boxes_xyxy[start:stop], truth_xyxy.cpu()).double()
            reached, start = torch.maximum(reached, overlaps.amax(0)), stop
        best[row] = reached
    return best.numpy()


class ProposalScores:
    """Recall of proposed boxes, gathered picture by picture; what is kept is a few numbers an object.

    Crowds and difficult objects need not be found, and harm nothing.

    Args:
        numbers: of boxes, ascending.
        iou_thresholds: overlaps at which recall is told apart, ascending; AR is always over .50 to .95.

    Raises:
        UsageError: a list is empty, not ascending, or out of range.
    """

    def __init__(
        self, numbers: Sequence[int] = (10, 100, 1000), iou_thresholds: Sequence[int | float] = (0.5, 0.7)
    ) -> None:
        self.numbers, self.told = tuple(int(n) for n in numbers), tuple(_as_cocos(t) for t in iou_thresholds)
        for where, values, low, high in (("numbers", self.numbers, 1, np.inf), ("iou_thresholds", self.told, 0, 1)):
            if not values or sorted(set(values)) != list(values) or values[0] < low or values[-1] > high:
                raise UsageError(f"got {list(values)}, wanted ascending numbers from {low} to {high:g}", where=where)
        self.iou_thresholds = tuple(sorted({*IOU_THRESHOLDS, *self.told}))
        self.pictures: list[FoundRanks] = []
        self.boxes_seen: list[int] = []

    def update(self, boxes_xyxy: Sequence[Float[Tensor, "_n 4"]], targets: Sequence[Target]) -> None:
        """Add pictures: the boxes proposed for each, best first, and its truth.

        Raises:
            RecordError: the lengths differ, or as `find_ranks`.
        """
        if len(boxes_xyxy) != len(targets):
            raise RecordError(f"got {len(boxes_xyxy)} pictures of boxes, wanted one a target, {len(targets)}")
        ranges = np.array(list(AREA_RANGES.values()), np.float64)
        for boxes, target in zip(boxes_xyxy, targets, strict=True):
            self.pictures.append(find_ranks(boxes, target, self.numbers, self.iou_thresholds, ranges))
            self.boxes_seen.append(len(boxes))

    def merge(self, other: "ProposalScores") -> None:
        """Add another accumulator's pictures after this one's; `UsageError` where it was taken by other rules."""
        require_same_rules(self, other, ("numbers", "told"))
        self.pictures += other.pictures
        self.boxes_seen += other.boxes_seen

    def recall(self, number: int, iou: int | float, area: str = "all") -> float:
        """Share of the objects found by the first `number` boxes of each picture; NaN without any object.

        Raises:
            UsageError: more boxes than were looked at, an overlap that was not, or an unknown area range.
        """
        if not 1 <= number <= self.numbers[-1]:
            raise UsageError(f"got {number}, wanted 1 to {self.numbers[-1]}", where="number")
        if _as_cocos(iou) not in self.iou_thresholds or area not in AREA_RANGES:
            wanted = f"{', '.join(f'{t:g}' for t in self.iou_thresholds)} and {', '.join(AREA_RANGES)}"
            raise UsageError(f"got {iou:g} and {area}, wanted one of {wanted}", where="iou and area")
        return float(self._shares(np.array([number]), area)[self.iou_thresholds.index(_as_cocos(iou)), 0])

    def average_recall(self, number: int, area: str = "all") -> float:
        """AR: recall by the first `number` boxes, mean over the overlaps .50 to .95; NaN without any object."""
        return float(np.mean([self.recall(number, iou, area) for iou in IOU_THRESHOLDS]))

    def average_best_overlap(self, number: int) -> float:
        """ABO: mean over the objects of the largest IoU with any of the first boxes (one may serve several objects);
        `number` is one of `numbers`. Uijlings et al., IJCV 2013.
        """
        if number not in self.numbers:
            raise UsageError(f"got {number}, wanted one of {list(self.numbers)}", where="number")
        row = self.numbers.index(number)
        best = [picture.best_overlaps[row][picture.counts[0]] for picture in self.pictures]
        found = np.concatenate(best) if best else np.zeros(0)
        return float(found.mean()) if found.size else float("nan")

    def _shares(self, numbers: Int64[np.ndarray, " C"], area: str = "all") -> Float64[np.ndarray, "T C"]:
        """Recall at every overlap, by each number of boxes."""
        row = list(AREA_RANGES).index(area)
        kept = [picture.ranks[row][:, picture.counts[row]] for picture in self.pictures]
        ranks = np.concatenate(kept, 1) if kept else np.zeros((len(self.iou_thresholds), 0), np.int64)
        if not ranks.shape[1]:
            return np.full((len(ranks), len(numbers)), np.nan)
        return np.stack([np.searchsorted(np.sort(line), numbers, side="left") for line in ranks]) / ranks.shape[1]

    def compute(self) -> Scores:
        """AR and recall at every number, AR by size at the largest, ABO, and the curves over the number."""
        last = self.numbers[-1]
        values = {f"AR{n}": self.average_recall(n) for n in self.numbers}
        values |= {f"recall{n}@{iou:g}": self.recall(n, iou) for n in self.numbers for iou in self.told}
        values |= {f"AR{last}_{area}": self.average_recall(last, area) for area in AREA_RANGES if area != "all"}
        values |= {f"ABO{n}": self.average_best_overlap(n) for n in self.numbers}
        values["boxes"] = float(np.mean(self.boxes_seen)) if self.boxes_seen else float("nan")
        numbers = np.unique(np.rint(np.geomspace(1, last, min(last, 100))).astype(np.int64))
        shares = self._shares(numbers)
        by_iou = dict(zip(self.iou_thresholds, shares, strict=True))
        curves = {f"recall@{iou:g}": by_iou[iou] for iou in self.told}
        curves["AR"] = np.mean([by_iou[iou] for iou in IOU_THRESHOLDS], axis=0)
        details = {
            "task": "proposals",
            "pictures": len(self.pictures),
            "objects": int(sum(picture.counts[0].sum() for picture in self.pictures)),
            "numbers": numbers,
            "recall_curves": curves,
        }
        best = ", ".join(str(n) for n in self.numbers)
        protocol = f"the best {best} boxes of a picture, whatever the category; AR: IoU .50 to .95"
        return Scores(f"AR{last}", values, protocol, details=details)


def _as_cocos(iou: int | float) -> float:
    """The overlap, or COCO's where only the last bits differ: 0.7 is not quite the fifth of ten even steps."""
    return next((t for t in IOU_THRESHOLDS if abs(t - iou) < 1e-9), float(iou))
