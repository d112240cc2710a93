"""Losses of corners and of the numbers that pair them (Law, Deng: CornerNet, ECCV 2018, section 3.2 and 3.3)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.records import require

LEAST_PROB = 1e-4
"""Probabilities are held this far from 0 and 1, as in the authors' code: beyond it nothing more is learned."""


def corner_focal_loss(
    logits: Float[Tensor, "*N"], targets: Float[Tensor, "*N"], alpha: int | float = 2, beta: int | float = 4
) -> Float[Tensor, "*N"]:
    """Focal loss for peaks that fall off softly, elementwise (equation 1).

        (1 - p)^alpha (-log p)                where the target y is 1
        (1 - y)^beta p^alpha (-log(1 - p))    elsewhere,                  p = sigmoid(logits), held by `LEAST_PROB`

    Places near a corner, which would make nearly as good a box, cost less than those far from any.

    Args:
        logits: any shape.
        targets: 0..1, of the same shape; exactly 1 at the corners alone.
        alpha: how little sure answers cost.
        beta: how much of the neighbourhood of a corner is let go.

    Returns:
        unreduced; CornerNet divides the sum by the number of corners.

    Raises:
        RecordError: shapes differ.
    """
    got = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
    require(logits.shape == targets.shape, "corner_focal_loss(logits, targets)", got, "equal shapes")
    limit = math.log((1 - LEAST_PROB) / LEAST_PROB)
    held = logits.clamp(-limit, limit)
    # 1 - p as a sigmoid of its own: subtracting would round.
    found, missed = torch.sigmoid(held), torch.sigmoid(-held)
    positive = -missed.pow(alpha) * F.logsigmoid(held)
    negative = -(1 - targets).pow(beta) * found.pow(alpha) * F.logsigmoid(-held)
    return torch.where(targets == 1, positive, negative)


def pull_loss(first: Float[Tensor, " N"], second: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """(e1 - e)^2 + (e2 - e)^2 with e their mean: the two tags of an object should be one (equation 4).

    Args:
        first: tag of each object's one corner.
        second: of its other.

    Returns:
        of each object; CornerNet takes the mean over those of a picture.
    """
    return (first - second).square() / 2


def push_loss(first: Float[Tensor, " N"], second: Float[Tensor, " N"], margin: int | float = 1) -> Float[Tensor, "N N"]:
    """max(0, margin - |e_j - e_k|) of every two objects' mean tags, 0 of an object and itself (equation 5).

    Args:
        first: tag of each object's one corner.
        second: of its other.
        margin: the distance from which on two objects are told apart.

    Returns:
        of each ordered pair; CornerNet divides the sum by N (N - 1).
    """
    means = (first + second) / 2
    short = F.relu(margin - (means[:, None] - means[None]).abs())
    return short * (1 - torch.eye(len(means), dtype=short.dtype, device=short.device))
