"""What a dense labeller minimises: a weighted sum of losses, each by its name.

The words of a recipe (`--losses cross_entropy,dice=0.5`) are parsed here once; the losses themselves stand in
`losses.segmentation`, and those of classes that may overlap in `losses.class_masks`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.losses.class_masks import mask_cross_entropy, mask_dice_sums
from bestiary.losses.segmentation import (
    Pooled,
    count_labelled,
    dice_loss,
    hardest_pixels_loss,
    pixel_cross_entropy,
    pixel_focal_loss,
    pooled_dice_loss,
)


@dataclass(frozen=True)
class PixelObjective:
    """Named terms and their weights, called on logits and truth.

    Attributes:
        terms: each a name, or `name=weight`. cross_entropy: mean over the labelled pixels. cross_entropy_sum: their
            sum, as FCN's authors train. dice, dice_squared: one minus one ratio over all classes, the second with
            squared probabilities below the line (V-Net). dice_classes: the mean of the classes' ratios. focal: mean
            over the labelled pixels. ohem: mean cross-entropy of the hardest pixels.
        focal_gamma: exponent of the focal loss.
        ohem_prob: a pixel is hard if its true class has less than this probability.
        ohem_share: but at least this share of the labelled pixels, the hardest, counts.

    Raises:
        UsageError: a term that does not exist or stands twice, a weight that is no positive number, or another number
            out of its range.
    """

    terms: tuple[str, ...] = ("cross_entropy",)
    focal_gamma: int | float = 2.0
    ohem_prob: int | float = 0.7
    ohem_share: int | float = 1 / 16

    def __post_init__(self) -> None:
        names = [name for name, _ in self.weighted_terms]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"got {', '.join(self.terms) or 'nothing'}, wanted each loss at most once", where="losses")
        if not self.focal_gamma >= 0:
            raise UsageError(f"got {self.focal_gamma}, wanted 0 or more", where="focal_gamma")
        if not 0 < self.ohem_prob <= 1 or not 0 < self.ohem_share <= 1:
            got = f"got {self.ohem_prob} and {self.ohem_share}, wanted more than 0, up to 1"
            raise UsageError(got, where="ohem_prob, ohem_share")

    @property
    def weighted_terms(self) -> tuple[tuple[str, float], ...]:
        """Name and weight of each term."""
        return tuple(_parsed(term) for term in self.terms)

    def __call__(
        self,
        logits: Float[Tensor, "B K H W"],
        label_maps: UInt8[Tensor, "B H W"],
        class_weights: Float[Tensor, " K"] | None = None,
        weight_maps: Float[Tensor, "B H W"] | None = None,
        class_masks: Bool[Tensor, "B K H W"] | None = None,
    ) -> dict[str, Tensor]:
        """Each term times its weight, by name.

        Args:
            logits: of every pixel.
            label_maps: class of each pixel, or where nothing is known.
            class_weights: of each class's pixels.
            weight_maps: of each pixel.
            class_masks: which pixels belong to each class, where they may belong to several: each term is then that of
                a sigmoid (`losses.class_masks`), and of the label maps only `IGNORE_LABEL` counts.

        Raises:
            RecordError: a label that is neither a class nor to be ignored.
            UsageError: a single class without masks, which a softmax could tell from nothing.
        """
        if class_masks is None and logits.shape[1] < 2:
            mend = "Add the background's class, or set multi_label"
            raise UsageError("got a single category, wanted at least two", where="categories", mend=mend)
        truth = _Truth(logits, label_maps, class_weights, weight_maps, class_masks)
        return {name: weight * TERMS[name](self, truth) for name, weight in self.weighted_terms}


@dataclass(frozen=True, eq=False)
class _Truth:
    logits: Tensor
    label_maps: Tensor
    class_weights: Tensor | None
    weight_maps: Tensor | None
    class_masks: Tensor | None

    def losses(self, gamma: int | float = 0.0, weighted: bool = True) -> Tensor:
        """Of every pixel; the cross-entropy, unless `gamma` makes it focal."""
        weights = (self.class_weights, self.weight_maps) if weighted else (None, None)
        if self.class_masks is not None:
            return mask_cross_entropy(self.logits, self.class_masks, self.label_maps, *weights, gamma=gamma)
        if gamma:
            return pixel_focal_loss(self.logits, self.label_maps, gamma, *weights)
        return pixel_cross_entropy(self.logits, self.label_maps, *weights)

    def mean(self, losses: Tensor) -> Tensor:
        """Over the labelled pixels; 0 where there are none."""
        return losses.sum() / count_labelled(self.label_maps).clamp(min=1)

    def dice(self, pooled: Pooled = "all", squared: bool = False) -> Tensor:
        if self.class_masks is None:
            return dice_loss(self.logits, self.label_maps, pooled, squared)
        sums = mask_dice_sums(self.logits.sigmoid(), self.class_masks, self.label_maps, squared)
        return pooled_dice_loss(*sums, pooled)


def _hardest(objective: PixelObjective, truth: _Truth) -> Tensor:
    weights = objective.ohem_prob, objective.ohem_share
    return hardest_pixels_loss(truth.losses(), truth.losses(weighted=False), truth.label_maps, *weights)


TERMS: Mapping[str, Callable[[PixelObjective, _Truth], Tensor]] = {
    "cross_entropy": lambda _, truth: truth.mean(truth.losses()),
    "cross_entropy_sum": lambda _, truth: truth.losses().sum(),
    "dice": lambda _, truth: truth.dice(),
    "dice_classes": lambda _, truth: truth.dice("classes"),
    "dice_squared": lambda _, truth: truth.dice(squared=True),
    "focal": lambda objective, truth: truth.mean(truth.losses(objective.focal_gamma)),
    "ohem": _hardest,
}
"""Class weights and pixel weights scale all but Dice, which its own ratio balances."""


def _parsed(term: str) -> tuple[str, float]:
    """Name and weight of `name` or `name=weight`."""
    name, sign, text = term.partition("=")
    if name not in TERMS:
        raise UsageError(f"no loss is called {name!r}", where="losses", mend=f"There are {', '.join(TERMS)}")
    try:
        weight = float(text) if sign else 1.0
    except ValueError:
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise UsageError(f"got {term!r}, wanted a positive weight after the sign", where="losses")
    return name, weight


def weights_of(weights: Sequence[int | float], categories: Sequence[str]) -> Float[Tensor, " K"]:
    """Class weights as a tensor.

    Raises:
        UsageError: not as many as there are categories, or a negative one.
    """
    if len(weights) != len(categories):
        raise UsageError(f"got {len(weights)} weights for {len(categories)} categories", where="class_weights")
    if not all(0 <= weight < float("inf") for weight in weights):
        raise UsageError(f"got {', '.join(map(str, weights))}, wanted no negative weight", where="class_weights")
    return torch.tensor([float(weight) for weight in weights], dtype=torch.float32)
