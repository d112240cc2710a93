"""YOLO's loss of five terms (Redmon et al., You Only Look Once, CVPR 2016, equation 3)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.assign.cells import CellTruth
from bestiary.geometry.boxes import box_overlap_ratio, cxcywh_to_xyxy


class Cells(NamedTuple):
    """What the network says of S x S cells with n boxes each.

    Attributes:
        probs: of the K categories, given that there is an object, `[B, S, S, K]`; linear outputs, perhaps outside 0..1.
        confidences: that a box holds an object, times its overlap with it, `[B, S, S, n]`.
        boxes: centre x, y within the cell, 0..1, and the square roots of width and height as shares of the picture's,
            `[B, S, S, n, 4]`.
    """

    probs: Tensor
    confidences: Tensor
    boxes: Tensor


class CellLosses(NamedTuple):
    """The five terms of equation 3, weighted, summed over all cells and boxes of each picture; `[B]` each.

    Attributes:
        centre: squared errors of the responsible boxes' x and y.
        size: of the square roots of their widths and heights.
        confidence: of their confidences, which should be their overlaps.
        no_object: of all other boxes' confidences, which should be 0.
        category: of the categories' probabilities in the cells that have an object.
    """

    centre: Tensor
    size: Tensor
    confidence: Tensor
    no_object: Tensor
    category: Tensor


def yolo_v1_losses(
    cells: Cells,
    truth: CellTruth,
    *,
    coord: int | float = 5.0,
    no_object: int | float = 0.5,
    class_weights: Float[Tensor, " K"] | None = None,
) -> CellLosses:
    """Equation 3.

    Of each object's cell one box is responsible: that which overlaps the object most, or, where none touches it, that
    with the least squared error (the authors' code). Neither the choice nor the overlap that its confidence should be
    has a gradient. Nothing is divided by anything; the authors' code takes half of this.

    Args:
        cells: of the network.
        truth: of the same pictures and cells.
        coord: factor on the first two terms.
        no_object: factor on the fourth.
        class_weights: factors on the last, by the object's category.
    """
    occupied = truth.occupied
    chosen, overlap = responsible(cells.boxes, truth)
    boxes = cells.boxes.gather(3, chosen[..., None, None].expand(*chosen.shape, 1, 4))[..., 0, :]
    wanted = torch.cat([truth.boxes[..., :2], truth.boxes[..., 2:].sqrt()], -1)
    errors = (boxes - wanted).square() * occupied[..., None]
    confidence = cells.confidences.gather(3, chosen[..., None])[..., 0]
    sure = (confidence - overlap).square() * occupied
    is_chosen = torch.zeros_like(cells.confidences, dtype=torch.bool).scatter(3, chosen[..., None], True)
    empty = ~(is_chosen & occupied[..., None]) & ~truth.ignored[..., None]
    one_hot = torch.zeros_like(cells.probs).scatter(3, truth.labels.clamp(min=0)[..., None], 1.0)
    category = (cells.probs - one_hot).square().sum(-1) * occupied
    if class_weights is not None:
        category = category * class_weights[truth.labels.clamp(min=0)]
    return CellLosses(
        coord * errors[..., :2].sum((1, 2, 3)),
        coord * errors[..., 2:].sum((1, 2, 3)),
        sure.sum((1, 2)),
        no_object * (cells.confidences.square() * empty).sum((1, 2, 3)),
        category.sum((1, 2)),
    )


@torch.no_grad()
def responsible(
    boxes: Float[Tensor, "B S S n 4"], truth: CellTruth
) -> tuple[Int64[Tensor, "B S S"], Float[Tensor, "B S S"]]:
    """Of each cell the box that answers for its object, and their overlap; the first box and 0 where there is none."""
    side = boxes.shape[1]
    # All centres as shares of the picture, from the cell's corner: overlaps do not mind where the cell is.
    said = torch.cat([boxes[..., :2] / side, boxes[..., 2:].square()], -1)
    wanted = torch.cat([truth.boxes[..., :2] / side, truth.boxes[..., 2:]], -1)[..., None, :]
    overlaps = box_overlap_ratio(cxcywh_to_xyxy(said), cxcywh_to_xyxy(wanted)).nan_to_num(nan=0.0)
    error = (said - wanted).square().sum(-1)
    best = torch.where(overlaps.amax(-1) > 0, overlaps.argmax(-1), error.argmin(-1))
    best = best * truth.occupied
    return best, overlaps.gather(-1, best[..., None])[..., 0] * truth.occupied
