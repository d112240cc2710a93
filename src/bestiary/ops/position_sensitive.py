"""Position-sensitive pooling (Dai et al., R-FCN, NeurIPS 2016, equation 1; RoIAlign's form: Li et al., 2017).

Every bin of a region reads score maps of its own: with h x w bins, channel c h w + b of the input serves bin b (row by
row) of output channel c, as in torchvision. A position of a class is thereby learned by the maps and not by the head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.ops.region_pooling import Sampling, pool_forward
from bestiary.ops.regions import bilinear_gradients, remember_bilinear
from bestiary.ops.roi_pool import rounded_edges
from bestiary.ops.rois import (
    Boxes,
    bins_down_across,
    empty_in_layout,
    is_channels_last,
    region_rows,
    require_pictures,
)
from bestiary.ops.window_pooling import Windows, mean_in_windows
from bestiary.records import require


def ps_roi_align(
    input: Float[Tensor, "B C H W"],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: int | float = 1.0,
    sampling_ratio: int = -1,
) -> Float[Tensor, "R _c _h _w"]:
    """Mean of bilinear samples in each bin of each region, each bin in score maps of its own.

    Convention: as `roi_align` with `aligned=True`: half a pixel's shift, and regions of any size, also none. A bin
    without a sample (an empty region with a sampling ratio not above 0) gives 0, where torchvision divides 0 by 0.
    The gradient flows to the features only; on the CPU it does not depend on the number of threads.

    Args:
        input: score maps, C = output channels x bins.
        boxes: regions, in coordinates that `spatial_scale` brings to pixels of the map.
        output_size: bins (down, across), or one number for both.
        spatial_scale: map pixels a coordinate unit: 1 / stride.
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).

    Raises:
        RecordError: shapes do not fit, or a region names a picture outside the batch.
    """
    height, width = bins_down_across(output_size)
    rois = region_rows(boxes, input, "ps_roi_align")
    _require_positions("ps_roi_align", input, height * width)
    return _ps_roi_align(input, rois, float(spatial_scale), height, width, int(sampling_ratio))


def ps_roi_pool(
    input: Float[Tensor, "B C H W"],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: int | float = 1.0,
) -> Float[Tensor, "R _c _h _w"]:
    """Mean of the pixels in each bin of each region, each bin in score maps of its own.

    Convention: as torchvision's. Corners are scaled and rounded, halves away from zero; the region is at least one
    pixel wide and high and, unlike in `roi_pool`, its rounded end does not belong to it. Bin i of n over a length l
    spans floor(i l / n) to ceil((i + 1) l / n), cut at the map's last row and column, which are never read. A bin
    without a pixel gives 0. Half precision is computed in float32. A region that is not finite gives zeros.
    The gradient flows to the features only, on the CPU whatever the number of threads, and is that of these values;
    torchvision's also reaches the last row and column, which its own forward pass never reads.

    Args:
        input: score maps, C = output channels x bins.
        boxes: regions, in coordinates that `spatial_scale` brings to pixels of the map.
        output_size: bins (down, across), or one number for both.
        spatial_scale: map pixels a coordinate unit: 1 / stride.

    Raises:
        RecordError: shapes do not fit, or a region names a picture outside the batch.
    """
    height, width = bins_down_across(output_size)
    rois = region_rows(boxes, input, "ps_roi_pool")
    _require_positions("ps_roi_pool", input, height * width)
    rows = rounded_edges(rois[:, 2], rois[:, 4], float(spatial_scale), height, input.shape[2] - 1, extra=0)
    columns = rounded_edges(rois[:, 1], rois[:, 3], float(spatial_scale), width, input.shape[3] - 1, extra=0)
    return mean_in_windows(input, Windows(rois[:, 0].to(torch.int64), rows, columns), by_position=True)


def _require_positions(where: str, features: Tensor, bins: int) -> None:
    channels = features.shape[1]
    require(channels % bins == 0, f"{where}(input)", f"{channels} channels", f"a multiple of the {bins} bins")


@torch.library.custom_op("bestiary::ps_roi_align", mutates_args=())
def _ps_roi_align(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> Tensor:
    require_pictures(rois[:, 0], len(features), "ps_roi_align(boxes)")
    sampling = Sampling(sampling_ratio, aligned=True, by_position=True)
    return pool_forward([features], rois, None, [spatial_scale], (pooled_height, pooled_width), sampling)


@_ps_roi_align.register_fake
def _(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> Tensor:
    shape = (rois.shape[0], features.shape[1] // (pooled_height * pooled_width), pooled_height, pooled_width)
    return empty_in_layout(shape, features, is_channels_last(features))


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, scale, _, _, ratio = inputs
    remember_bilinear(ctx, [features], rois, None, [scale], Sampling(ratio, aligned=True, by_position=True))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return bilinear_gradients(ctx, grad)[0], *[None] * 5


_ps_roi_align.register_autograd(_backward, setup_context=_remember)
