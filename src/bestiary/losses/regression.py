"""Losses of real-valued predictions."""

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.records import require


def smooth_l1_loss(
    predictions: Float[Tensor, "*N"], targets: Float[Tensor, "*N"], beta: int | float = 1.0
) -> Float[Tensor, "*N"]:
    """Huber's loss over beta, elementwise (Girshick, Fast R-CNN, ICCV 2015, equation 3, with the corner at beta).

        0.5 d^2 / beta   where |d| < beta
        |d| - 0.5 beta   elsewhere,                d = predictions - targets

    Args:
        predictions: any shape.
        targets: the same shape; shapes are not broadcast.
        beta: where the parabola ends; 1 / sigma^2 in the public code of Faster R-CNN (1/9 for sigma 3). 0 is plain L1.

    Returns:
        unreduced; Fast R-CNN divides the sum over positives by the number of sampled regions.

    Raises:
        RecordError: shapes differ or beta is negative.
    """
    _require_equal_shapes("smooth_l1_loss", predictions, targets)
    require(beta >= 0, "smooth_l1_loss(beta)", beta, "0 or more")
    distance = (predictions - targets).abs()
    if beta == 0:
        return distance
    return torch.where(distance < beta, 0.5 * distance.square() / beta, distance - 0.5 * beta)


def l1_loss(predictions: Float[Tensor, "*N"], targets: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """|predictions - targets|, elementwise; shapes are not broadcast (RecordError)."""
    _require_equal_shapes("l1_loss", predictions, targets)
    return (predictions - targets).abs()


def squared_error_loss(predictions: Float[Tensor, "*N"], targets: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """(predictions - targets)^2, elementwise; shapes are not broadcast (RecordError)."""
    _require_equal_shapes("squared_error_loss", predictions, targets)
    return (predictions - targets).square()


def _require_equal_shapes(where: str, predictions: Tensor, targets: Tensor) -> None:
    got = f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
    require(predictions.shape == targets.shape, f"{where}(predictions, targets)", got, "equal shapes")
