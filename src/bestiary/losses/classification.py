"""Losses of categorical predictions; all take logits."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.records import require

IGNORED_INDEX = -100
"""Label of an element without truth: its loss and its gradient are zero."""


def cross_entropy_loss(
    logits: Float[Tensor, "N K *S"],
    labels: Int64[Tensor, "N *S"],
    label_smoothing: int | float = 0.0,
    ignored_index: int = IGNORED_INDEX,
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, "N *S"]:
    """-w_y sum_k q_k log softmax(logits)_k with q = (1 - e) onehot(y) + e / K (Szegedy et al., CVPR 2016, section 7).

    Args:
        logits: class axis second.
        labels: 0..K-1, or `ignored_index`.
        label_smoothing: e, 0..1.
        ignored_index: label without loss.
        class_weights: w; all 1 if None. It weighs the element by its label, smoothing included: a plain factor (torch's
            own weighs each q_k by its class instead).

    Returns:
        unreduced. `mean_over_labelled` gives the usual mean.

    Raises:
        RecordError: shapes do not fit, or smoothing is outside 0..1.
    """
    wanted = (logits.shape[0], *logits.shape[2:])
    fits = tuple(labels.shape) == wanted
    require(fits, "cross_entropy_loss(labels)", f"shape {tuple(labels.shape)}", f"{wanted}, as the logits")
    require(0 <= label_smoothing <= 1, "cross_entropy_loss(label_smoothing)", label_smoothing, "0 to 1")
    loss = F.cross_entropy(
        logits, labels, ignore_index=ignored_index, label_smoothing=label_smoothing, reduction="none"
    )
    if class_weights is None:
        return loss
    return loss * class_weights[torch.where(labels == ignored_index, 0, labels)]


def mean_over_labelled(
    losses: Float[Tensor, "N *S"], labels: Int64[Tensor, "N *S"], ignored_index: int = IGNORED_INDEX
) -> Float[Tensor, ""]:
    """Sum of the losses over the number of elements that have a label; 0, with gradient, where none has."""
    return losses.sum() / (labels != ignored_index).sum().clamp(min=1)


def binary_cross_entropy_loss(logits: Float[Tensor, "*N"], targets: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """-t log p - (1 - t) log(1 - p) with p = sigmoid(logits), elementwise.

    Args:
        logits: any shape.
        targets: 0..1, of the same shape.

    Raises:
        RecordError: shapes differ.
    """
    _require_equal_shapes("binary_cross_entropy_loss", logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def sigmoid_focal_loss(
    logits: Float[Tensor, "*N"],
    targets: Float[Tensor, "*N"],
    alpha: int | float | None = 0.25,
    gamma: int | float = 2.0,
) -> Float[Tensor, "*N"]:
    """-alpha_t (1 - p_t)^gamma log p_t, elementwise (Lin et al., Focal loss, ICCV 2017, equation 5).

    p_t is sigmoid(logits) where the target is 1, else 1 minus it; alpha_t likewise of alpha.

    Args:
        logits: any shape.
        targets: 0 or 1, of the same shape.
        alpha: weight of the positives, 1 - alpha of the negatives; None for 1 of both.
        gamma: 0 gives (weighted) binary cross entropy.

    Returns:
        unreduced; RetinaNet divides the sum by the number of positive anchors.

    Raises:
        RecordError: shapes differ.
    """
    _require_equal_shapes("sigmoid_focal_loss", logits, targets)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t as a sigmoid of its own: 1 - sigmoid would round to 0 for sure and right answers.
    missed = torch.sigmoid(-logits) * targets + torch.sigmoid(logits) * (1 - targets)
    loss = missed.pow(gamma) * loss
    if alpha is None:
        return loss
    return (alpha * targets + (1 - alpha) * (1 - targets)) * loss


def _require_equal_shapes(where: str, logits: Tensor, targets: Tensor) -> None:
    got = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
    require(logits.shape == targets.shape, f"{where}(logits, targets)", got, "equal shapes")
