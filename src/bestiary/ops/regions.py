"""RoIAlign (He et al., ICCV 2017, section 3) on one map, and on a feature pyramid (Lin et al., CVPR 2017, equation 1).

Answers are torchvision's. A bin's value is the mean of its bilinear samples; a sample more than one pixel outside the
map counts as zero. Half precision is computed in float32. Gradients flow to the features, not to the boxes; on the CPU
they do not depend on the number of threads. Non-finite regions give zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.geometry.boxes import box_area
from bestiary.ops.exporting import exporting
from bestiary.ops.overlaps import require_boxes4
from bestiary.ops.region_pooling import pool_backward, pool_forward
from bestiary.records import require

Boxes = Float[Tensor, "R 5"] | Sequence[Float[Tensor, "_n 4"]]
"""Regions of a batch: rows (picture, x1, y1, x2, y2), or `xyxy` boxes per picture."""


def roi_align(
    input: Float[Tensor, "B C H W"],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: int | float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[Tensor, "R C _h _w"]:
    """Features of each region, resampled to a grid of bins.

    Args:
        input: a map; channels-last memory is used as it is, and then the output is channels-last too.
        boxes: regions, in coordinates that `spatial_scale` brings to pixels of the map.
        output_size: bins (down, across), or one number for both.
        spatial_scale: map pixels a coordinate unit: 1 / stride.
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).
        aligned: shift by half a pixel, so that sample centres are pixel centres (Detectron2's correction). Without it
            the regions are at least one map pixel wide and high, as in the paper's code.

    Raises:
        RecordError: shapes do not fit, or a region names a picture outside the batch.
    """
    height, width = _pair(output_size)
    rois = _rois(boxes, input, len(input), "roi_align(boxes)")
    return _roi_align(input, rois, float(spatial_scale), height, width, int(sampling_ratio), aligned)


def assign_levels(
    boxes: Float[Tensor, "R 4"],
    num_levels: int,
    first_level: int = 2,
    canonical_level: int = 4,
    canonical_size: int | float = 224,
    eps: float = 1e-6,
) -> Int64[Tensor, " R"]:
    """Which map of a pyramid serves each box: floor(k0 + log2(sqrt(w h) / size)), clamped (FPN, equation 1).

    Args:
        boxes: `xyxy`, picture pixels.
        num_levels: maps in the pyramid.
        first_level: the finest map's k (2 for P2, stride 4).
        canonical_level: k0, the level of a box of the canonical size.
        canonical_size: pixels.
        eps: keeps a box exactly at a power of two from falling one level too low.

    Returns:
        0 for the finest map to num_levels - 1.
    """
    size = torch.sqrt(box_area(boxes))
    exact = (
        canonical_level + torch.log2(size / canonical_size) + torch.tensor(eps, dtype=size.dtype, device=size.device)
    )
    # An empty box has log2(0) = -inf, which the clamp takes before the cast to integers would overflow.
    level = torch.floor(exact).clamp(first_level, first_level + num_levels - 1)
    return torch.nan_to_num(level, nan=float(first_level)).to(torch.int64) - first_level


def multiscale_roi_align(
    features: Sequence[Float[Tensor, "B C _h _w"]],
    strides: Sequence[int | float],
    boxes: Boxes,
    output_size: int | Sequence[int],
    sampling_ratio: int = 2,
    canonical_level: int = 4,
    canonical_size: int | float = 224,
    aligned: bool = False,
) -> Float[Tensor, "R C _oh _ow"]:
    """`roi_align`, each region on the map of a pyramid that suits its size, in the regions' order.

    Args:
        features: maps, fine to coarse, with equal channels.
        strides: picture pixels a map pixel, of each map; each is twice the one before.
        boxes: regions in picture pixels.
        output_size: bins (down, across), or one number for both.
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).
        canonical_level: log2 of the stride of the map that serves a box of the canonical size, plus any offset the
            paper has; FPN: 4, as 224-pixel boxes use the stride-16 map.
        canonical_size: pixels.
        aligned: shift by half a pixel.

    Raises:
        RecordError: shapes do not fit, or a region names a picture outside the batch.
    """
    fits = len(features) == len(strides) > 0
    require(
        fits, "multiscale_roi_align(strides)", f"{len(strides)} for {len(features)} maps", "one a map, at least one"
    )
    shapes = [tuple(f.shape) for f in features]
    alike = all(f.ndim == 4 and f.shape[:2] == features[0].shape[:2] for f in features)
    require(alike, "multiscale_roi_align(features)", f"shapes {shapes}", "(B, C, H, W) with equal B and C")
    height, width = _pair(output_size)
    rois = _rois(boxes, features[0], len(features[0]), "multiscale_roi_align(boxes)")
    first = round(torch.log2(torch.tensor(float(strides[0]))).item())
    levels = assign_levels(rois[:, 1:], len(features), first, canonical_level, canonical_size)
    scales = [1.0 / float(s) for s in strides]
    if exporting():
        return _level_by_level(list(features), rois, levels, scales, (height, width), int(sampling_ratio), aligned)
    return _multiscale_roi_align(list(features), rois, levels, scales, height, width, int(sampling_ratio), aligned)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    require(height > 0 and width > 0, "output_size", size, "positive numbers of bins")
    return height, width


def _rois(boxes: Boxes, features: Tensor, batch: int, where: str) -> Tensor:
    """Regions as rows (picture, x1, y1, x2, y2), float32 (float64 for float64 features)."""
    require(features.ndim == 4, "features", f"shape {tuple(features.shape)}", "(B, C, H, W)")
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    if isinstance(boxes, Tensor):
        require(boxes.ndim == 2 and boxes.shape[1] == 5, where, f"shape {tuple(boxes.shape)}", "(R, 5)")
        return boxes.detach().to(dtype)
    require(len(boxes) == batch, where, f"boxes of {len(boxes)} pictures", f"of {batch}, the batch")
    rows = []
    for picture, of_picture in enumerate(boxes):
        require_boxes4(f"{where}[{picture}]", of_picture)
        of_picture = of_picture.detach().to(dtype)
        rows.append(torch.cat([torch.full_like(of_picture[:, :1], picture), of_picture], dim=1))
    return torch.cat(rows)


def _level_by_level(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The pyramid in terms of `bestiary::roi_align`, gather and sort alone, which every exporter can translate."""
    rows = [torch.where(levels == k)[0] for k in range(len(features))]
    pooled = [
        _roi_align(feature, rois[row], scale, *size, sampling_ratio, aligned)
        for feature, row, scale in zip(features, rows, scales, strict=True)
    ]
    return torch.cat(pooled)[torch.argsort(torch.cat(rows))]


