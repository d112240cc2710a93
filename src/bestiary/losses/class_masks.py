"""Losses of pixels that may belong to several classes, or to none: each class against all else, by a sigmoid.

Shapes: `logits` and `class_masks` are `[B, K, H, W]`; label maps `[B, H, W]` say no more than where nothing is known
(`IGNORE_LABEL`). A pixel's loss is the mean over the K classes, so that it compares with that of a softmax.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.losses.segmentation import ClassCounts, unsureness
from bestiary.records import IGNORE_LABEL


def mask_cross_entropy(
    logits: Float[Tensor, "B K H W"],
    class_masks: Bool[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    class_weights: Float[Tensor, " K"] | None = None,
    weight_maps: Float[Tensor, "B H W"] | None = None,
    gamma: int | float = 0.0,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, "B H W"]:
    """`w(x) / K sum_k -w_k (1 - p_k)^gamma log p_k` of every pixel, 0 where nothing is known; p_k is the probability of
    the truth: `sigmoid(logit)` inside the class's mask, `1 - sigmoid(logit)` outside.

    `gamma` 0 is the binary cross-entropy, else the focal loss (Lin et al., ICCV 2017, equation 4). Nothing is averaged
    over pixels.
    """
    losses = F.binary_cross_entropy_with_logits(logits, class_masks.to(logits.dtype), reduction="none")
    if gamma:
        losses = losses * unsureness(losses, gamma)
    if class_weights is not None:
        losses = losses * class_weights[:, None, None]
    losses = losses.mean(1) * (label_maps != ignore_label)
    return losses if weight_maps is None else losses * weight_maps


def mask_dice_sums(
    probs: Float[Tensor, "B K H W"],
    class_masks: Bool[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    squared: bool = False,
    ignore_label: int = IGNORE_LABEL,
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Overlap and extent of each picture and class, as `losses.segmentation.dice_sums` has them."""
    known = (label_maps != ignore_label)[:, None]
    predicted, truth = probs * known, (class_masks & known).to(probs.dtype)
    extent = (predicted.square() if squared else predicted).sum((2, 3)) + truth.sum((2, 3))
    return torch.einsum("bkhw,bkhw->bk", predicted, truth), extent


def count_masks(
    truths: Iterable[tuple[Bool[Tensor, "K _h _w"], Bool[Tensor, "_h _w"]]], num_classes: int
) -> ClassCounts:
    """Count classes picture by picture, of masks and where they are known (`Target.class_masks`)."""
    pixels, around = (torch.zeros(num_classes, dtype=torch.int64) for _ in range(2))
    for class_masks, known in truths:
        found = (class_masks & known).sum((1, 2)).cpu()
        pixels += found
        around += torch.where(found > 0, known.sum().cpu(), 0)
    return ClassCounts(pixels, around)
