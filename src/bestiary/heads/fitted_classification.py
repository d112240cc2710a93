"""What every classifier without gradients does around its method: read the samples once, and say probabilities."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.heads.classification import labels_of
from bestiary.layers.channels import match_channels
from bestiary.predictions import Classification, Prediction
from bestiary.records import Sample
from bestiary.system import FittedSystem

PATIENCE = 5.0
"""Seconds until a line says how far a pass over the pictures is; twice as many until the next."""

Description = TypeVar("Description")


class FittedClassifier(FittedSystem):
    """Base of the fitted classifiers: a subclass adds `fit` and `probs_of`.

    Args:
        categories: K names.

    Raises:
        UsageError: no category.
    """

    task = "classification"

    def __init__(self, categories: Sequence[str]) -> None:
        super().__init__(categories)
        if not self.categories:
            raise UsageError("got no category, wanted at least one", where="categories")

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """Probabilities of the categories for one or more pictures of any sizes; what was learned is there."""
        raise NotImplementedError

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Probabilities for each picture.

        Raises:
            UsageError: nothing was learned yet.
            RecordError: a picture without pixels.
        """
        self.require_fitted()
        if not len(images):
            return []
        for i, image in enumerate(images):
            require_pixels(image, f"images[{i}]")
        return [
            Classification(row, size_hw=(int(image.shape[-2]), int(image.shape[-1])), categories=self.categories)
            for row, image in zip(self.probs_of(images), images, strict=True)
        ]


def describe_all(
    samples: Sequence[Sample],
    describe: Callable[[Shaped[Tensor, "C H W"]], Description],
    num_categories: int,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Description], Int64[Tensor, " N"]]:
    """What `describe` says of each picture, and the labels, in one pass.

    Args:
        samples: each is decoded once.
        describe: a picture to whatever is learned from.
        num_categories: labels are below it.
        say: told now and then how far it is.

    Raises:
        UsageError: no sample.
        RecordError: a picture without pixels, a sample without label, or with one that is no category.
    """
    if len(samples) == 0:
        raise UsageError("got no picture, wanted at least one", where="fit(samples)")
    descriptions: list[Description] = []
    labels: list[Tensor] = []
    due = time.monotonic() + PATIENCE
    patience = PATIENCE
    for i in range(len(samples)):
        sample = samples[i]
        require_pixels(sample.image, sample.name)
        try:
            labels.append(labels_of([sample.target], 1, num_categories))
        except RecordError as error:
            raise RecordError(error.message, where=f"the label of {sample.name}", mend=error.mend) from None
        descriptions.append(describe(sample.image))
        if time.monotonic() > due and i + 1 < len(samples):
            say(f"{i + 1:,} of {len(samples):,} pictures described")
            patience *= 2
            due = time.monotonic() + patience
    return descriptions, torch.cat(labels)


def require_pixels(image: Shaped[Tensor, "..."], where: str) -> None:
    """Raise `RecordError` unless `image` is `[C, H, W]` with at least one pixel."""
    if image.ndim != 3 or not image.numel():
        raise RecordError(f"got shape {tuple(image.shape)}, wanted (C, H, W) with pixels", where=where)


def to_bytes(image: Shaped[Tensor, "C H W"], channels: int = 3) -> Shaped[Tensor, "C2 H W"]:
    """The picture as uint8: floats 0..1 are scaled by 255, clipped and rounded."""
    matched = match_channels(image, channels)
    if matched.dtype == torch.uint8:
        return matched
    return (matched.float() * 255).clamp(0, 255).round().to(torch.uint8)
