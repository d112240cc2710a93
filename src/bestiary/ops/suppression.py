"""Non-maximum suppression: greedy by score, a box goes if its IoU with a better kept one is above the threshold.

"Above" is strict, as in torchvision's CPU operator: a box exactly at the threshold stays. Equal scores rank by index,
lower first, so that the answer is one and the same on every run and device.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from bestiary.geometry.boxes import at_least_float32, pairwise_iou
from bestiary.ops.exporting import exporting
from bestiary.ops.overlaps import require_boxes4
from bestiary.records import require

_BLOCK = 1024
"""Boxes judged at once by the plain torch path: bounds its memory to block x kept."""


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], iou_threshold: int | float) -> Int64[Tensor, " K"]:
    """Indices of the boxes that survive, by descending score.

    Args:
        boxes: `xyxy`.
        scores: higher is better.
        iou_threshold: IoU strictly above it suppresses. Two empty boxes have no IoU and never suppress each other.

    Raises:
        RecordError: shapes do not fit.
    """
    _require("nms", boxes, scores)
    return _nms(boxes, scores, float(iou_threshold))


def batched_nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], idxs: Int[Tensor, " N"], iou_threshold: int | float
) -> Int64[Tensor, " K"]:
    """Like `nms`, but boxes of different groups (classes, pyramid levels, pictures) never suppress each other.

    Groups are compared by index, not by shifting boxes apart, so that no precision is lost; only in exported graphs,
    for want of such an operator, they are shifted.

    Args:
        boxes: `xyxy`.
        scores: higher is better.
        idxs: group of each box.
        iou_threshold: IoU strictly above it suppresses.

    Raises:
        RecordError: shapes do not fit.
    """
    _require("batched_nms", boxes, scores)
    require(idxs.shape == scores.shape, "batched_nms(idxs)", f"shape {tuple(idxs.shape)}", f"{tuple(scores.shape)}")
    if exporting():
        return _nms(_shifted_apart(boxes, idxs), scores, float(iou_threshold))
    return _batched_nms(boxes, scores, idxs, float(iou_threshold))


def _require(where: str, boxes: Tensor, scores: Tensor) -> None:
    require_boxes4(f"{where}(boxes)", boxes)
    require(scores.ndim == 1, f"{where}(scores)", f"shape {tuple(scores.shape)}", "(N,)")
    # One message for both: which of the two is wrong cannot be known.
    fits = scores.shape[0] == boxes.shape[0]
    require(fits, f"{where}(boxes, scores)", f"{boxes.shape[0]} boxes and {scores.shape[0]} scores", "as many of each")


def _shifted_apart(boxes: Tensor, idxs: Tensor) -> Tensor:
    """Boxes moved by a stride per group that exceeds their common extent; also right for no boxes at all."""
    ends = torch.cat([boxes.flatten(), boxes.new_zeros(1)])
    stride = ends.max() - ends.min() + 1
    return boxes + (idxs.to(boxes.dtype) * stride)[:, None]


@torch.library.custom_op("bestiary::nms", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[_survivors(boxes[order], None, iou_threshold)]


@torch.library.custom_op("bestiary::batched_nms", mutates_args=())
def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    order = torch.sort(scores, descending=True, stable=True).indices
    by_group = torch.sort(idxs[order], stable=True)
    grouped = order[by_group.indices]
    keep = torch.empty(len(order), dtype=torch.bool, device=boxes.device)
    keep[by_group.indices] = _survivors(boxes[grouped], by_group.values, iou_threshold)
    return order[keep]


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@_batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _survivors(
    boxes: Float[Tensor, "N 4"], groups: Int[Tensor, " N"] | None, iou_threshold: float
) -> Bool[Tensor, " N"]:
    """Which boxes, sorted by group and then by descending score, survive within their group."""
    boxes = at_least_float32(boxes)
    threshold = rounded_down(iou_threshold, boxes.dtype)
    if boxes.device.type == "cpu":
        return _survivors_by_kernel(boxes, groups, threshold)
    return survivors_in_torch(boxes, groups, threshold)


def rounded_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of `dtype` not above the threshold.

    An overlap of that type is above the one exactly when it is above the other; rounding to nearest would let 0.1 in
    float32 (which is more than 0.1) stand at a threshold of 0.1.
    """
    nearest = torch.tensor(threshold, dtype=dtype)
    if float(nearest) > threshold:
        nearest = torch.nextafter(nearest, torch.tensor(-math.inf, dtype=dtype))
    return float(nearest)


def _survivors_by_kernel(
    boxes: Float[Tensor, "N 4"], groups: Int[Tensor, " N"] | None, threshold: float
) -> Bool[Tensor, " N"]:
    import numpy as np

    from bestiary.ops._kernels.suppression import suppress

    count = len(boxes)
    starts = np.array([0, count])
    if groups is not None and count:
        changes = (groups[1:] != groups[:-1]).nonzero()[:, 0] + 1
        starts = np.concatenate([[0], changes.numpy(), [count]])
    columns = boxes.detach().t().contiguous().numpy()
    keep = torch.empty(count, dtype=torch.bool)
    suppress(columns, starts, columns.dtype.type(threshold), keep.numpy())
    return keep


def survivors_in_torch(
    boxes: Float[Tensor, "N 4"], groups: Int[Tensor, " N"] | None, threshold: float
) -> Bool[Tensor, " N"]:
    """`_survivors` in plain torch, for any device.

    Block by block: first the kept boxes of earlier blocks suppress, then, within the block, suppression is repeated
    until it changes nothing. After t rounds the first t boxes are settled, and few rounds suffice in practice.
    """
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), _BLOCK):
        block = slice(start, start + _BLOCK)
        earlier = keep[:start].nonzero()[:, 0]
        alive = ~_overlapping(boxes, groups, earlier, block, threshold).any(dim=0)
        everyone = torch.arange(start, start + len(alive), device=boxes.device)
        inner = _overlapping(boxes, groups, everyone, block, threshold).triu(diagonal=1)
        kept = alive
        while True:
            settled = alive & ~(inner & kept[:, None]).any(dim=0)
            if torch.equal(settled, kept):
                break
            kept = settled
        keep[block] = kept
    return keep


def _overlapping(
    boxes: Float[Tensor, "N 4"],
    groups: Int[Tensor, " N"] | None,
    better: Int64[Tensor, " P"],
    block: slice,
    threshold: float,
) -> Bool[Tensor, "P Q"]:
    over = pairwise_iou(boxes[better], boxes[block]) > threshold
    return over if groups is None else over & (groups[better][:, None] == groups[block][None])
