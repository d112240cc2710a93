"""Suppression that lowers scores instead of dropping boxes: Soft-NMS, one box after the other, and Matrix NMS, at once.

Convention: equal scores rank by index, lower first. Boxes that are both empty (IoU 0 / 0)
leave each other alone.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import at_least_float32, box_area, inclusive_to_continuous, pairwise_iou
from bestiary.ops.eager import runs_eagerly
from bestiary.ops.overlaps import require_boxes4
from bestiary.ops.suppression import compact_groups, require_candidates, require_groups
from bestiary.records import require


def soft_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    method: str = "gaussian",
    iou_threshold: int | float = 0.3,
    sigma: int | float = 0.5,
    score_threshold: int | float = 0.001,
    inclusive: bool = False,
) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
    """Indices of the boxes that remain and their lowered scores, in descending order of those.

    Bodla et al., Soft-NMS, ICCV 2017, figure 2 and equations 2 and 3: the best box is taken, every other box is
    multiplied by f of its IoU with it, and so on with the best of the rest.

    Convention: linear is f = 1 - IoU where IoU is at least `iou_threshold` (at it too), else 1; gaussian is
    f = exp(-IoU^2 / sigma) everywhere. A box is dropped when its score falls below `score_threshold` (at it stays;
    those that start below are dropped too). No gradient.

    Args:
        boxes: `xyxy`.
        scores: higher is better; not negative.
        method: "linear" or "gaussian".
        iou_threshold: of the linear method; 0 or more.
        sigma: of the gaussian method, above 0.
        score_threshold: least score of a box that remains.
        inclusive: ends are pixel indices, both included: a side is x2 - x1 + 1 long.

    Raises:
        RecordError: shapes do not fit, or a parameter is out of range.
        UsageError: an unknown method.
    """
    _require_soft("soft_nms", boxes, scores, method, iou_threshold, sigma)
    boxes = inclusive_to_continuous(boxes) if inclusive else boxes
    call = _softened if runs_eagerly(boxes, scores) else _soft_nms
    return call(boxes, scores, None, method, float(iou_threshold), float(sigma), float(score_threshold))


def batched_soft_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    idxs: Int[Tensor, " N"],
    method: str = "gaussian",
    iou_threshold: int | float = 0.3,
    sigma: int | float = 0.5,
    score_threshold: int | float = 0.001,
    inclusive: bool = False,
) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
    """`soft_nms` within each group (class, level, picture) of `idxs` [N], any integers.

    Convention: of `soft_nms`; the answer is ordered over all groups together.

    Raises:
        RecordError: shapes do not fit, or a parameter is out of range.
        UsageError: an unknown method.
    """
    _require_soft("batched_soft_nms", boxes, scores, method, iou_threshold, sigma)
    require_groups("batched_soft_nms", scores, idxs)
    boxes = inclusive_to_continuous(boxes) if inclusive else boxes
    call = _softened if runs_eagerly(boxes, scores, idxs) else _soft_nms
    return call(boxes, scores, idxs, method, float(iou_threshold), float(sigma), float(score_threshold))


def _require_method(where: str, method: str, sigma: int | float) -> None:
    if method not in ("linear", "gaussian"):
        raise UsageError(f"got {method!r}, wanted 'linear' or 'gaussian'", where=f"{where}(method)")
    require(sigma > 0, f"{where}(sigma)", sigma, "above 0")


def _require_soft(
    where: str, boxes: Tensor, scores: Tensor, method: str, iou_threshold: int | float, sigma: int | float
) -> None:
    require_boxes4(f"{where}(boxes)", boxes)
    require_candidates(where, boxes, scores, iou_threshold)
    _require_method(where, method, sigma)


@torch.library.custom_op("bestiary::soft_nms", mutates_args=())
def _soft_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    method: str,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    return _softened(boxes, scores, idxs, method, iou_threshold, sigma, score_threshold)


@_soft_nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    method: str,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    return boxes.new_empty(count, dtype=torch.int64), boxes.new_empty(count, dtype=dtype)


def _softened(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    method: str,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = boxes.detach().to(dtype), scores.detach().to(dtype)
    pick = _softened_by_kernel if boxes.is_cpu else softened_in_torch
    indices, lowered = pick(boxes, scores, idxs, method == "gaussian", iou_threshold, sigma, score_threshold)
    by_index = torch.sort(indices).indices
    order = by_index[torch.sort(lowered[by_index], descending=True, stable=True).indices]
    return indices[order], lowered[order]


def _softened_by_kernel(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    gaussian: bool,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    from bestiary.ops._kernels.soft_suppression import soften

    count = len(boxes)
    groups = [np.arange(count)]
    if idxs is not None and count:
        table, low, num_groups = compact_groups(idxs)
        ends = np.cumsum(np.bincount(table - low, minlength=num_groups))
        groups = np.split(np.argsort(table, kind="stable"), ends[:-1])
    columns = torch.cat([boxes.t(), box_area(boxes)[None]]).numpy()
    values, kind = scores.numpy(), columns.dtype.type
    indices, lowered = np.empty(count, np.int64), np.empty(count, columns.dtype)
    taken = 0
    for members in groups:
        if members.size:
            room = slice(taken, taken + members.size)
            limits = kind(iou_threshold), kind(sigma), kind(score_threshold)
            own = np.ascontiguousarray(columns[:, members])
            taken += soften(own, members, values[members], gaussian, *limits, indices[room], lowered[room])
    return torch.from_numpy(indices[:taken]), torch.from_numpy(lowered[:taken])


def softened_in_torch(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    gaussian: bool,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    """Indices and lowered scores in plain torch, for any device: one box of each step, in the order of the steps."""
    nothing = -torch.inf
    left = torch.where(scores >= score_threshold, scores, nothing)
    indices, lowered = [], []
    for _ in range(len(boxes)):
        value, best = left.max(0)
        if value == nothing:
            break
        best = (left == value).nonzero()[0, 0]
        indices.append(best)
        lowered.append(value)
        iou = torch.nan_to_num(pairwise_iou(boxes[best][None], boxes)[0], nan=0.0)
        factor = torch.exp(-iou.square() / sigma) if gaussian else torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        if idxs is not None:
            factor = torch.where(idxs == idxs[best], factor, 1.0)
        after = left * factor
        left = torch.where(after >= score_threshold, after, nothing)
        left[best] = nothing
    if not indices:
        return scores.new_empty(0, dtype=torch.int64), scores.new_empty(0)
    return torch.stack(indices), torch.stack(lowered)


def matrix_nms(
    ious: Float[Tensor, "N N"],
    scores: Float[Tensor, " N"],
    idxs: Int[Tensor, " N"] | None = None,
    method: str = "gaussian",
    sigma: int | float = 0.5,
) -> Float[Tensor, " N"]:
    """Scores lowered by the overlaps with all better ones, in the given order (Wang et al., SOLOv2, NeurIPS 2020,
    section 3.4, equations 4 and 5); differentiable.

    Box j is multiplied by min over the better i of f(IoU_ij) / f(highest IoU of i with one better than it): an i that
    is itself suppressed suppresses less.

    Convention: linear is f = 1 - IoU, gaussian f = exp(-IoU^2 / sigma), as in the paper (its code multiplies by sigma:
    2 there is 0.5 here). Better is a higher score, or an equal one of lower index. The factor is at most 1. Where i
    itself is wholly suppressed (linear, IoU 1), it suppresses nothing. NaN counts as no overlap.

    Args:
        ious: of all pairs: of boxes from `box_iou(boxes, boxes)`, of masks from their own IoU.
        scores: higher is better.
        idxs: class of each; only equal ones lower each other. One class if None.
        method: "linear" or "gaussian".
        sigma: of the gaussian method, above 0.

    Raises:
        RecordError: shapes do not fit, or sigma is not above 0.
        UsageError: an unknown method.
    """
    _require_method("matrix_nms", method, sigma)
    count = scores.shape[0]
    require(scores.ndim == 1, "matrix_nms(scores)", f"shape {tuple(scores.shape)}", "(N,)")
    require(ious.shape == (count, count), "matrix_nms(ious)", f"shape {tuple(ious.shape)}", f"({count}, {count})")
    if idxs is not None:
        require_groups("matrix_nms", scores, idxs)
    if count == 0:
        return scores.clone()
    order = torch.sort(scores, descending=True, stable=True).indices
    own = at_least_float32(torch.nan_to_num(ious, nan=0.0))[order][:, order].triu(diagonal=1)
    if idxs is not None:
        own = torch.where(idxs[order][:, None] == idxs[order][None], own, 0)
    highest = own.amax(dim=0)[:, None]
    if method == "linear":
        free = highest < 1
        ratio = torch.where(free, (1 - own) / torch.where(free, 1 - highest, 1), 1)
    else:
        ratio = torch.exp((highest.square() - own.square()) / sigma)
    factor = torch.ones_like(scores).to(ratio.dtype).index_put((order,), ratio.amin(dim=0).clamp(max=1))
    return scores * factor
