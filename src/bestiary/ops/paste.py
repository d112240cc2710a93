"""Soft masks of boxes pasted into their picture (He et al., Mask R-CNN, ICCV 2017, section 3.1, inference).

Two rules are in use. `paste_masks` is torchvision's, of whole-pixel boxes; `paste_masks_continuous` is Detectron2's, of
continuous ones. Both are bilinear, so separable: each column of the picture takes two columns of the mask, each row two
rows. On the CPU the pixels are torchvision's to the last bit.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.boxes import at_least_float32
from bestiary.geometry.masks import Rle
from bestiary.ops.exporting import exporting
from bestiary.ops.overlaps import require_boxes4
from bestiary.records import require

_VALUES_AT_ONCE = 1 << 26
"""Pixels that the plain path holds as floats while it thresholds (256 MB)."""

_FARTHEST = 2.0**30
"""Coordinates beyond it (and what is not a number) would overflow whole pixels."""


_SMALL = 128
"""Width plus height up to which torch resizes a picture of one channel with products of weights."""


class _Taps(NamedTuple):
    """What each pixel along one axis of the picture takes of the padded mask: (1 - weight) at low, weight at low + 1.

    Attributes:
        low: lower sample.
        weight: of the next.
        inside: begin and end of the pixels that take anything.
    """

    low: Int32[Tensor, "N L"]
    weight: Float[Tensor, "N L"]
    inside: Int64[Tensor, "N 2"]


class _Plan(NamedTuple):
    """What the picture takes of each mask; `at_once`: sum the four samples in one go, not along x and then along y."""

    columns: _Taps
    rows: _Taps
    at_once: Bool[Tensor, " N"]


def paste_masks(
    masks: Float[Tensor, "N 1 M M"],
    boxes_xyxy: Float[Tensor, "N 4"],
    size_hw: tuple[int, int],
    threshold: int | float | None = 0.5,
) -> Bool[Tensor, "N H W"] | Float[Tensor, "N H W"]:
    """Masks in picture pixels, by torchvision's rule.

    Convention: the mask gets a frame of zeros one sample wide and the box grows with it; the grown box is cut to whole
    numbers (towards zero), spans its last pixel too, and the mask is resized to it, bilinear, sample centres at half
    pixels. Pixels outside the picture are dropped, those outside the box are zero. A box that lies outside the picture,
    is inverted, or is not finite leaves its picture empty. Half precision is computed in float32. Gradients flow to the
    masks if there is no threshold.

    Args:
        masks: probabilities (any numbers), one a box.
        boxes_xyxy: picture pixels.
        size_hw: of the picture.
        threshold: pixels strictly above it belong to the mask. None gives the values themselves.

    Raises:
        RecordError: shapes do not fit.
    """
    padded, boxes = _prepared("paste_masks", masks, boxes_xyxy)
    return _pasted(padded[:, 0], _whole_pixel_plan(boxes, masks.shape[-1], size_hw), threshold, masks.dtype)


def paste_masks_continuous(
    masks: Float[Tensor, "N 1 M M"],
    boxes_xyxy: Float[Tensor, "N 4"],
    size_hw: tuple[int, int],
    threshold: int | float | None = 0.5,
) -> Bool[Tensor, "N H W"] | Float[Tensor, "N H W"]:
    """Masks in picture pixels, by Detectron2's rule.

    Convention: the mask spans the box exactly; a pixel takes the bilinear value at its centre; beyond the outermost
    sample centres values fall to zero within one sample. A box without extent, or that is not finite, leaves its
    picture empty. Half precision is computed in float32. Gradients flow to the masks and the boxes if there is no
    threshold.

    Args:
        masks: probabilities (any numbers), one a box.
        boxes_xyxy: picture pixels.
        size_hw: of the picture.
        threshold: pixels at or above it belong to the mask (torchvision's rule says above). None gives the values.

    Raises:
        RecordError: shapes do not fit.
    """
    padded, boxes = _prepared("paste_masks_continuous", masks, boxes_xyxy)
    plan = _continuous_plan(boxes, masks.shape[-1], size_hw)
    if threshold is not None:
        # At or above it is strictly above the number before it.
        limit = torch.tensor(threshold, dtype=padded.dtype)
        limit = limit if float(limit) < threshold else torch.nextafter(limit, limit.new_tensor(-torch.inf))
        threshold = float(limit)
    return _pasted(padded[:, 0], plan, threshold, masks.dtype)


def paste_to_rles(
    masks: Float[Tensor, "N 1 M M"],
    boxes_xyxy: Float[Tensor, "N 4"],
    size_hw: tuple[int, int],
    threshold: int | float = 0.5,
) -> list[Rle]:
    """Run lengths of `paste_masks`, without the pictures: memory and time go with the boxes' areas.

    Convention: of `paste_masks`.

    Args:
        masks: probabilities (any numbers), one a box.
        boxes_xyxy: picture pixels.
        size_hw: of the picture.
        threshold: pixels strictly above it belong to the mask.

    Raises:
        RecordError: shapes do not fit.
    """
    from bestiary.ops._kernels.paste import paste_counts
    from bestiary.ops._kernels.threads import in_threads

    padded, boxes = _prepared("paste_to_rles", masks.detach().cpu().float(), boxes_xyxy.detach().cpu())
    arrays = _arrays(padded[:, 0], _whole_pixel_plan(boxes, masks.shape[-1], size_hw))
    found: dict[int, list[Rle]] = {}
    limit: Any = np.float32(threshold)

    def work(start: int, stop: int) -> None:
        counts, starts = paste_counts(*arrays, limit, start, stop)
        found[start] = [Rle.trusted(size_hw, c.copy()) for c in np.split(counts, starts[1:-1])]

    in_threads(work, len(masks), torch.get_num_threads())
    return [rle for start in sorted(found) for rle in found[start]]


def _prepared(where: str, masks: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Masks in a frame of zeros, boxes of the same type (at least float32), infinite or undefined ones made empty."""
    fits = masks.ndim == 4 and masks.shape[1] == 1 and masks.shape[2] == masks.shape[3] and masks.shape[3] > 0
    require(fits, f"{where}(masks)", f"shape {tuple(masks.shape)}", "(N, 1, M, M)")
    require_boxes4(f"{where}(boxes_xyxy)", boxes_xyxy)
    require(
        len(boxes_xyxy) == len(masks), f"{where}(boxes_xyxy)", f"{len(boxes_xyxy)} boxes", f"{len(masks)}, one a mask"
    )
    padded = F.pad(at_least_float32(masks), (1, 1, 1, 1))
    boxes = boxes_xyxy.to(padded)
    sane = (boxes.abs() < _FARTHEST).all(dim=1, keepdim=True)
    return padded, torch.where(sane, boxes, boxes.new_tensor([0, 0, -2, -2]))


def _whole_pixel_plan(boxes: Tensor, samples: int, size_hw: tuple[int, int]) -> _Plan:
    scale = (samples + 2) / samples
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    begin, last = (centre - half).to(torch.int64), (centre + half).to(torch.int64)
    extent = (last - begin + 1).clamp(min=1)
    # Tensor by tensor: a number divided by a tensor is multiplied by the reciprocal, and rounded twice.
    step = (boxes.new_full((1,), samples + 2) / extent.to(boxes.dtype)).double()
    taps = []
    for axis, length in ((0, size_hw[1]), (1, size_hw[0])):
        pixel = torch.arange(length, device=boxes.device)[None] - begin[:, axis, None]
        # One rounding, as of a fused multiply and subtract: hence double precision.
        at = ((pixel.double() + 0.5) * step[:, axis, None] - 0.5).to(boxes.dtype).clamp(0, samples + 1)
        low = at.floor().clamp(max=samples)
        inside = torch.stack([begin[:, axis].clamp(min=0), (last[:, axis] + 1).clamp(max=length)], dim=1)
        taps.append(_Taps(low.to(torch.int32), at - low, inside))
    return _Plan(taps[0], taps[1], extent.sum(dim=1) <= _SMALL)


def _continuous_plan(boxes: Tensor, samples: int, size_hw: tuple[int, int]) -> _Plan:
    taps = []
    for axis, length in ((0, size_hw[1]), (1, size_hw[0])):
        begin, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        extent = end - begin
        pixel = torch.arange(length, device=boxes.device, dtype=boxes.dtype)[None] + 0.5
        # In samples of the framed mask, whose first is a zero.
        at = (pixel - begin) / torch.where(extent > 0, extent, 1) * samples + 0.5
        within = (at > 0) & (at < samples + 1) & (extent > 0)
        low = at.detach().floor().clamp(0, samples)
        first = (~within).cumprod(dim=1).sum(dim=1)
        inside = torch.stack([first, first + within.sum(dim=1)], dim=1)
        taps.append(_Taps(low.to(torch.int32), at - low, inside))
    return _Plan(taps[0], taps[1], torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device))


