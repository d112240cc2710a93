"""Windows of a labelled picture: around its objects, cut out at one size, and their scores put back.

What lies outside a picture is black, and has no label.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.layers.scaling import as_float
from bestiary.ops.components import connected_components
from bestiary.records import IGNORE_LABEL
from bestiary.transforms.warp import Warp

Window = tuple[int, int, int, int]
"""Left, top, right and bottom, whole pixels; may reach beyond the picture."""


@dataclass(frozen=True, eq=False)
class LabelledObjects:
    """The N connected parts of a label map that have one class each.

    Attributes:
        boxes_xyxy: tight.
        labels: their classes.
        numbers: of the object at each pixel, from 1; 0 for none.
    """

    boxes_xyxy: Float32[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    numbers: Int32[Tensor, "H W"]


def objects_of(
    label_map: UInt8[Tensor, "H W"], background: int | None = None, least_share: int | float = 0.005
) -> LabelledObjects:
    """The connected parts of every class, class by class.

    Args:
        label_map: classes.
        background: the class that is no object, if there is one.
        least_share: of the picture's pixels; smaller parts are left out.
    """
    boxes, labels = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]
    numbers = torch.zeros(label_map.shape, dtype=torch.int32)
    plain, count = label_map.cpu(), 0
    for label in plain.unique().tolist():
        if label in (IGNORE_LABEL, background):
            continue
        parts = connected_components(plain == label)
        large = (parts.areas >= least_share * plain.numel()).nonzero()[:, 0]
        own = torch.zeros(len(parts) + 1, dtype=torch.int32)
        own[large + 1] = torch.arange(count + 1, count + 1 + len(large), dtype=torch.int32)
        numbers += own[parts.label_map.long()]
        boxes.append(parts.boxes_xyxy[large])
        labels.append(torch.full((len(large),), label))
        count += len(large)
    device = label_map.device
    return LabelledObjects(torch.cat(boxes).to(device), torch.cat(labels).to(device), numbers.to(device))


def widened(box_xyxy: Float[Tensor, "4"], factor: int | float) -> Float[Tensor, "4"]:
    """The box so many times as wide and high about the same centre."""
    centre, half = (box_xyxy[:2] + box_xyxy[2:]) / 2, (box_xyxy[2:] - box_xyxy[:2]) * factor / 2
    return torch.cat([centre - half, centre + half])


def whole_pixels(box_xyxy: Float[Tensor, "4"]) -> Window:
    """The pixels that the box touches, one at least each way."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    left, top = math.floor(x1), math.floor(y1)
    return left, top, max(left + 1, math.ceil(x2)), max(top + 1, math.ceil(y2))


def cut_window(image: Shaped[Tensor, "C H W"], window: Window, side: int) -> Float[Tensor, "C S S"]:
    """The window at `side` x `side` pixels, whatever its proportions: bilinear, antialiased; 0..1."""
    left, top, right, bottom = window
    height, width = int(image.shape[-2]), int(image.shape[-1])
    inside = as_float(image[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)])
    around = [max(0, -left), max(0, right - max(width, left)), max(0, -top), max(0, bottom - max(height, top))]
    cut = F.pad(inside, around)
    return F.interpolate(cut[None], size=(side, side), mode="bilinear", antialias=True)[0]


def window_warp(size_hw: tuple[int, int], window: Window, side: int) -> Warp:
    """The map that takes a picture's truth to what `cut_window` makes of the picture."""
    left, top, right, bottom = window
    across, down = side / (right - left), side / (bottom - top)
    matrix = np.array([[across, 0, -left * across], [0, down, -top * down]])
    inside = max(0, left), max(0, top), min(size_hw[1], right), min(size_hw[0], bottom)
    return Warp(matrix, size_hw, (side, side), inside, 0.0)


def put_maximum(canvas: Float[Tensor, "K H W"], scores: Float[Tensor, "K S S"], window: Window) -> None:
    """Raise the canvas, in place, to the scores, brought to the window's size, where they are higher."""
    left, top, right, bottom = window
    height, width = int(canvas.shape[-2]), int(canvas.shape[-1])
    y1, y2, x1, x2 = max(0, top), min(height, bottom), max(0, left), min(width, right)
    if y1 >= y2 or x1 >= x2:
        return
    size = (bottom - top, right - left)
    resized = F.interpolate(scores[None], size=size, mode="bilinear", antialias=True)[0]
    part = canvas[:, y1:y2, x1:x2]
    torch.maximum(part, resized[:, y1 - top : y2 - top, x1 - left : x2 - left], out=part)
