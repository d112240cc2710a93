"""Windows of one shape around objects of many: what detectors of a rigid template learn from and answer with."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


@dataclass(frozen=True)
class Template:
    """A window's size and where its object is: in the middle, with the same margin on all sides.

    Attributes:
        size_hw: of the window, pixels.
        margin: pixels around the object.

    Raises:
        UsageError: a margin below 0, or one that leaves no object.
    """

    size_hw: tuple[int, int]
    margin: int = 0

    def __post_init__(self) -> None:
        if self.margin < 0 or 2 * self.margin >= min(self.size_hw):
            got = f"a margin of {self.margin} in a window of {self.size_hw[1]} x {self.size_hw[0]}"
            raise UsageError(f"got {got}, wanted 0 or more and room for the object", where="margin")

    @property
    def object_hw(self) -> tuple[int, int]:
        """Size of the object within."""
        return self.size_hw[0] - 2 * self.margin, self.size_hw[1] - 2 * self.margin

    def scales_of(self, boxes_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, " N"]:
        """How many times larger than the template's object each box is, by the root of their areas."""
        height, width = self.object_hw
        sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
        return (sides.prod(1) / (height * width)).sqrt()

    def around(self, boxes_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, "N 4"]:
        """Windows for boxes of any shape: the centre is the box's, the object within has the box's area."""
        sides = boxes_xyxy.new_tensor([self.size_hw[1], self.size_hw[0]]) * self.scales_of(boxes_xyxy)[:, None]
        return cxcywh_to_xyxy(torch.cat([xyxy_to_cxcywh(boxes_xyxy)[:, :2], sides], dim=1))

    def within(self, windows_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, "N 4"]:
        """The objects of windows: each without its margin."""
        centres, sides = xyxy_to_cxcywh(windows_xyxy).split(2, dim=1)
        height, width = self.size_hw
        inner = sides * sides.new_tensor([1 - 2 * self.margin / width, 1 - 2 * self.margin / height])
        return cxcywh_to_xyxy(torch.cat([centres, inner], dim=1))


def template_for(
    boxes_xyxy: Float32[Tensor, "N 4"], areas: tuple[int, int], margin: int = 0, multiple: int = 1
) -> Template:
    """A template for a category's objects.

    Its aspect is the median of theirs (of logarithms, so that twice as wide and twice as tall balance), between 1 : 4
    and 4 : 1; its area is that which four fifths of them exceed, held between `areas`.

    Args:
        boxes_xyxy: at least one, with two positive sides.
        areas: least and largest area of the object within, square pixels.
        margin: pixels around the object.
        multiple: sides of the window are multiples of it.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).double()
    aspect = float((sides[:, 0] / sides[:, 1]).log().median().clamp(-math.log(4), math.log(4)).exp())
    area = float(sides.prod(1).quantile(0.2).clamp(*areas))
    width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    least = 2 * margin + 1
    size_hw = [max(-(-least // multiple), round((side + 2 * margin) / multiple)) * multiple for side in (height, width)]
    return Template((size_hw[0], size_hw[1]), margin)


def crop_window(
    image: UInt8[Tensor, "C H W"], window_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]
) -> UInt8[Tensor, "C h w"]:
    """The window's pixels at another size; beyond the border the picture goes on with its last pixels.

    Shrinking takes means over areas, so that a window is what it would be in a pyramid's level.
    """
    import cv2

    height, width = size_hw
    x1, y1, x2, y2 = window_xyxy
    step_x, step_y = (x2 - x1) / width, (y2 - y1) / height
    # Every pixel is looked at, then means are taken: one sample a pixel of the result would alias.
    factor = max(1, math.ceil(min(step_x, step_y)))
    xs = x1 + (np.arange(width * factor) + 0.5) * (step_x / factor) - 0.5
    ys = y1 + (np.arange(height * factor) + 0.5) * (step_y / factor) - 0.5
    columns, rows = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    found = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if factor > 1:
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA)
    found = found if found.ndim == 3 else found[..., None]
    return torch.from_numpy(np.ascontiguousarray(found)).permute(2, 0, 1).contiguous()
