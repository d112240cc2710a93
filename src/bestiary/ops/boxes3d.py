"""Overlaps of boxes in space, turned about the vertical.

Convention: as in `records.Objects.boxes_3d`: centre x, y, z, then length, height, width (metres; x right, y down, z
forward) and yaw about the downward y axis (radians). At yaw 0 the length lies along x and the width along z; a quarter
turn takes x to -z. Seen from above, a box is the rotated box (x, z, length, width, yaw). Negative sides count as 0.
Half precision is computed in float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.geometry.boxes import at_least_float32
from bestiary.geometry.cameras import boxes_3d_corners
from bestiary.geometry.rotated_boxes import area_ratio, rectangles
from bestiary.ops.eager import in_row_chunks
from bestiary.ops.rotated import pairwise_shared_area, rectangle_area
from bestiary.records import require


def box3d_corners(boxes: Float[Tensor, "N 7"]) -> Float[Tensor, "N 8 3"]:
    """Corners of each box, metres; differentiable.

    Convention: corner `4 a + 2 b + c` is at the end of the length where a is 1, at the bottom where b is 1, and at the
    far end of the width where c is 1.

    Raises:
        RecordError: boxes are not [N, 7].
    """
    _require_boxes7("box3d_corners(boxes)", boxes)
    return boxes_3d_corners(at_least_float32(boxes))


def box3d_iou(boxes1: Float[Tensor, "N 7"], boxes2: Float[Tensor, "M 7"]) -> Float[Tensor, "N M"]:
    """Intersection over union of the volumes of each pair, 0..1; differentiable.

    Convention: 0 where either box is empty, also where both are; boxes that touch have 0.

    Raises:
        RecordError: shapes do not fit.
    """
    return in_row_chunks(_volume_iou, *_two_sets("box3d_iou", boxes1, boxes2))


def birds_eye_iou(boxes1: Float[Tensor, "N 7"], boxes2: Float[Tensor, "M 7"]) -> Float[Tensor, "N M"]:
    """Intersection over union of each pair's footprints on the x-z plane, 0..1; differentiable.

    Convention: 0 where either box is empty, also where both are. Heights do not matter.

    Raises:
        RecordError: shapes do not fit.
    """
    return in_row_chunks(_footprint_iou, *_two_sets("birds_eye_iou", boxes1, boxes2))


def _require_boxes7(where: str, boxes: Tensor) -> None:
    require(boxes.ndim == 2 and boxes.shape[1] == 7, where, f"shape {tuple(boxes.shape)}", "(N, 7)")


def _two_sets(where: str, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as rows: the footprint's six numbers, top, bottom."""
    rows = []
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        _require_boxes7(f"{where}({name})", boxes)
        boxes = at_least_float32(boxes)
        footprint = rectangles(boxes[:, 0:3:2], boxes[:, 3:6:2], boxes[:, 6])
        half = boxes[:, 4:5].clamp(min=0) / 2
        rows.append(torch.cat([footprint, boxes[:, 1:2] - half, boxes[:, 1:2] + half], dim=1))
    return rows[0], rows[1]


def _footprint_iou(one: Tensor, other: Tensor) -> Tensor:
    shared = pairwise_shared_area(one[:, :6], other[:, :6])
    return area_ratio(shared, rectangle_area(one[:, :6])[:, None], rectangle_area(other[:, :6])[None])


def _volume_iou(one: Tensor, other: Tensor) -> Tensor:
    low, high = torch.maximum(one[:, None, 6], other[None, :, 6]), torch.minimum(one[:, None, 7], other[None, :, 7])
    shared = pairwise_shared_area(one[:, :6], other[:, :6]) * (high - low).clamp(min=0)
    volume1, volume2 = (rectangle_area(rows[:, :6]) * (rows[:, 7] - rows[:, 6]) for rows in (one, other))
    return area_ratio(shared, volume1[:, None], volume2[None])
