"""A picture at many sizes, for detectors whose window has one size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from bestiary.records import Record, require


@dataclass(frozen=True, eq=False)
class Level(Record):
    """A picture at one size.

    Attributes:
        image: resized.
        scale: what it was asked for: sides by sides of the original.
        ratio_yx: what it has, since sides are whole numbers.
    """

    image: UInt8[Tensor, "C H W"]
    scale: float
    ratio_yx: tuple[float, float]

    def to_picture(self, boxes_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, "N 4"]:
        """Boxes of this level in pixels of the original."""
        y, x = self.ratio_yx
        return boxes_xyxy / boxes_xyxy.new_tensor([x, y, x, y])


def pyramid_scales(
    size_hw: tuple[int, int], window_hw: tuple[int, int], step: float | int, largest: float | int = 1.0
) -> list[float]:
    """Scales from `largest` down, each `step` times smaller, at which a window fits into the picture.

    Args:
        size_hw: of the picture.
        window_hw: of the window.
        step: above 1.
        largest: first scale; above 1 enlarges the picture, which finds objects smaller than the window.

    Raises:
        RecordError: a step of 1 or less, or a largest scale that is not above 0.
    """
    require(step > 1, "pyramid_scales(step)", step, "more than 1")
    require(largest > 0, "pyramid_scales(largest)", largest, "more than 0")
    scales, scale = [], float(largest)
    while all(round(side * scale) >= least for side, least in zip(size_hw, window_hw, strict=True)):
        scales.append(scale)
        scale = float(largest) * float(step) ** -len(scales)
    return scales


def at_scale(image: UInt8[Tensor, "C H W"], scale: float | int) -> Level:
    """The picture resized: smaller by the mean of the area, larger bilinearly."""
    import cv2

    height, width = image.shape[1:]
    size_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    ratio = (size_hw[0] / height, size_hw[1] / width)
    if size_hw == (height, width):
        return Level(image, float(scale), ratio)
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, size_hw[::-1], interpolation=way)
    resized = resized if resized.ndim == 3 else resized[..., None]
    return Level(torch.from_numpy(resized).permute(2, 0, 1).contiguous(), float(scale), ratio)
