"""Boxes as plain tensors: formats, areas, overlaps, clipping and scaling.

The format inside the library is continuous `xyxy` (docs/conventions.md); the others live in files and codecs. All of
it is differentiable torch arithmetic for any device. Overlaps come in one form, between boxes that broadcast
(`box_overlap`); the pairwise forms lay two sets of boxes across each other, and `bestiary.ops` has their fast forms.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import require

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; top-left corner and size; centre and size."""

FORMATS: tuple[str, ...] = ("xyxy", "xywh", "cxcywh")

ASPECT_FACTOR = 4 / math.pi**2
"""Brings the greatest squared difference of `aspect_angle` to 1."""


def xywh_to_xyxy(boxes_xywh: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Top-left corner and size to corners."""
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Corners to top-left corner and size."""
    return torch.cat([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Shaped[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Centre and size to corners; whole numbers become float32, as halves of odd sizes are none."""
    boxes_cxcywh = floating(boxes_cxcywh)
    half = 0.5 * boxes_cxcywh[..., 2:]
    return torch.cat([boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half], dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Corners to centre and size; whole numbers become float32."""
    boxes_xyxy = floating(boxes_xyxy)
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


def inclusive_to_continuous(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Shaped[Tensor, "*N 4"]:
    """Boxes whose ends are pixel indices, both included, as the continuous boxes those pixels cover.

    Pixel i reaches from i to i + 1, so that the width x2 - x1 + 1 of the inclusive form is the difference of the ends.
    """
    return torch.cat([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] + 1], dim=-1)


def floating(boxes: Shaped[Tensor, "*N _k"]) -> Float[Tensor, "*N _k"]:
    """Whole numbers as float32; floating point as it is."""
    return boxes if boxes.is_floating_point() else boxes.float()


def at_least_float32(boxes: Shaped[Tensor, "*N _k"]) -> Float[Tensor, "*N _k"]:
    """Half precision and integers as float32, so that products of coordinates neither overflow nor lose pixels."""
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_area(boxes_xyxy: Shaped[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Width times height, square pixels."""
    boxes_xyxy = at_least_float32(boxes_xyxy)
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def box_overlap(
    boxes1: Shaped[Tensor, "*#P 4"], boxes2: Shaped[Tensor, "*#P 4"]
) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
    """Area that both cover and area that either covers, square pixels, of `xyxy` boxes whose leading axes broadcast."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    low, high = torch.maximum(boxes1[..., :2], boxes2[..., :2]), torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    size = (high - low).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    return inter, box_area(boxes1) + box_area(boxes2) - inter


def box_overlap_ratio(boxes1: Shaped[Tensor, "*#P 4"], boxes2: Shaped[Tensor, "*#P 4"]) -> Float[Tensor, "*P"]:
    """Intersection over union, 0..1; NaN where both boxes are empty (0 / 0)."""
    inter, union = box_overlap(boxes1, boxes2)
    return inter / union


def hull_size(boxes1: Shaped[Tensor, "*#P 4"], boxes2: Shaped[Tensor, "*#P 4"]) -> Float[Tensor, "*P 2"]:
    """Width and height of the smallest box around both, pixels."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    low, high = torch.minimum(boxes1[..., :2], boxes2[..., :2]), torch.maximum(boxes1[..., 2:], boxes2[..., 2:])
    return (high - low).clamp(min=0)


def centre_penalty(
    boxes1: Shaped[Tensor, "*#P 4"], boxes2: Shaped[Tensor, "*#P 4"], eps: int | float
) -> Float[Tensor, "*P"]:
    """Squared distance of the centres over the squared diagonal of the hull plus `eps` (DIoU, equation 7)."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    diagonal = hull_size(boxes1, boxes2).square().sum(-1) + eps
    apart = (boxes1[..., :2] + boxes1[..., 2:]) / 2 - (boxes2[..., :2] + boxes2[..., 2:]) / 2
    return apart.square().sum(-1) / diagonal


def aspect_penalty(
    boxes1: Shaped[Tensor, "*#P 4"], boxes2: Shaped[Tensor, "*#P 4"], iou: Float[Tensor, "*P"], eps: int | float
) -> Float[Tensor, "*P"]:
    """alpha v of CIoU (Zheng et al., AAAI 2020, equations 9 to 11); alpha is a constant to the gradient.

    The angle arctan(w / h) is taken of the pair (w, h), so that it exists without height; a point has 0.
    """
    v = ASPECT_FACTOR * (aspect_angle(boxes1) - aspect_angle(boxes2)).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return alpha * v


def aspect_angle(boxes: Shaped[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """arctan(w / h), radians; a box without height has pi / 2, a point 0."""
    size = at_least_float32(boxes)[..., 2:] - at_least_float32(boxes)[..., :2]
    # atan2's gradient at a point is 0 / 0: there the height is taken as 1 and the angle is the same.
    point = (size == 0).all(-1)
    return torch.atan2(size[..., 0], torch.where(point, torch.ones_like(size[..., 1]), size[..., 1]))


def across(
    boxes1: Shaped[Tensor, "*B N K"], boxes2: Shaped[Tensor, "*B M K"]
) -> tuple[Shaped[Tensor, "*B N 1 K"], Shaped[Tensor, "*B 1 M K"]]:
    """Two sets laid across each other: they broadcast to every pair."""
    return boxes1[..., :, None, :], boxes2[..., None, :, :]


def pairwise_intersection(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"]
) -> Float[Tensor, "*B N M"]:
    """Area that each box of the first set shares with each of the second, square pixels."""
    return box_overlap(*across(boxes1, boxes2))[0]


def pairwise_iou(boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"]) -> Float[Tensor, "*B N M"]:
    """Intersection over union, 0..1; NaN where both boxes are empty (0 / 0), as in torchvision."""
    return box_overlap_ratio(*across(boxes1, boxes2))


def pairwise_generalized_iou(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"]
) -> Float[Tensor, "*B N M"]:
    """IoU minus the uncovered share of the smallest enclosing box: -1..1 (Rezatofighi et al., CVPR 2019, alg. 1)."""
    pair = across(boxes1, boxes2)
    (inter, union), hull = box_overlap(*pair), hull_size(*pair).prod(-1)
    return inter / union - (hull - union) / hull


def pairwise_distance_iou(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"], eps: int | float = 1e-7
) -> Float[Tensor, "*B N M"]:
    """IoU minus `centre_penalty`: -1..1 (Zheng et al., Distance-IoU loss, AAAI 2020, equation 7)."""
    pair = across(boxes1, boxes2)
    return box_overlap_ratio(*pair) - centre_penalty(*pair, eps)


def pairwise_complete_iou(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"], eps: int | float = 1e-7
) -> Float[Tensor, "*B N M"]:
    """IoU minus `centre_penalty` and `aspect_penalty` (Zheng et al., Distance-IoU loss, AAAI 2020, equation 8)."""
    pair = across(boxes1, boxes2)
    iou = box_overlap_ratio(*pair)
    return iou - centre_penalty(*pair, eps) - aspect_penalty(*pair, iou, eps)


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
