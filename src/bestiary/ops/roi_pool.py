"""RoIPool (Girshick, Fast R-CNN, ICCV 2015, section 2.1): the largest value in each bin of a region."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.ops.exporting import exporting
from bestiary.ops.rois import Boxes, bins_down_across, region_rows
from bestiary.ops.window_pooling import Windows, max_in_windows

_FAR = 1e9
"""Pixels at which a corner is taken to lie at most, so that it has an integer."""


def roi_pool(
    input: Float[Tensor, "B C H W"],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: int | float = 1.0,
) -> Float[Tensor, "R C _h _w"]:
    """Largest value in each bin of each region, whose corners and bins are rounded to whole pixels of the map.

    Convention: as torchvision's. Corners are scaled and rounded, halves away from zero; the last row and column belong
    to the region, which is at least one pixel wide and high. Bin i of n over a length l spans
    floor(i l / n) to ceil((i + 1) l / n), so that neighbours may share a row, and is cut at the map's border. A bin
    without a pixel gives 0. Of equal values the first, row by row, takes the gradient. A NaN in a bin makes it NaN
    (torchvision passes over it). Half precision is computed in float32. A region that is not finite gives zeros.
    The gradient flows to the features only; on the CPU it does not depend on the number of threads.

    Args:
        input: a map; channels-last memory gives channels-last output.
        boxes: regions, in coordinates that `spatial_scale` brings to pixels of the map.
        output_size: bins (down, across), or one number for both.
        spatial_scale: map pixels a coordinate unit: 1 / stride.

    Raises:
        RecordError: shapes do not fit, or a region names a picture outside the batch.
    """
    height, width = bins_down_across(output_size)
    rois = region_rows(boxes, input, "roi_pool")
    if exporting():
        return _roi_pool(input, rois, float(spatial_scale), height, width)
    return _pool(input, rois, float(spatial_scale), height, width)


def _pool(input: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int) -> Tensor:
    rows = rounded_edges(rois[:, 2], rois[:, 4], spatial_scale, height, input.shape[2], extra=1)
    columns = rounded_edges(rois[:, 1], rois[:, 3], spatial_scale, width, input.shape[3], extra=1)
    return max_in_windows(input, Windows(rois[:, 0].to(torch.int64), rows, columns))


def rounded_edges(
    low: Float[Tensor, " R"], high: Float[Tensor, " R"], scale: float, bins: int, limit: int, extra: int
) -> Int64[Tensor, "R bins 2"]:
    """First pixel of each bin of one axis and the one after its last, by the rounding of Fast R-CNN's code.

    Args:
        low, high: where each region begins and ends, in coordinates.
        scale: map pixels a coordinate unit.
        bins: how many a region has.
        limit: the largest edge.
        extra: pixels that a region is longer than the difference of its rounded ends.
    """
    ends = torch.stack([low, high]) * scale
    finite = torch.isfinite(ends).all(dim=0)
    first, last = _rounded(torch.where(finite, ends, 0).clamp(-_FAR, _FAR))
    size = (last - first + extra).clamp(min=1) / bins
    places = torch.arange(bins + 1, device=low.device).to(size.dtype)
    begin, end = torch.floor(places[:-1] * size[:, None]), torch.ceil(places[1:] * size[:, None])
    edges = (torch.stack([begin, end], dim=-1) + first[:, None, None]).clamp(0, limit)
    return torch.where(finite[:, None, None], edges, 0).to(torch.int64)


def _rounded(values: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero (torch.round takes them to the even one)."""
    whole = torch.trunc(values)
    return whole + torch.where((values - whole).abs() >= 0.5, values.sign(), 0)


@torch.library.custom_op("bestiary::roi_pool", mutates_args=())
def _roi_pool(features: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> Tensor:
    """The whole operation as one node, which an exporter can translate; it has no gradient."""
    return _pool(features, rois, spatial_scale, pooled_height, pooled_width)


@_roi_pool.register_fake
def _(features: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], pooled_height, pooled_width))