def _pasted(soft: Float[Tensor, "N P P"], plan: _Plan, threshold: int | float | None, dtype: torch.dtype) -> Tensor:
    learns = torch.is_grad_enabled() and (soft.requires_grad or plan.columns.weight.requires_grad)
    by_kernel = soft.device.type == "cpu" and soft.dtype == torch.float32 and not exporting()
    if not by_kernel or (learns and threshold is None):
        return _pasted_in_torch(soft, plan, threshold, dtype)
    flat = [t.detach() for t in (*plan.columns, *plan.rows, plan.at_once)]
    out = _paste(soft.detach(), flat, None if threshold is None else float(threshold))
    return out if threshold is not None else out.to(dtype)


def _pasted_in_torch(soft: Tensor, plan: _Plan, threshold: int | float | None, dtype: torch.dtype) -> Tensor:
    """Two gathers an axis, on any device; a part of the masks at a time where only bits are kept."""
    height, width = plan.rows.low.shape[1], plan.columns.low.shape[1]
    if threshold is None or exporting() or torch.compiler.is_compiling():
        values = _values(soft, plan.columns, plan.rows)
        return values.to(dtype) if threshold is None else values > threshold
    step = max(1, _VALUES_AT_ONCE // max(1, height * width))
    out = torch.zeros(len(soft), height, width, dtype=torch.bool, device=soft.device)
    for start in range(0, len(soft), step):
        part = slice(start, start + step)
        columns, rows = (_Taps(*(field[part] for field in taps)) for taps in plan[:2])
        out[part] = _values(soft[part], columns, rows) > threshold
    return out


def _values(soft: Float[Tensor, "N P P"], columns: _Taps, rows: _Taps) -> Float[Tensor, "N H W"]:
    count, samples, width = soft.shape[0], soft.shape[1], columns.low.shape[1]
    low = columns.low.long()[:, None].expand(count, samples, width)
    weight = _inside_weights(columns)[:, :, None]
    wide = soft.gather(2, low) * weight[0] + soft.gather(2, low + 1) * weight[1]
    low = rows.low.long()[:, :, None].expand(count, rows.low.shape[1], width)
    weight = _inside_weights(rows)[:, :, :, None]
    return wide.gather(1, low) * weight[0] + wide.gather(1, low + 1) * weight[1]


def _inside_weights(taps: _Taps) -> Float[Tensor, "2 N L"]:
    """Weights of the lower and the next sample, both 0 outside."""
    pixel = torch.arange(taps.low.shape[1], device=taps.low.device)[None]
    inside = (pixel >= taps.inside[:, :1]) & (pixel < taps.inside[:, 1:])
    return torch.stack([1 - taps.weight, taps.weight]) * inside


def _arrays(soft: Tensor, plan: _Plan) -> tuple[Any, Any, Any, Any]:
    """As the kernels take them: masks, columns, rows, at_once."""
    columns, rows = (tuple(t.detach().contiguous().numpy() for t in taps) for taps in plan[:2])
    return soft.detach().contiguous().numpy(), columns, rows, plan.at_once.contiguous().numpy()


@torch.library.custom_op("bestiary::paste_masks", mutates_args=())
def _paste(soft: Tensor, plan: Sequence[Tensor], threshold: float | None) -> Tensor:
    from bestiary.ops._kernels.paste import paste, paste_above
    from bestiary.ops._kernels.threads import in_threads

    arrays = _arrays(soft, _Plan(_Taps(*plan[:3]), _Taps(*plan[3:6]), plan[6]))
    shape = (len(soft), plan[3].shape[1], plan[0].shape[1])
    # numpy's zeros are pages that the system zeroes when they are first written: those outside all boxes never are.
    if threshold is None:
        out = np.zeros(shape, np.float32)
        in_threads(lambda a, b: paste(*arrays, a, b, out), len(soft), torch.get_num_threads())
        return torch.from_numpy(out)
    flat = np.zeros(math.prod(shape), np.uint8)
    limit: Any = np.float32(threshold)
    in_threads(lambda a, b: paste_above(*arrays, limit, a, b, flat), len(soft), torch.get_num_threads())
    return torch.from_numpy(flat.view(np.bool_).reshape(shape))


@_paste.register_fake
def _(soft: Tensor, plan: Sequence[Tensor], threshold: float | None) -> Tensor:
    dtype = torch.float32 if threshold is None else torch.bool
    return soft.new_empty((soft.shape[0], plan[3].shape[1], plan[0].shape[1]), dtype=dtype)
