"""Losses of overlap between predicted and true boxes, under torchvision's names and signatures.

Convention: `xyxy` boxes, row by row (shapes are equal, not broadcast), unreduced by default. The quotients have `eps`
added to their divisors, so that empty boxes have finite losses and gradients. The mean of no boxes is 0, with gradient.
Half precision is computed in float32. The losses are symmetric in their boxes.
"""

from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import aspect_penalty, box_overlap, centre_penalty, hull_size
from bestiary.records import require


def generalized_box_iou_loss(
    boxes1: Shaped[Tensor, "*N 4"], boxes2: Shaped[Tensor, "*N 4"], reduction: str = "none", eps: int | float = 1e-7
) -> Float[Tensor, "..."]:
    """1 - IoU + the share of the hull that neither covers (Rezatofighi et al., CVPR 2019, equation 4): 0..2.

    Args:
        boxes1: `xyxy`.
        boxes2: as many.
        reduction: "none", "mean" or "sum".
        eps: added to union and hull, square pixels.

    Raises:
        RecordError: shapes differ.
        UsageError: an unknown reduction.
    """
    _require_pairs("generalized_box_iou_loss", boxes1, boxes2)
    (inter, union), hull = box_overlap(boxes1, boxes2), hull_size(boxes1, boxes2).prod(-1)
    iou = inter / (union + eps)
    return _reduced(1 - iou + (hull - union) / (hull + eps), reduction, "generalized_box_iou_loss")


def distance_box_iou_loss(
    boxes1: Shaped[Tensor, "*N 4"], boxes2: Shaped[Tensor, "*N 4"], reduction: str = "none", eps: int | float = 1e-7
) -> Float[Tensor, "..."]:
    """1 - IoU + squared distance of the centres over the hull's squared diagonal (Zheng et al., AAAI 2020, equation 7).

    Args:
        boxes1: `xyxy`.
        boxes2: as many.
        reduction: "none", "mean" or "sum".
        eps: added to union and squared diagonal, square pixels.

    Raises:
        RecordError: shapes differ.
        UsageError: an unknown reduction.
    """
    _require_pairs("distance_box_iou_loss", boxes1, boxes2)
    inter, union = box_overlap(boxes1, boxes2)
    iou = inter / (union + eps)
    return _reduced(1 - iou + centre_penalty(boxes1, boxes2, eps), reduction, "distance_box_iou_loss")


def complete_box_iou_loss(
    boxes1: Shaped[Tensor, "*N 4"], boxes2: Shaped[Tensor, "*N 4"], reduction: str = "none", eps: int | float = 1e-7
) -> Float[Tensor, "..."]:
    """The distance loss plus alpha v of the sides' ratios (Zheng et al., AAAI 2020, equation 8), alpha a constant.

    Args:
        boxes1: `xyxy`.
        boxes2: as many.
        reduction: "none", "mean" or "sum".
        eps: added to union, squared diagonal and alpha's divisor (torchvision: to the first two always 1e-7).

    Raises:
        RecordError: shapes differ.
        UsageError: an unknown reduction.
    """
    _require_pairs("complete_box_iou_loss", boxes1, boxes2)
    inter, union = box_overlap(boxes1, boxes2)
    iou = inter / (union + eps)
    loss = 1 - iou + centre_penalty(boxes1, boxes2, eps) + aspect_penalty(boxes1, boxes2, iou, eps)
    return _reduced(loss, reduction, "complete_box_iou_loss")


def _require_pairs(where: str, boxes1: Tensor, boxes2: Tensor) -> None:
    got = f"{tuple(boxes1.shape)} and {tuple(boxes2.shape)}"
    fits = boxes1.shape == boxes2.shape and boxes1.shape[-1:] == (4,)
    require(fits, f"{where}(boxes1, boxes2)", got, "equal shapes (..., 4)")


def _reduced(losses: Tensor, reduction: str, where: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction != "mean":
        raise UsageError(f"got the reduction {reduction!r}, wanted none, mean or sum", where=f"{where}(reduction)")
    return losses.mean() if losses.numel() else losses.sum()
