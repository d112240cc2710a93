"""RoIAlign (He et al., ICCV 2017, section 3) on one map, and on a feature pyramid (Lin et al., CVPR 2017, equation 1).

Convention: answers are torchvision's. A bin's value is the mean of its bilinear samples; a sample more than one pixel
outside the map counts as zero. Half precision is computed in float32. Gradients flow to the features, not to the boxes;
on the CPU they do not depend on the number of threads. Non-finite regions give zeros.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.geometry.boxes import box_area
from bestiary.ops.exporting import exporting
from bestiary.ops.region_pooling import Sampling, pool_backward, pool_forward
from bestiary.ops.rois import (
    Boxes,
    bins_down_across,
    empty_in_layout,
    is_channels_last,
    region_rows,
    require_pictures,
    room_in_layout,
)
from bestiary.records import require


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
    height, width = bins_down_across(output_size)
    rois = region_rows(boxes, input, "roi_align")
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
    height, width = bins_down_across(output_size)
    rois = region_rows(boxes, features[0], "multiscale_roi_align")
    first = round(math.log2(strides[0]))
    levels = assign_levels(rois[:, 1:], len(features), first, canonical_level, canonical_size)
    scales = [1.0 / float(s) for s in strides]
    if exporting():
        return _level_by_level(list(features), rois, levels, scales, (height, width), int(sampling_ratio), aligned)
    return _multiscale_roi_align(list(features), rois, levels, scales, height, width, int(sampling_ratio), aligned)


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
    require_pictures(rois[:, 0], len(features), "roi_align(boxes)")
    bins_hw, sampling = (pooled_height, pooled_width), Sampling(sampling_ratio, aligned)
    return pool_forward([features], rois, None, [spatial_scale], bins_hw, sampling)


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
    require_pictures(rois[:, 0], len(features[0]), "multiscale_roi_align(boxes)")
    bins_hw, sampling = (pooled_height, pooled_width), Sampling(sampling_ratio, aligned)
    return pool_forward(features, rois, levels, scales, bins_hw, sampling)


@torch.library.custom_op("bestiary::bilinear_bins_backward", mutates_args=())
def _bilinear_bins_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    batch_channels: Sequence[int],
    sizes: Sequence[int],
    channels_last: bool,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    by_position: bool,
) -> list[Tensor]:
    """Gradient of each map; `sizes` holds height, width of one map after the other."""
    shapes = _map_shapes(batch_channels, sizes)
    grads = [room_in_layout(shape, grad, channels_last) for shape in shapes]
    pool_backward(grad, rois, levels, scales, Sampling(sampling_ratio, aligned, by_position), grads)
    return grads


@_bilinear_bins_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    batch_channels: Sequence[int],
    sizes: Sequence[int],
    channels_last: bool,
    *_sampling: object,
) -> list[Tensor]:
    return [empty_in_layout(shape, grad, channels_last) for shape in _map_shapes(batch_channels, sizes)]


def _map_shapes(batch_channels: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [(*batch_channels, sizes[i], sizes[i + 1]) for i in range(0, len(sizes), 2)]


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read below.
def remember_bilinear(
    ctx: Any,
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    scales: Sequence[float],
    sampling: Sampling,
) -> None:
    """What `bilinear_gradients` needs of a forward call."""
    ctx.save_for_backward(rois, levels)
    ctx.batch_channels, ctx.sizes = features[0].shape[:2], [side for f in features for side in f.shape[2:]]
    ctx.channels_last, ctx.scales, ctx.sampling = is_channels_last(features[0]), list(scales), sampling


def bilinear_gradients(ctx: Any, grad: Tensor) -> list[Tensor]:
    """Gradient of each map that `remember_bilinear` was told of."""
    rois, levels = ctx.saved_tensors
    return _bilinear_bins_backward(
        grad, rois, levels, ctx.batch_channels, ctx.sizes, ctx.channels_last, ctx.scales, *ctx.sampling
    )


def _remember_one(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, scale, _, _, *sampling = inputs
    remember_bilinear(ctx, [features], rois, None, [scale], Sampling(*sampling))


def _remember_many(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, scales, _, _, *sampling = inputs
    remember_bilinear(ctx, features, rois, levels, scales, Sampling(*sampling))


@_roi_align.register_fake
def _(features: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int, *_sampling: object) -> Tensor:
    return empty_in_layout((rois.shape[0], features.shape[1], height, width), features, is_channels_last(features))


@_multiscale_roi_align.register_fake
def _(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    height: int,
    width: int,
    *_sampling: object,
) -> Tensor:
    shape = (rois.shape[0], features[0].shape[1], height, width)
    return empty_in_layout(shape, features[0], is_channels_last(features[0]))


def _backward_one(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return bilinear_gradients(ctx, grad)[0], *[None] * 6


def _backward_many(ctx: Any, grad: Tensor) -> tuple[list[Tensor] | None, ...]:
    return bilinear_gradients(ctx, grad), *[None] * 7


_roi_align.register_autograd(_backward_one, setup_context=_remember_one)
_multiscale_roi_align.register_autograd(_backward_many, setup_context=_remember_many)
