"""Non-maximum suppression: greedy by score, a box goes if its IoU with a better kept one is above the threshold.

Convention: "above" is strict, as in torchvision's CPU operator: a box exactly at the threshold stays. Equal scores rank
by index, lower first, NaN before all numbers, so that the answer is one and the same on every run and device. Two empty
boxes have no IoU and never suppress each other. Half precision is computed in float32.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from bestiary.geometry.boxes import at_least_float32, inclusive_to_continuous, pairwise_iou
from bestiary.ops.eager import runs_eagerly
from bestiary.ops.exporting import exporting
from bestiary.ops.overlaps import require_boxes4
from bestiary.records import require

_BLOCK = 1024
"""Boxes judged at once by the plain torch path: bounds its memory to block x kept."""


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], iou_threshold: int | float, inclusive: bool = False
) -> Int64[Tensor, " K"]:
    """Indices of the boxes that survive, by descending score.

    Args:
        boxes: `xyxy`.
        scores: higher is better.
        iou_threshold: IoU strictly above it suppresses; 0 or more.
        inclusive: ends are pixel indices, both included (Caffe): a side is x2 - x1 + 1 long.

    Raises:
        RecordError: shapes do not fit, or a negative threshold.
    """
    require_boxes4("nms(boxes)", boxes)
    require_candidates("nms", boxes, scores, iou_threshold)
    boxes = inclusive_to_continuous(boxes) if inclusive else boxes
    if runs_eagerly(boxes, scores):
        return _suppressed(boxes, scores, None, float(iou_threshold))
    return _nms(boxes, scores, float(iou_threshold))


def batched_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    idxs: Int[Tensor, " N"],
    iou_threshold: int | float,
    inclusive: bool = False,
) -> Int64[Tensor, " K"]:
    """Like `nms`, but boxes of different groups (classes, pyramid levels, pictures) never suppress each other.

    Groups are compared by index, not by shifting boxes apart, so that no precision is lost; only in exported graphs,
    for want of such an operator, they are shifted.

    Args:
        boxes: `xyxy`.
        scores: higher is better.
        idxs: group of each box, any integers.
        iou_threshold: IoU strictly above it suppresses; 0 or more.
        inclusive: ends are pixel indices, both included (Caffe): a side is x2 - x1 + 1 long.

    Raises:
        RecordError: shapes do not fit, or a negative threshold.
    """
    require_boxes4("batched_nms(boxes)", boxes)
    require_candidates("batched_nms", boxes, scores, iou_threshold)
    require_groups("batched_nms", scores, idxs)
    boxes = inclusive_to_continuous(boxes) if inclusive else boxes
    if exporting():
        return _nms(_shifted_apart(boxes, idxs), scores, float(iou_threshold))
    if runs_eagerly(boxes, scores, idxs):
        return _suppressed(boxes, scores, idxs, float(iou_threshold))
    return _batched_nms(boxes, scores, idxs, float(iou_threshold))


def require_candidates(where: str, boxes: Tensor, scores: Tensor, iou_threshold: int | float) -> None:
    """Raise `RecordError` unless there is one score a box, and the threshold is not negative."""
    # The words are made only where they are needed: they would cost more than a small suppression.
    if scores.ndim != 1:
        require(False, f"{where}(scores)", f"shape {tuple(scores.shape)}", "(N,)")
    if scores.shape[0] != boxes.shape[0]:
        # One message for both: which of the two is wrong cannot be known.
        got = f"{boxes.shape[0]} boxes and {scores.shape[0]} scores"
        require(False, f"{where}(boxes, scores)", got, "as many of each")
    require(iou_threshold >= 0, f"{where}(iou_threshold)", iou_threshold, "0 or more")


def require_groups(where: str, scores: Tensor, idxs: Tensor) -> None:
    """Raise `RecordError` unless there is one group a score."""
    if idxs.shape != scores.shape:
        require(False, f"{where}(idxs)", f"shape {tuple(idxs.shape)}", f"{tuple(scores.shape)}")


def _shifted_apart(boxes: Tensor, idxs: Tensor) -> Tensor:
    """Boxes moved by a stride per group that exceeds their common extent; also right for no boxes at all."""
    ends = torch.cat([boxes.flatten(), boxes.new_zeros(1)])
    stride = ends.max() - ends.min() + 1
    return boxes + (idxs.to(boxes.dtype) * stride)[:, None]


@torch.library.custom_op("bestiary::nms", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _suppressed(boxes, scores, None, iou_threshold)


@torch.library.custom_op("bestiary::batched_nms", mutates_args=())
def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return _suppressed(boxes, scores, idxs, iou_threshold)


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@_batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _suppressed(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    boxes = at_least_float32(boxes.detach())
    threshold = rounded_down(iou_threshold, boxes.dtype)
    if boxes.is_cpu:
        return _suppressed_by_kernel(boxes, scores, idxs, threshold)

    def overlaps(better: Tensor, others: Tensor) -> Tensor:
        return pairwise_iou(boxes[better], boxes[others])

    return suppressed_in_torch(overlaps, scores, idxs, threshold)


def rounded_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of `dtype` not above the threshold.

    An overlap of that type is above the one exactly when it is above the other; rounding to nearest would let 0.1 in
    float32 (which is more than 0.1) stand at a threshold of 0.1.
    """
    if dtype == torch.float64:
        return threshold
    nearest = np.float32(threshold)
    # As doubles: numpy would round the threshold to compare.
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def descending_order(scores: Float[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Indices from the greatest score down; equal ones by index, NaN first."""
    scores = scores.detach()
    if scores.is_cpu and scores.dtype != torch.float64 and scores.is_floating_point():
        from bestiary.ops._kernels.suppression import descending_order as sort

        order = torch.empty(len(scores), dtype=torch.int64)
        sort(scores.float().contiguous().numpy().view(np.int32), order.numpy())
        return order
    return torch.sort(scores, descending=True, stable=True).indices


def compact_groups(idxs: Int[Tensor, " N"]) -> tuple[Int64[np.ndarray, " N"], int, int]:
    """Groups on the CPU, the least of them and how many there are from it on, few enough to count by table."""
    from bestiary.ops._kernels.suppression import group_bounds

    groups = idxs.detach().to(torch.int64).contiguous().numpy()
    low, high = group_bounds(groups)
    if high - low > 4 * len(groups) + 1024:
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        low, high = 0, int(groups.max())
    return groups, low, high - low + 1


def _suppressed_by_kernel(boxes: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float) -> Tensor:
    from bestiary.ops._kernels.suppression import suppress, suppress_groups

    rows, order = boxes.contiguous().numpy(), descending_order(scores).numpy()
    limit = rows.dtype.type(threshold)
    if idxs is None:
        return torch.from_numpy(suppress(rows, order, limit))
    return torch.from_numpy(suppress_groups(rows, order, *compact_groups(idxs), limit))


def suppressed_in_torch(
    overlaps: Callable[[Tensor, Tensor], Tensor],
    scores: Float[Tensor, " N"],
    idxs: Int[Tensor, " N"] | None,
    threshold: float,
) -> Int64[Tensor, " K"]:
    """Greedy suppression in plain torch, for any device and any measure.

    Args:
        overlaps: of the boxes of the first indices with those of the second.
        scores: higher is better.
        idxs: group of each box; one group if None.
        threshold: overlap above it suppresses.
    """
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    if idxs is None:
        return order[_survivors(overlaps, order, None, threshold)]
    by_group = torch.sort(idxs[order], stable=True)
    keep = torch.empty(len(order), dtype=torch.bool, device=order.device)
    keep[by_group.indices] = _survivors(overlaps, order[by_group.indices], by_group.values, threshold)
    return order[keep]


def _survivors(
    overlaps: Callable[[Tensor, Tensor], Tensor],
    order: Int64[Tensor, " N"],
    groups: Int[Tensor, " N"] | None,
    threshold: float,
) -> Bool[Tensor, " N"]:
    """Which of `order`, sorted by group and then by descending score, survive within their group.

    Block by block: first the kept boxes of earlier blocks suppress, then, within the block, suppression is repeated
    until it changes nothing. After t rounds the first t boxes are settled, and few rounds suffice in practice.
    """

    def too_close(better: Tensor, others: Tensor) -> Tensor:
        over = overlaps(order[better], order[others]) > threshold
        return over if groups is None else over & (groups[better][:, None] == groups[others][None])

    places = torch.arange(len(order), device=order.device)
    keep = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    for start in range(0, len(order), _BLOCK):
        block = places[start : start + _BLOCK]
        alive = ~too_close(keep[:start].nonzero()[:, 0], block).any(dim=0)
        inner = too_close(block, block).triu(diagonal=1)
        kept = alive
        while True:
            settled = alive & ~(inner & kept[:, None]).any(dim=0)
            if torch.equal(settled, kept):
                break
            kept = settled
        keep[block] = kept
    return keep
