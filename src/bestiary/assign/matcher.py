"""Which object each anchor answers for (Ren et al., NIPS 2015, section 3.1.2; torchvision's rules)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor

from bestiary.geometry.boxes import pairwise_iou
from bestiary.records import Rows, require, row_field

IGNORE, NEGATIVE, POSITIVE = -1, 0, 1
"""Kinds of an anchor: not learned from, background, answers for its object."""


@dataclass(frozen=True, eq=False)
class Assignment(Rows):
    """What each of A anchors (or regions) is to learn.

    Attributes:
        object: index of the object it overlaps most, the lowest on a tie; 0 where there is no object at all. Meant for
            the positives, valid for all if there is an object.
        kind: IGNORE, NEGATIVE or POSITIVE.
    """

    object: Int64[Tensor, " A"] = row_field()
    kind: Int8[Tensor, " A"] = row_field()

    def __post_init__(self) -> None:
        self.require_rows()

    @property
    def positive(self) -> Bool[Tensor, " A"]:
        """Mask of the positives."""
        return self.kind == POSITIVE

    @property
    def negative(self) -> Bool[Tensor, " A"]:
        """Mask of the negatives."""
        return self.kind == NEGATIVE


@dataclass(frozen=True)
class ThresholdMatcher:
    """Anchors by their best overlap: at least `positive`, below `negative`, or ignored between the two.

    With `keep_best_for_each_object`, every anchor that ties some object's best overlap is positive too, for the object
    that *it* overlaps most, which may be another one. An object that no anchor touches makes none positive (the first
    public implementations made all anchors of overlap zero positive then).

    Attributes:
        positive: least quality of a positive.
        negative: quality below which an anchor is negative; at most `positive`.
        keep_best_for_each_object: the rule above.
    """

    positive: int | float
    negative: int | float
    keep_best_for_each_object: bool = False

    def __post_init__(self) -> None:
        fits = self.negative <= self.positive
        require(fits, "ThresholdMatcher", f"negative {self.negative}, positive {self.positive}", "negative <= positive")

    def match(self, quality: Float[Tensor, "N A"]) -> Assignment:
        """Assign from a matrix of qualities (IoU) of N objects and A anchors; NaN counts as zero."""
        if not quality.shape[0]:
            return self._no_object(quality.shape[1], quality.device)
        if not quality.shape[1]:
            return self._no_object(0, quality.device)
        quality = torch.nan_to_num(quality, nan=0.0)
        best, winners = _first_max(quality)
        ties = None
        if self.keep_best_for_each_object:
            highest = quality.amax(dim=1, keepdim=True)
            ties = ((quality == highest) & (highest > 0)).any(dim=0)
        return self._kinds(best, winners, ties)

    def match_boxes(
        self, objects_xyxy: Float[Tensor, "N 4"], anchors_xyxy: Float[Tensor, "A 4"], budget: int = 1 << 26
    ) -> Assignment:
        """`match(IoU of objects and anchors)`, without holding the matrix.

        On the CPU a kernel passes over the anchors in torch's number of threads; elsewhere they come in chunks.

        Args:
            objects_xyxy: pixels.
            anchors_xyxy: pixels.
            budget: bytes of overlaps held at once where the kernel cannot run.
        """
        if not len(objects_xyxy) or not len(anchors_xyxy):
            return self._no_object(len(anchors_xyxy), anchors_xyxy.device)
        plain = {objects_xyxy.dtype, anchors_xyxy.dtype} == {torch.float32}
        if plain and anchors_xyxy.device.type == "cpu" and not torch.compiler.is_compiling():
            return self._kinds(*_match_by_kernel(objects_xyxy, anchors_xyxy, self.keep_best_for_each_object))
        return self._kinds(*_match_in_chunks(objects_xyxy, anchors_xyxy, self.keep_best_for_each_object, budget))

    def _no_object(self, anchors: int, device: torch.device) -> Assignment:
        kind = torch.full((anchors,), NEGATIVE, dtype=torch.int8, device=device)
        return Assignment(torch.zeros(anchors, dtype=torch.int64, device=device), kind)

    def _kinds(
        self, best: Float[Tensor, " A"], winners: Int64[Tensor, " A"], ties: Bool[Tensor, " A"] | None
    ) -> Assignment:
        kind = torch.full_like(winners, IGNORE, dtype=torch.int8)
        kind[best < self.negative] = NEGATIVE
        kind[best >= self.positive] = POSITIVE
        if ties is not None:
            kind[ties] = POSITIVE
        return Assignment(winners, kind)


def _first_max(quality: Float[Tensor, "N A"]) -> tuple[Float[Tensor, " A"], Int64[Tensor, " A"]]:
    """Maximum of each column and the first row that has it: torch promises no order among equals on every device."""
    best = quality.amax(dim=0)
    rows = torch.arange(len(quality), device=quality.device)[:, None].expand_as(quality)
    winners = torch.where(quality == best, rows, len(quality)).amin(dim=0)
    return best, winners


def _match_by_kernel(
    objects: Float[Tensor, "N 4"], anchors: Float[Tensor, "A 4"], keep_best: bool
) -> tuple[Float[Tensor, " A"], Int64[Tensor, " A"], Bool[Tensor, " A"] | None]:
    import numpy as np

    from bestiary.ops._kernels.matching import best_matches, mark_best
    from bestiary.ops._kernels.threads import in_threads

    rows, columns = objects.detach().contiguous().numpy(), anchors.detach().t().contiguous().numpy()
    best = torch.empty(len(anchors))
    winners = torch.empty(len(anchors), dtype=torch.int32)
    best_array, winner_array = best.numpy(), winners.numpy()
    threads, grain = torch.get_num_threads(), 16384
    partial: list[np.ndarray] = []

    def search(start: int, stop: int) -> None:
        # Each range has its own maxima, joined below: the maximum does not depend on the ranges.
        highest = np.zeros(len(rows), np.float32)
        best_matches(rows, columns, start, stop, best_array, winner_array, highest)
        partial.append(highest)

    in_threads(search, len(anchors), threads, grain)
    if not keep_best:
        return best, winners.long(), None
    highest = np.max(partial, axis=0)
    ties = torch.zeros(len(anchors), dtype=torch.uint8)
    marks = ties.numpy()
    in_threads(lambda a, b: mark_best(rows, columns, a, b, highest, marks), len(anchors), threads, grain)
    return best, winners.long(), ties.bool()


def _match_in_chunks(
    objects: Float[Tensor, "N 4"], anchors: Float[Tensor, "A 4"], keep_best: bool, budget: int
) -> tuple[Float[Tensor, " A"], Int64[Tensor, " A"], Bool[Tensor, " A"] | None]:
    step = max(1, budget // (len(objects) * anchors.element_size()))
    chunks = anchors.split(step)
    found = [_first_max(pairwise_iou(objects, chunk).nan_to_num(nan=0.0)) for chunk in chunks]
    best, winners = torch.cat([b for b, _ in found]), torch.cat([w for _, w in found])
    if not keep_best:
        return best, winners, None
    highest = torch.stack([pairwise_iou(objects, chunk).nan_to_num(nan=0.0).amax(dim=1) for chunk in chunks]).amax(
        dim=0
    )
    ties = [
        ((pairwise_iou(objects, chunk) == highest[:, None]) & (highest > 0)[:, None]).any(dim=0) for chunk in chunks
    ]
    return best, winners, torch.cat(ties)
