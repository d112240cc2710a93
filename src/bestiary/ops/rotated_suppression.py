"""Non-maximum suppression of rotated boxes (cx, cy, w, h, degrees).

Convention: as `nms` of upright boxes (strictly above the threshold goes, equal scores rank by index), with the overlap
of `rotated_box_iou`, in which empty boxes overlap nothing.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from bestiary.geometry.rotated_boxes import rotated_rectangles
from bestiary.ops.eager import runs_eagerly
from bestiary.ops.rotated import _pairwise_iou, require_boxes5
from bestiary.ops.suppression import (
    compact_groups,
    descending_order,
    require_candidates,
    require_groups,
    rounded_down,
    suppressed_in_torch,
)


def rotated_nms(
    boxes: Float[Tensor, "N 5"], scores: Float[Tensor, " N"], iou_threshold: int | float
) -> Int64[Tensor, " K"]:
    """Indices of the rotated boxes that survive, by descending score.

    Args:
        boxes: (cx, cy, w, h, degrees).
        scores: higher is better.
        iou_threshold: IoU strictly above it suppresses; 0 or more.

    Raises:
        RecordError: shapes do not fit, or a negative threshold.
    """
    require_boxes5("rotated_nms(boxes)", boxes)
    require_candidates("rotated_nms", boxes, scores, iou_threshold)
    if runs_eagerly(boxes, scores):
        return _suppressed(boxes, scores, None, float(iou_threshold))
    return _rotated_nms(boxes, scores, None, float(iou_threshold))


def batched_rotated_nms(
    boxes: Float[Tensor, "N 5"], scores: Float[Tensor, " N"], idxs: Int[Tensor, " N"], iou_threshold: int | float
) -> Int64[Tensor, " K"]:
    """Like `rotated_nms`, but boxes of different groups never suppress each other.

    Args:
        boxes: (cx, cy, w, h, degrees).
        scores: higher is better.
        idxs: group of each box, any integers.
        iou_threshold: IoU strictly above it suppresses; 0 or more.

    Raises:
        RecordError: shapes do not fit, or a negative threshold.
    """
    require_boxes5("batched_rotated_nms(boxes)", boxes)
    require_candidates("batched_rotated_nms", boxes, scores, iou_threshold)
    require_groups("batched_rotated_nms", scores, idxs)
    if runs_eagerly(boxes, scores, idxs):
        return _suppressed(boxes, scores, idxs, float(iou_threshold))
    return _rotated_nms(boxes, scores, idxs, float(iou_threshold))


@torch.library.custom_op("bestiary::rotated_nms", mutates_args=())
def _rotated_nms(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    return _suppressed(boxes, scores, idxs, iou_threshold)


@_rotated_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _suppressed(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    rows = rotated_rectangles(boxes.detach())
    threshold = rounded_down(iou_threshold, rows.dtype)
    if rows.is_cpu:
        return _suppressed_by_kernel(rows, scores, idxs, threshold)
    return suppressed_in_torch(
        lambda better, others: _pairwise_iou(rows[better], rows[others]), scores, idxs, threshold
    )


def _suppressed_by_kernel(rows: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float) -> Tensor:
    from bestiary.ops._kernels.rotated import suppress_rotated

    order = descending_order(scores)
    starts, grouped = np.array([0, len(order)]), torch.arange(len(order))
    if idxs is not None:
        groups, low, count = compact_groups(idxs[order])
        grouped = torch.from_numpy(np.argsort(groups, kind="stable"))
        starts = np.concatenate([[0], np.cumsum(np.bincount(groups - low, minlength=count))]).astype(np.int64)
    sorted_rows = rows[order[grouped]].contiguous().numpy()
    keep, kept = torch.empty(len(order), dtype=torch.bool), torch.empty(len(order), dtype=torch.bool)
    suppress_rotated(sorted_rows, starts, sorted_rows.dtype.type(threshold), kept.numpy())
    keep[grouped] = kept
    return order[keep]
