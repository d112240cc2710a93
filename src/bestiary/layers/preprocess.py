"""From pictures as people hold them to the padded, normalised batch a network sees.

A part of every system, so that a checkpoint carries its own preprocessing and no caller can forget it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BYTE_STD = (1 / 255, 1 / 255, 1 / 255)
"""Of networks that see 0..255: the mean is taken off and nothing is divided."""

CAFFE_VGG_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
"""Red, green, blue of the files that VGG's authors published for Caffe, whose networks see blue, green, red, 0..255."""

VGG_FEATURES_MEAN = (0.48235, 0.45882, 0.40784)
"""With `BYTE_STD`, of the fully convolutional VGG-16 that SSD starts from (torchvision's `vgg16_features`): RGB,
0..255."""

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """Network input.

    Attributes:
        pixels: normalised, padded on the right and bottom with zeros (the mean colour).
        sizes_hw: size of each picture within the batch, before padding.
        original_sizes_hw: size of each picture as it was given.
    """

    pixels: Float[Tensor, "B C H W"]
    sizes_hw: tuple[tuple[int, int], ...]
    original_sizes_hw: tuple[tuple[int, int], ...]


class Normalize(nn.Module):
    """uint8 0..255 or float 0..1 to `(x - mean) / std`; the numbers are per channel, on the 0..1 scale.

    Args:
        mean: in the order of the picture's channels, RGB.
        std: likewise.
        channel_order: "bgr" hands the channels on in reverse, as Caffe's networks want them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        super().__init__()
        self.channel_order = channel_order
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, image: Shaped[Tensor, "*B C H W"]) -> Float[Tensor, "*B C H W"]:
        """Normalise one picture or a batch of equal sizes."""
        if image.shape[-3] != len(self.mean):
            wanted = f"{len(self.mean)} channels [..., C, H, W]"
            raise RecordError(f"got a picture of shape {tuple(image.shape)}, wanted {wanted}", where="images")
        scaled = image.to(self.mean.dtype) / 255 if image.dtype == torch.uint8 else image.to(self.mean.dtype)
        normal = (scaled - self.mean) / self.std
        return normal.flip(-3) if self.channel_order == "bgr" else normal


def channel_normalize(
    in_channels: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    channel_order: ChannelOrder = "rgb",
) -> Normalize:
    """`Normalize` for pictures of any number of channels: as given if there are as many, else the averages for each,
    and the order stays.
    """
    if in_channels == len(mean):
        return Normalize(mean, std, channel_order)
    return Normalize([sum(mean) / len(mean)] * in_channels, [sum(std) / len(std)] * in_channels)


def short_side_scale(size_hw: tuple[int, int], short: int, longest: int) -> float:
    """Factor that brings the shorter side to `short`, unless the longer would then exceed `longest`."""
    return min(short / min(size_hw), longest / max(size_hw))


def resize_bilinear(image: Float[Tensor, "C H W"], scale: float) -> Float[Tensor, "C H2 W2"]:
    """Bilinear, half-pixel centres, no antialias, to floor(side * scale), as torchvision's detectors resize."""
    return F.interpolate(
        image[None], scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=True
    )[0]


def pad_batch(images: Sequence[Float[Tensor, "C _h _w"]], divisor: int) -> Float[Tensor, "B C H W"]:
    """Stack pictures of different sizes: zeros on the right and bottom up to a common multiple of `divisor`."""
    height = -(-max(i.shape[-2] for i in images) // divisor) * divisor
    width = -(-max(i.shape[-1] for i in images) // divisor) * divisor
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = image
    return batch
