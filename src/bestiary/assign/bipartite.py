"""Every object its own best box, whatever the overlap (Liu et al., SSD, ECCV 2016, section 2.2; MultiBox's rule)."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.assign.matcher import POSITIVE, Assignment
from bestiary.geometry.boxes import pairwise_iou


def give_each_its_best(
    assignment: Assignment, objects_xyxy: Float[Tensor, "N 4"], boxes_xyxy: Float[Tensor, "A 4"]
) -> Assignment:
    """The assignment in which each object has also one box of its own, as long as a box overlaps it at all.

    Greedily, as the authors' code: the pair of the largest overlap first, then the largest among the other objects and
    boxes, and so on. So two objects whose best box is the same have two boxes: the one that fits it worse takes
    its next best. (torchvision leaves such a box to the later object, and the earlier one without.) Among equal
    overlaps the first object and the first box are taken.

    Args:
        assignment: of the boxes, by thresholds.
        objects_xyxy: what `assignment.object` counts.
        boxes_xyxy: default boxes.
    """
    if not len(objects_xyxy) or not len(boxes_xyxy):
        return assignment
    quality = pairwise_iou(objects_xyxy, boxes_xyxy).nan_to_num(nan=0.0)
    owner, kind = assignment.object.clone(), assignment.kind.clone()
    best, place = (found.cpu() for found in _first_max_of_rows(quality))
    for _ in range(len(objects_xyxy)):
        row = int((best == best.max()).nonzero()[0, 0])
        if best[row] <= 0:
            break
        column = int(place[row])
        owner[column], kind[column] = row, POSITIVE
        quality[:, column] = 0
        best[row] = -1
        robbed = ((place == column) & (best > 0)).nonzero()[:, 0]
        if len(robbed):
            best[robbed], place[robbed] = (
                found.cpu() for found in _first_max_of_rows(quality[robbed.to(owner.device)])
            )
    return replace(assignment, object=owner, kind=kind)


def _first_max_of_rows(quality: Float[Tensor, "N A"]) -> tuple[Tensor, Tensor]:
    """Maximum of each row and the first column that has it: torch promises no order among equals on every device."""
    best = quality.amax(1)
    columns = torch.arange(quality.shape[1], device=quality.device)
    return best, torch.where(quality == best[:, None], columns, quality.shape[1]).amin(1)
