"""Boxes as plain tensors: formats, areas, overlaps, clipping and scaling.

The format inside the library is continuous `xyxy` (docs/conventions.md); the others live in files and codecs.
Everything here is differentiable torch arithmetic for any device; `bestiary.ops` has the fast forms of the pairwise
overlaps.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import require

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; top-left corner and size; centre and size."""

FORMATS: tuple[str, ...] = ("xyxy", "xywh", "cxcywh")


def xywh_to_xyxy(boxes_xywh: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Top-left corner and size to corners."""
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Corners to top-left corner and size."""
    return torch.cat([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Centre and size to corners."""
    half = 0.5 * boxes_cxcywh[..., 2:]
    return torch.cat([boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half], dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Corners to centre and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def convert_boxes(boxes: Shaped[Tensor, "*N 4"], in_format: str, out_format: str) -> Shaped[Tensor, "*N 4"]:
    """Boxes of one format in another; a copy even if the two are equal.

    Raises:
        UsageError: a format is not one of `FORMATS`.
    """
    for name in (in_format, out_format):
        if name not in FORMATS:
            raise UsageError(f"got the box format {name!r}, wanted one of {', '.join(FORMATS)}", where="convert_boxes")
    if in_format == out_format:
        return boxes.clone()
    if in_format == "xywh":
        boxes = xywh_to_xyxy(boxes)
    elif in_format == "cxcywh":
        boxes = cxcywh_to_xyxy(boxes)
    if out_format == "xywh":
        return xyxy_to_xywh(boxes)
    return xyxy_to_cxcywh(boxes) if out_format == "cxcywh" else boxes


def at_least_float32(boxes: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Half precision and integers as float32, so that products of coordinates neither overflow nor lose pixels."""
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_area(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Width times height, square pixels."""
    boxes_xyxy = at_least_float32(boxes_xyxy)
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def pairwise_intersection(boxes1: Shaped[Tensor, "N 4"], boxes2: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Area that each box of the first set shares with each of the second, square pixels."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    low = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    size = (high - low).clamp(min=0)
    return size[..., 0] * size[..., 1]


def pairwise_iou(boxes1: Shaped[Tensor, "N 4"], boxes2: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union, 0..1; NaN where both boxes are empty (0 / 0), as in torchvision."""
    inter = pairwise_intersection(boxes1, boxes2)
    return inter / (box_area(boxes1)[:, None] + box_area(boxes2)[None] - inter)


def pairwise_generalized_iou(boxes1: Shaped[Tensor, "N 4"], boxes2: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """IoU minus the uncovered share of the smallest enclosing box: -1..1 (Rezatofighi et al., CVPR 2019, alg. 1)."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    inter = pairwise_intersection(boxes1, boxes2)
    union = box_area(boxes1)[:, None] + box_area(boxes2)[None] - inter
    low = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    size = (high - low).clamp(min=0)
    hull = size[..., 0] * size[..., 1]
    return inter / union - (hull - union) / hull


def clip_boxes(boxes_xyxy: Shaped[Tensor, "*N 4"], size_hw: tuple[int, int]) -> Shaped[Tensor, "*N 4"]:
    """The part of each box inside a picture; a box wholly outside becomes empty, on the border."""
    height, width = size_hw
    x, y = boxes_xyxy[..., 0::2].clamp(min=0, max=width), boxes_xyxy[..., 1::2].clamp(min=0, max=height)
    return torch.stack([x, y], dim=-1).reshape(boxes_xyxy.shape)


def scale_boxes(
    boxes_xyxy: Float[Tensor, "*N 4"], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> Float[Tensor, "*N 4"]:
    """Boxes of a picture of size `from_hw` in the same picture resized to `to_hw`."""
    require(min(from_hw) > 0, "scale_boxes(from_hw)", from_hw, "two positive sides")
    ratio_y, ratio_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    return boxes_xyxy * boxes_xyxy.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])


def large_enough(boxes_xyxy: Shaped[Tensor, "N 4"], min_size: int | float) -> Int64[Tensor, " K"]:
    """Indices, ascending, of the boxes of which both sides are at least `min_size` pixels."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return (sides >= min_size).all(dim=1).nonzero()[:, 0]
