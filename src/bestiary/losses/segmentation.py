"""Losses of pixels: weighted cross-entropy, soft Dice, and the weights that balance classes.

Shapes: `logits` and `probs` are `[B, K, H, W]`, label maps `[B, H, W]` uint8 with `IGNORE_LABEL` where the truth is
unknown.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.records import IGNORE_LABEL

Pooled = Literal["classes", "all"]


def require_labels(label_maps: UInt8[Tensor, "*B H W"], num_classes: int, ignore_label: int = IGNORE_LABEL) -> None:
    """Raise `RecordError` naming the first label that is neither a class nor `ignore_label` (on the CPU only)."""
    if label_maps.device.type != "cpu" or torch.compiler.is_compiling() or not label_maps.numel():
        return
    bad = (label_maps >= num_classes) & (label_maps != ignore_label)
    if bad.any():
        got = f"label {int(label_maps[bad][0])} ({int(bad.sum())} such pixels)"
        raise RecordError(f"got {got}, wanted 0..{num_classes - 1} or {ignore_label}", where="label_map")


def pixel_cross_entropy(
    logits: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    class_weights: Float[Tensor, " K"] | None = None,
    weight_maps: Float[Tensor, "B H W"] | None = None,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, "B H W"]:
    """`-w_label w(x) log softmax(logits)_label` of every pixel, 0 where the label is to be ignored; nothing is
    averaged.

    Ronneberger et al. 2015, equation 1, is its sum with `weight_maps` the w of equation 2.

    Raises:
        RecordError: a label that is neither a class nor `ignore_label`.
    """
    require_labels(label_maps, logits.shape[1], ignore_label)
    losses = F.cross_entropy(
        logits, label_maps.long(), weight=class_weights, ignore_index=ignore_label, reduction="none"
    )
    return losses if weight_maps is None else losses * weight_maps


def count_labelled(label_maps: UInt8[Tensor, "*B H W"], ignore_label: int = IGNORE_LABEL) -> Int64[Tensor, ""]:
    """How many pixels have a label: what a pixel loss is usually divided by."""
    return (label_maps != ignore_label).sum()


def pixel_cross_entropy_loss(
    logits: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    normaliser: float | Tensor,
    class_weights: Float[Tensor, " K"] | None = None,
    weight_maps: Float[Tensor, "B H W"] | None = None,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, ""]:
    """Sum of `pixel_cross_entropy` divided by `normaliser`, which counts as 1 where it is 0.

    Dividing by `count_labelled` gives the mean over the labelled pixels; dividing by the sum of their class weights
    gives what `torch.nn.CrossEntropyLoss` calls the mean.
    """
    losses = pixel_cross_entropy(logits, label_maps, class_weights, weight_maps, ignore_label)
    divisor = torch.as_tensor(normaliser, dtype=losses.dtype, device=losses.device)
    return losses.sum() / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def pixel_focal_loss(
    logits: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    gamma: int | float = 2.0,
    class_weights: Float[Tensor, " K"] | None = None,
    weight_maps: Float[Tensor, "B H W"] | None = None,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, "B H W"]:
    """`(1 - p)^gamma` times `pixel_cross_entropy`, p the probability of the true class (Lin et al., ICCV 2017,
    equation 4, over a softmax); nothing is averaged. With `gamma` 0 it is the cross-entropy.
    """
    plain = pixel_cross_entropy(logits, label_maps, ignore_label=ignore_label)
    weighted = pixel_cross_entropy(logits, label_maps, class_weights, weight_maps, ignore_label)
    return weighted * unsureness(plain, gamma)


def unsureness(losses: Float[Tensor, "*S"], gamma: int | float) -> Float[Tensor, "*S"]:
    """`(1 - p)^gamma` where a cross-entropy is `-log p`."""
    # 1 - exp(-0) has no slope for a power below 1; an ignored pixel must have a finite one
    return (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny) ** gamma


def hardest_pixels_loss(
    losses: Float[Tensor, "B H W"],
    hardness: Float[Tensor, "B H W"],
    label_maps: UInt8[Tensor, "B H W"],
    prob: int | float = 0.7,
    share: int | float = 1 / 16,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, ""]:
    """Mean loss of the hard pixels of a batch: online hard example mining.

    Hard are the labelled pixels whose true class has a probability below `prob`, and at least the share `share` of the
    labelled ones, those of the least probability (Wu, Shen, van den Hengel, arXiv 1605.06885, section 3: bootstrapped
    cross-entropy). 0, with gradient, where nothing is labelled.

    Args:
        losses: of each pixel, weighted or not.
        hardness: minus the logarithm of each pixel's probability.
        label_maps: says which pixels are labelled.
        prob: see above.
        share: see above.
        ignore_label: of the pixels that are not.
    """
    known = label_maps != ignore_label
    labelled = int(known.sum())
    if not labelled:
        return losses.sum()
    plain = hardness.detach()[known]
    least = plain.topk(max(1, math.ceil(share * labelled))).values[-1]
    return losses[known][plain >= torch.minimum(least, plain.new_tensor(-math.log(prob)))].mean()


def dice_sums(
    probs: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    squared: bool = False,
    ignore_label: int = IGNORE_LABEL,
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Overlap and extent of prediction A and truth B (one-hot), per picture and class, over the labelled pixels.

    Args:
        probs: probabilities.
        label_maps: truth.
        squared: extent is `|A|^2 + |B|^2` (Milletari et al., V-Net, 2016), not `|A| + |B|`. They differ for soft A
            only.
        ignore_label: label of pixels that count nowhere.

    Returns:
        overlap `sum A B`, and extent. Added up over pictures, classes or both before the ratio is taken they give the
        Dice of each, of the batch, or of everything.
    """
    require_labels(label_maps, probs.shape[1], ignore_label)
    known = label_maps != ignore_label
    labels = torch.where(known, label_maps, torch.zeros_like(label_maps)).long()
    predicted = probs * known[:, None]
    # gather and scatter-add cost one pass; a one-hot map would cost K of them
    hits = predicted.gather(1, labels[:, None])[:, 0]
    overlap = probs.new_zeros(probs.shape[:2]).scatter_add(1, labels.flatten(1), hits.flatten(1))
    truth = probs.new_zeros(probs.shape[:2]).scatter_add(1, labels.flatten(1), known.to(probs.dtype).flatten(1))
    extent = (predicted.square() if squared else predicted).sum((2, 3)) + truth
    return overlap, extent