def _empty_output(features: Tensor, regions: int | torch.SymInt, height: int, width: int) -> Tensor:
    last = is_channels_last(features)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (regions, features.shape[1], height, width), dtype=features.dtype, device=features.device, memory_format=layout
    )


def is_channels_last(features: Tensor) -> bool:
    """Whether the memory is channels-last and not at the same time contiguous (as with one channel or one pixel)."""
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


@torch.library.custom_op("bestiary::roi_align", mutates_args=())
def _roi_align(
    features: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    out = _empty_output(features, rois.shape[0], pooled_height, pooled_width)
    pool_forward([features], rois, None, [spatial_scale], sampling_ratio, aligned, out)
    return out


@torch.library.custom_op("bestiary::multiscale_roi_align", mutates_args=())
def _multiscale_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    out = _empty_output(features[0], rois.shape[0], pooled_height, pooled_width)
    pool_forward(features, rois, levels, scales, sampling_ratio, aligned, out)
    return out


@torch.library.custom_op("bestiary::roi_align_backward", mutates_args=())
def _roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    batch: int,
    sizes: Sequence[int],
    channels_last: bool,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Gradient of each map; `sizes` holds height, width of one map after the other."""
    grads = _empty_grads(grad, batch, sizes, channels_last)
    pool_backward(grad, rois, levels, scales, sampling_ratio, aligned, grads)
    return grads


def _empty_grads(
    grad: Tensor, batch: int | torch.SymInt, sizes: Sequence[int | torch.SymInt], channels_last: bool
) -> list[Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shapes = [(batch, grad.shape[1], sizes[i], sizes[i + 1]) for i in range(0, len(sizes), 2)]
    return [torch.empty(s, dtype=grad.dtype, device=grad.device, memory_format=layout) for s in shapes]


@_roi_align.register_fake
def _(
    features: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return _empty_output(features, rois.shape[0], pooled_height, pooled_width)


@_multiscale_roi_align.register_fake
def _(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return _empty_output(features[0], rois.shape[0], pooled_height, pooled_width)


@_roi_align_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    batch: int,
    sizes: Sequence[int],
    channels_last: bool,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    return _empty_grads(grad, batch, sizes, channels_last)


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember_one(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, scale, _, _, ctx.sampling_ratio, ctx.aligned = inputs
    ctx.save_for_backward(rois)
    ctx.scales, ctx.batch, ctx.sizes = [scale], features.shape[0], list(features.shape[2:])
    ctx.channels_last = is_channels_last(features)


def _backward_one(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rois,) = ctx.saved_tensors
    (features_grad,) = _roi_align_backward(
        grad, rois, None, ctx.batch, ctx.sizes, ctx.channels_last, ctx.scales, ctx.sampling_ratio, ctx.aligned
    )
    return features_grad, None, None, None, None, None, None


def _remember_many(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, ctx.scales, _, _, ctx.sampling_ratio, ctx.aligned = inputs
    ctx.save_for_backward(rois, levels)
    ctx.batch, ctx.sizes = features[0].shape[0], [side for f in features for side in f.shape[2:]]
    ctx.channels_last = is_channels_last(features[0])


def _backward_many(ctx: Any, grad: Tensor) -> tuple[list[Tensor] | None, ...]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_backward(
        grad, rois, levels, ctx.batch, ctx.sizes, ctx.channels_last, ctx.scales, ctx.sampling_ratio, ctx.aligned
    )
    return grads, None, None, None, None, None, None, None


_roi_align.register_autograd(_backward_one, setup_context=_remember_one)
_multiscale_roi_align.register_autograd(_backward_many, setup_context=_remember_many)
