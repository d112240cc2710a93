"""Overlaps of rotated boxes, differentiable, and in threads where no gradient is asked for.

Convention: a box is (cx, cy, w, h, degrees); the angle turns it counter-clockwise as one sees the picture (y points
down), so that the width lies along (cos a, -sin a). This is torchvision's "cxcywhr" and Detectron2's rotated
box as they are; OpenCV's angle is the negative of it. An angle may be any number; (w, h, a) and (h, w, a + 90) are the
same box.
"""

from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.geometry.rotated_boxes import area_ratio, rotated_corners, rotated_rectangles, shared_area
from bestiary.ops.eager import in_row_chunks, in_row_threads, runs_eagerly, wants_gradient
from bestiary.records import require


def require_boxes5(where: str, boxes: Tensor) -> None:
    """Raise `RecordError` unless `boxes` is [..., N, 5]."""
    if boxes.ndim < 2 or boxes.shape[-1] != 5:
        require(False, where, f"shape {tuple(boxes.shape)}", "(..., N, 5)")


def rotated_box_corners(boxes: Shaped[Tensor, "*N 5"]) -> Float[Tensor, "*N 4 2"]:
    """x and y of each box's corners: top left, top right, bottom right, bottom left at angle 0, pixels; differentiable.

    Convention: degrees, counter-clockwise as one sees the picture. Half precision and whole numbers give float32.

    Raises:
        RecordError: the last axis is not 5 long.
    """
    require(boxes.shape[-1:] == (5,), "rotated_box_corners(boxes)", f"shape {tuple(boxes.shape)}", "(..., 5)")
    return rotated_corners(boxes)


def rotated_box_iou(boxes1: Shaped[Tensor, "*B N 5"], boxes2: Shaped[Tensor, "*B M 5"]) -> Float[Tensor, "*B N M"]:
    """Intersection over union of each pair of rotated boxes (cx, cy, w, h, degrees), 0..1; differentiable.

    The shared area is an integral along one box's boundary in the frame of the other: exact up to rounding, also where
    boxes coincide, touch, share a side or have no area.

    Convention: 0 where either box is empty, also where both are (torchvision's rotated operator); negative sides count
    as 0. Half precision and whole numbers are computed in float32.

    Raises:
        RecordError: shapes do not fit.
    """
    require_boxes5("rotated_box_iou(boxes1)", boxes1)
    require_boxes5("rotated_box_iou(boxes2)", boxes2)
    same = boxes1.shape[:-2] == boxes2.shape[:-2]
    got = f"{tuple(boxes1.shape[:-2])} and {tuple(boxes2.shape[:-2])}"
    require(same, "rotated_box_iou(boxes1, boxes2)", got, "equal batch axes")
    return in_row_chunks(_pairwise_iou, rotated_rectangles(boxes1), rotated_rectangles(boxes2))


def _pairwise_iou(one: Float[Tensor, "*B N 6"], other: Float[Tensor, "*B M 6"]) -> Float[Tensor, "*B N M"]:
    shared = pairwise_shared_area(one, other)
    return area_ratio(shared, rectangle_area(one)[..., None], rectangle_area(other)[..., None, :])


def rectangle_area(rows: Float[Tensor, "*N 6"]) -> Float[Tensor, "*N"]:
    """Area of rows (x, y, half width, half height, cosine, sine)."""
    return 4 * rows[..., 2] * rows[..., 3]


def pairwise_shared_area(one: Float[Tensor, "*B N 6"], other: Float[Tensor, "*B M 6"]) -> Float[Tensor, "*B N M"]:
    """Area shared by each pair of rows (x, y, half width, half height, cosine, sine) of one type; differentiable."""
    eager = runs_eagerly(one, other) and one.dtype == other.dtype and not wants_gradient(one, other)
    if not eager:
        return shared_area(one[..., :, None, :], other[..., None, :, :])
    from bestiary.ops._kernels.rotated import shared_rows

    return in_row_threads(shared_rows, one, other, 8192)