def dice_ratio(overlap: Float[Tensor, "*S"], extent: Float[Tensor, "*S"], smooth: float = 1e-6) -> Float[Tensor, "*S"]:
    """`(2 overlap + smooth) / (extent + smooth)`: 1 where both sets are empty, also with `smooth` 0."""
    empty = (extent + smooth) == 0
    return torch.where(empty, torch.ones_like(extent), (2 * overlap + smooth) / (extent + smooth + empty))


def soft_dice(
    probs: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    squared: bool = False,
    smooth: float = 1e-6,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, " K"]:
    """Dice of every class over the whole batch: 1 where they agree fully, and where neither has the class."""
    overlap, extent = dice_sums(probs, label_maps, squared, ignore_label)
    return dice_ratio(overlap.sum(0), extent.sum(0), smooth)


def dice_loss(
    logits: Float[Tensor, "B K H W"],
    label_maps: UInt8[Tensor, "B H W"],
    pooled: Pooled = "all",
    squared: bool = False,
    smooth: float = 1e-6,
    ignore_label: int = IGNORE_LABEL,
) -> Float[Tensor, ""]:
    """`1 - Dice` of the softmax of `logits` over the batch.

    Args:
        logits: raw outputs.
        label_maps: truth.
        pooled: "classes" takes the mean of the classes' coefficients, so that a rare class weighs as much as a common
            one, and any probability given to an absent class costs a whole 1/K; "all" takes one ratio of the sums over
            all classes.
        squared: as in `dice_sums`.
        smooth: as in `dice_ratio`.
        ignore_label: label of pixels that count nowhere.
    """
    return pooled_dice_loss(*dice_sums(logits.softmax(1), label_maps, squared, ignore_label), pooled, smooth)


def pooled_dice_loss(
    overlap: Float[Tensor, "B K"], extent: Float[Tensor, "B K"], pooled: Pooled = "all", smooth: float = 1e-6
) -> Float[Tensor, ""]:
    """`1 - Dice` of sums as `dice_sums` gives them; `pooled` and `smooth` as of `dice_loss`."""
    if pooled == "all":
        return 1 - dice_ratio(overlap.sum(), extent.sum(), smooth)
    return 1 - dice_ratio(overlap.sum(0), extent.sum(0), smooth).mean()


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How often each of K classes occurs in a data set.

    Attributes:
        pixels: its pixels.
        pixels_around: labelled pixels of those pictures that contain it.
    """

    pixels: Int64[Tensor, " K"]
    pixels_around: Int64[Tensor, " K"]


def count_classes(
    label_maps: Iterable[UInt8[Tensor, "_h _w"]], num_classes: int, ignore_label: int = IGNORE_LABEL
) -> ClassCounts:
    """Count classes picture by picture.

    Raises:
        RecordError: a label that is neither a class nor `ignore_label`.
    """
    pixels = torch.zeros(num_classes, dtype=torch.int64)
    around = torch.zeros(num_classes, dtype=torch.int64)
    for label_map in label_maps:
        require_labels(label_map, num_classes, ignore_label)
        found = torch.bincount(label_map[label_map != ignore_label].long(), minlength=num_classes)
        pixels += found
        around += torch.where(found > 0, found.sum(), 0)
    return ClassCounts(pixels, around)


def inverse_frequency_weights(counts: ClassCounts) -> Float64[Tensor, " K"]:
    """`w_c = n / (K' n_c)` with n labelled pixels and K' classes that occur: pixels weigh 1 on average. Unseen: 0."""
    seen = counts.pixels > 0
    weights = counts.pixels.sum() / (seen.sum() * counts.pixels.double())
    return torch.where(seen, weights, torch.zeros_like(weights))


def median_frequency_weights(counts: ClassCounts) -> Float64[Tensor, " K"]:
    """`w_c = median(f) / f_c`, where f_c is the share of c in those pictures that contain it. Unseen classes: 0.

    Eigen and Fergus 2015, section 4.3.1; Badrinarayanan et al. (SegNet) 2017, section 4. The median of an even number
    of classes is the mean of the two in the middle.
    """
    seen = counts.pixels > 0
    if not seen.any():
        return torch.zeros(len(counts.pixels), dtype=torch.float64)
    frequencies = counts.pixels.double() / counts.pixels_around.clamp(min=1)
    median = frequencies[seen].quantile(0.5)
    return torch.where(seen, median / frequencies.where(seen, torch.ones_like(frequencies)), 0.0)
