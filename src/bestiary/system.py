"""The contract that every trainable system keeps: three verbs, one return type each.

    forward(pixels)          raw outputs of the network on its normalised input: what is exported
    loss(images, targets)    named, weighted terms; the same in training and evaluation mode
    predict(source)          predictions in original pixels, sorted and clipped

`forward` is pure. `loss` and `predict` take pictures as people hold them and prepare them with the system's own parts.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bestiary.pictures.sources import Source, iterate_batches
from bestiary.predictions import Prediction
from bestiary.records import Losses, Target

Images = Sequence[Shaped[Tensor, "C _h _w"]] | Shaped[Tensor, "B C H W"]
"""Pictures: uint8 0..255 or float 0..1, of equal or different sizes."""


class System(nn.Module):
    """Base of every trainable system. A subclass sets `task`, calls `super().__init__(categories)`, and writes three methods.

    Attributes:
        task: "classification", "detection", "segmentation" ...
        categories: names of the K classes, without background.
        in_channels: channels of a picture.
    """

    task: ClassVar[str]
    categories: tuple[str, ...]
    in_channels: int = 3

    def __init__(self, categories: Sequence[str]) -> None:
        super().__init__()
        self.categories = tuple(categories)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Any:
        """Raw outputs for normalised pixels."""
        raise NotImplementedError

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective's terms for pictures at network scale (not resized here), whatever `self.training` says."""
        raise NotImplementedError

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Predictions for decoded pictures, in their own pixels. Called in evaluation mode, without gradients."""
        raise NotImplementedError

    def predict(self, source: Source, batch: int = 1) -> list[Prediction]:
        """Predictions for tensors, arrays, PIL pictures, files, folders, globs or a video, all at once.

        Args:
            source: what `bestiary.pictures.sources` can open; tensors `[3, H, W]` or `[B, 3, H, W]`.
            batch: pictures a forward pass.
        """
        return list(self.stream(source, batch))

    def stream(self, source: Source, batch: int = 1) -> Iterator[Prediction]:
        """Like `predict`, one by one in constant memory; each prediction keeps its picture in `image`."""
        return stream_predictions(self, source, batch)


class Predictor(Protocol):
    """What can predict on decoded pictures: a system, or an exported graph in some runtime."""

    categories: tuple[str, ...]

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Predictions for decoded pictures."""
        ...


def stream_predictions(predictor: Predictor, source: Source, batch: int = 1) -> Iterator[Prediction]:
    """Open `source`, predict batch by batch, and attach name and picture to each prediction."""
    from dataclasses import replace

    module = predictor if isinstance(predictor, nn.Module) else None
    device = next((p.device for p in module.parameters()), torch.device("cpu")) if module else torch.device("cpu")
    for pictures in iterate_batches(source, batch):
        was_training = module is not None and module.training
        if module is not None:
            module.eval()
        try:
            with torch.inference_mode():
                found = predictor.predict_images([p.image.to(device) for p in pictures])
        finally:
            if module is not None and was_training:
                module.train()
        for picture, prediction in zip(pictures, found, strict=True):
            yield replace(prediction.to("cpu"), name=picture.name, image=picture.image)
