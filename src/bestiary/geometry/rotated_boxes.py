"""Boxes turned about their centres: formats, corners, and the area that two of them share.

A box is `cxcywhr`: centre, width, height, and an angle in degrees, counter-clockwise as one sees the picture (y points
down). Its width lies along (cos a, -sin a), its height along (sin a, cos a).
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import at_least_float32, floating

ROTATED_FORMATS: tuple[str, ...] = ("cxcywhr", "xywhr", "xyxyxyxy")
"""Centre, size, angle; the corner that is top left at angle 0, size, angle; four corners, clockwise from that one."""

_SIGNS = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
"""Corners in halves of width and height: top left, top right, bottom right, bottom left at angle 0."""


def _directions(degrees: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N 2"], Float[Tensor, "*N 2"]]:
    radians = degrees * (math.pi / 180)
    cos, sin = torch.cos(radians), torch.sin(radians)
    return torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)


def rotated_corners(boxes_cxcywhr: Shaped[Tensor, "*N 5"]) -> Float[Tensor, "*N 4 2"]:
    """x and y of the corners that lie top left, top right, bottom right and bottom left at angle 0."""
    boxes = at_least_float32(boxes_cxcywhr)
    along, down = _directions(boxes[..., 4])
    half_way, half_down = along * boxes[..., 2:3], down * boxes[..., 3:4]
    return torch.stack([boxes[..., :2] + x * half_way + y * half_down for x, y in _SIGNS], dim=-2)


def _from_corners(corners: Float[Tensor, "*N 8"]) -> Float[Tensor, "*N 5"]:
    first, second, third, fourth = corners.unflatten(-1, (4, 2)).unbind(-2)
    along, down = second - first, third - second
    degrees = torch.atan2(-along[..., 1], along[..., 0]) * (180 / math.pi)
    sizes = torch.stack([torch.linalg.norm(along, dim=-1), torch.linalg.norm(down, dim=-1), degrees], dim=-1)
    return torch.cat([(first + second + third + fourth) / 4, sizes], dim=-1)


def _turned_corner(boxes: Float[Tensor, "*N 5"], sign: int) -> Float[Tensor, "*N 5"]:
    """The centre moved by half the diagonal: -1 to the first corner, 1 back."""
    along, down = _directions(boxes[..., 4])
    half = (along * boxes[..., 2:3] + down * boxes[..., 3:4]) / 2
    return torch.cat([boxes[..., :2] + sign * half, boxes[..., 2:]], dim=-1)


def convert_rotated_boxes(boxes: Shaped[Tensor, "*N _k"], in_format: str, out_format: str) -> Shaped[Tensor, "*N _l"]:
    """Rotated boxes of one format in another; a copy even if the two are equal. Whole numbers become float32.

    Four corners that form no rectangle become the one with their mean, the first two sides' lengths and the first
    side's direction.

    Raises:
        UsageError: a format is not one of `ROTATED_FORMATS`.
    """
    for name in (in_format, out_format):
        if name not in ROTATED_FORMATS:
            wanted = f"wanted one of {', '.join(ROTATED_FORMATS)}"
            raise UsageError(f"got the box format {name!r}, {wanted}", where="convert_rotated_boxes")
    if in_format == out_format:
        return boxes.clone()
    boxes = floating(boxes)
    if in_format == "xywhr":
        boxes = _turned_corner(boxes, 1)
    elif in_format == "xyxyxyxy":
        boxes = _from_corners(boxes)
    if out_format == "xywhr":
        return _turned_corner(boxes, -1)
    return rotated_corners(boxes).flatten(-2).to(boxes.dtype) if out_format == "xyxyxyxy" else boxes


def rectangles(
    centre: Float[Tensor, "*N 2"], sides: Float[Tensor, "*N 2"], radians: Float[Tensor, "*N"]
) -> Float[Tensor, "*N 6"]:
    """Rows (x, y, half width, half height, cosine, sine): what `shared_area` takes. Negative sides count as 0."""
    angle = torch.stack([torch.cos(radians), torch.sin(radians)], dim=-1)
    return torch.cat([centre, sides.clamp(min=0) / 2, angle], dim=-1)


def rotated_rectangles(boxes_cxcywhr: Shaped[Tensor, "*N 5"]) -> Float[Tensor, "*N 6"]:
    """`rectangles` of boxes (cx, cy, w, h, degrees)."""
    boxes = at_least_float32(boxes_cxcywhr)
    return rectangles(boxes[..., :2], boxes[..., 2:4], boxes[..., 4] * (math.pi / 180))


def shared_area(one: Float[Tensor, "*#P 6"], other: Float[Tensor, "*#P 6"]) -> Float[Tensor, "*P"]:
    """Area that two rectangles share, whose leading axes broadcast.

    In the frame of the first, which is |x| <= a and |y| <= b, the area under clamp(y, -b, b) along the boundary of the
    second, within |x| <= a, is the area shared. No corner is sorted and nothing is decided by a sign, so that the
    result is continuous also where the rectangles touch, coincide or are empty. Differentiable almost everywhere.
    """
    x, y, half_width, half_height, cos, sin = other.unbind(-1)
    x0, y0, a, b, cos0, sin0 = one.unbind(-1)
    far_x, far_y = x - x0, y - y0
    x, y = far_x * cos0 - far_y * sin0, far_x * sin0 + far_y * cos0
    cos, sin = cos * cos0 + sin * sin0, sin * cos0 - cos * sin0
    along_x, along_y = half_width * cos, half_width * sin
    down_x, down_y = half_height * sin, half_height * cos
    corners = [
        (x - along_x - down_x, y + along_y - down_y),
        (x + along_x - down_x, y - along_y - down_y),
        (x + along_x + down_x, y - along_y + down_y),
        (x - along_x + down_x, y + along_y + down_y),
    ]
    area = torch.zeros_like(corners[0][0])
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        area = area - _area_under(*start, *end, a, b)
    # Boxes that a line along some side separates share nothing, not even what rounding would leave.
    apart = x.abs() >= a + along_x.abs() + down_x.abs()
    apart = apart | (y.abs() >= b + along_y.abs() + down_y.abs())
    apart = apart | ((x * cos - y * sin).abs() >= half_width + a * cos.abs() + b * sin.abs())
    apart = apart | ((x * sin + y * cos).abs() >= half_height + a * sin.abs() + b * cos.abs())
    return torch.where(apart, 0, area).clamp(min=0)


def _area_under(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Integral of clamp(y, -b, b) dx along a line, within |x| <= a."""
    run, rise = x1 - x0, y1 - y0
    left, right = torch.clamp(x0, -a, a), torch.clamp(x1, -a, a)
    run_or_one = torch.where(run == 0, torch.ones_like(run), run)
    begin = y0 + ((left - x0) / run_or_one).clamp(0, 1) * rise
    end = y1 - ((x1 - right) / run_or_one).clamp(0, 1) * rise
    # Of the way, a part lies beyond one bound, where the height is constant, then a part between, then a part beyond.
    low, high = torch.clamp(begin, -b, b), torch.clamp(end, -b, b)
    climb = end - begin
    climb_or_one = torch.where(climb == 0, torch.ones_like(climb), climb)
    before, after = ((low - begin) / climb_or_one).clamp(0, 1), ((end - high) / climb_or_one).clamp(0, 1)
    mean = (low + high) / 2 + (before - after) * (low - high) / 2
    return (right - left) * mean


def area_ratio(
    shared: Float[Tensor, "*P"], area1: Float[Tensor, "*#P"], area2: Float[Tensor, "*#P"]
) -> Float[Tensor, "*P"]:
    """Intersection over union, 0..1, of areas or volumes; 0 where either is empty, also where both are."""
    union = area1 + area2 - shared
    positive = union > 0
    return torch.where(positive, shared / torch.where(positive, union, torch.ones_like(union)), 0).clamp(max=1)
