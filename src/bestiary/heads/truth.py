"""What a box detector learns from one picture, and how boxes are matched with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.assign.matcher import IGNORE, NEGATIVE, Assignment, ThresholdMatcher
from bestiary.errors import RecordError
from bestiary.geometry.boxes import box_area, pairwise_intersection
from bestiary.records import Objects, Record, Target

CROWD_SHARE = 0.5
"""A box that has more than this share of its area on one crowd, and matches no object, is ignored."""


@dataclass(frozen=True, eq=False)
class Truth(Record):
    """The objects of one picture that can be learned, and the crowds apart from them.

    Attributes:
        boxes_xyxy: objects with two positive sides.
        labels: their categories.
        crowds_xyxy: boxes around groups: neither objects nor background.
    """

    boxes_xyxy: Float32[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    crowds_xyxy: Float32[Tensor, "M 4"]

    @classmethod
    def of(cls, objects: Objects) -> "Truth":
        """Split the crowds off. Objects without area, such as a crop leaves at its border, are left out."""
        boxes = objects.boxes_xyxy
        crowd = torch.zeros(len(boxes), dtype=torch.bool) if objects.crowd is None else objects.crowd
        solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
        single = solid & ~crowd.to(boxes.device)
        return cls(boxes[single], objects.labels[single], boxes[solid & ~single])


def truths_of(targets: Sequence[Target], batch: int, num_categories: int) -> list[Truth]:
    """The truth of each of `batch` pictures.

    Raises:
        RecordError: there are not `batch` targets, one has no objects (None; an empty `Objects` is a picture without
            any), or a label is outside 0 .. num_categories - 1.
    """
    if len(targets) != batch:
        raise RecordError(f"got {len(targets)}, wanted one a picture, {batch}", where="targets")
    truths = []
    for i, target in enumerate(targets):
        if target.objects is None:
            mend = "A picture that holds no object has Objects.empty(); None says that nobody looked."
            raise RecordError("got None, wanted Objects", where=f"targets[{i}].objects", mend=mend)
        labels = target.objects.labels
        bad = (labels < 0) | (labels >= num_categories)
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            mend = "The model's categories must be those of the data."
            where = f"targets[{i}].objects.labels[{row}]"
            raise RecordError(f"got {int(labels[row])}, wanted 0 to {num_categories - 1}", where=where, mend=mend)
        truths.append(Truth.of(target.objects))
    return truths


def assign(boxes_xyxy: Float32[Tensor, "A 4"], truth: Truth, matcher: ThresholdMatcher) -> Assignment:
    """Match anchors or regions with the objects; negatives that lie mostly on a crowd are ignored instead.

    Memory is bounded however many objects there are: no matrix of all overlaps is held.
    """
    assignment = matcher.match_boxes(truth.boxes_xyxy, boxes_xyxy)
    if not len(truth.crowds_xyxy):
        return assignment
    limit = CROWD_SHARE * box_area(boxes_xyxy)
    crowded = torch.zeros_like(limit, dtype=torch.bool)
    for crowd in truth.crowds_xyxy:
        crowded |= pairwise_intersection(crowd[None], boxes_xyxy)[0] > limit
    kind = assignment.kind.masked_fill(crowded & (assignment.kind == NEGATIVE), IGNORE)
    return replace(assignment, kind=kind)
