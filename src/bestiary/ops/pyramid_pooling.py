"""Spatial pyramid pooling (He et al., SPP-net, ECCV 2014, section 2.2; regions: section 4 and appendix A)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.exporting import exporting
from bestiary.ops.rois import Boxes, region_rows
from bestiary.ops.window_pooling import Windows, max_in_windows, mean_in_windows
from bestiary.records import require

PoolMode = Literal["max", "mean"]


def spatial_pyramid_pool(
    input: Float[Tensor, "B C H W"], levels: Sequence[int] = (1, 2, 3, 6), mode: PoolMode = "max"
) -> Float[Tensor, "B _n"]:
    """A vector of fixed length from a map of any size: bins of grids n x n, for each n of `levels`.

    Convention: bin i of n over a side l spans floor(i l / n) to ceil((i + 1) l / n), so that every bin has a pixel also
    where the map has fewer than n, and neighbours may share a row. The vector holds one level after the other in the
    order given; in a level the channels, and of each channel the bins row by row: C (n1 n1 + n2 n2 + ...) numbers.

    Args:
        input: a map of at least one pixel.
        levels: bins a side of each grid.
        mode: largest value or mean of a bin.

    Raises:
        RecordError: no level, a level below 1, an unknown mode, or a map without a pixel.
    """
    _require("spatial_pyramid_pool", input, levels, mode)
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    return torch.cat([pool(input, level).flatten(1) for level in levels], dim=1)


def grid_means(input: Float[Tensor, "B C H W"], bins: int) -> Float[Tensor, "B C bins bins"]:
    """Means over a grid of bins, those of `spatial_pyramid_pool`, laid out as a map (Zhao et al.: Pyramid Scene Parsing
    Network, CVPR 2017, section 3.2).

    A graph of any input size can hold it, which adaptive pooling's cannot.

    Args:
        input: a map of at least one pixel.
        bins: a side of the grid.

    Raises:
        RecordError: no bin, or a map without a pixel.
    """
    _require("grid_means", input, (bins,), "mean")
    if not exporting():
        return F.adaptive_avg_pool2d(input, bins)
    down, across = _bin_shares(input.shape[2], bins, input), _bin_shares(input.shape[3], bins, input)
    return down @ input @ across.T


def _bin_shares(side: int, bins: int, like: Tensor) -> Float[Tensor, "bins S"]:
    """Share of each pixel of a side in each bin's mean; the side may be symbolic."""
    pixel, bin_ = torch.arange(side, device=like.device), torch.arange(bins, device=like.device)[:, None]
    # floor(b l / n) <= p < ceil((b + 1) l / n), in whole numbers
    inside = ((pixel + 1) * bins > bin_ * side) & (pixel * bins < (bin_ + 1) * side)
    shares = inside.to(like.dtype)
    return shares / shares.sum(1, keepdim=True)


def spatial_pyramid_pool_regions(
    input: Float[Tensor, "B C H W"],
    boxes: Boxes,
    stride: int | float,
    levels: Sequence[int] = (1, 2, 3, 6),
    mode: PoolMode = "max",
    first_centre: int | float = 0.5,
) -> Float[Tensor, "R _n"]:
    """`spatial_pyramid_pool` of the part of the map that lies under each region, all from one pass of the network.

    Convention: a region takes the map's pixels whose receptive fields have their centres strictly inside it: from
    floor(x1 / S) + 1 to ceil(x2 / S) - 1, both included (appendix A). There x counts from the centre that the map's
    first pixel looks at. With boxes measured from the picture's outer corner that is half a pixel further in where
    every layer is padded by half its kernel, which the paper assumes; other networks give their own `first_centre`.
    A region that holds no centre takes the nearest pixel to its middle; what is outside the map is cut off, and a
    region wholly outside takes the nearest row or column of it. Bins and ordering are `spatial_pyramid_pool`'s.
    A region that is not finite takes the map's first pixel. The gradient flows to the features only.

    Args:
        input: the map of the last convolution.
        boxes: regions in picture pixels.
        stride: S, picture pixels a map pixel.
        levels: bins a side of each grid.
        mode: largest value or mean of a bin.
        first_centre: where the centre of the first map pixel's receptive field lies, in picture pixels.

    Raises:
        RecordError: shapes do not fit, a region names a picture outside the batch, or as `spatial_pyramid_pool`.
    """
    _require("spatial_pyramid_pool_regions", input, levels, mode)
    require(stride > 0, "spatial_pyramid_pool_regions(stride)", stride, "above 0")
    rois = region_rows(boxes, input, "spatial_pyramid_pool_regions")
    pictures, places = rois[:, 0].to(torch.int64), (rois[:, 1:].double() - first_centre) / stride
    across = _pixels_between(places[:, 0], places[:, 2], input.shape[3])
    down = _pixels_between(places[:, 1], places[:, 3], input.shape[2])
    pool = max_in_windows if mode == "max" else mean_in_windows
    vectors = []
    for level in levels:
        windows = Windows(pictures, _equal_bins(down, level), _equal_bins(across, level))
        vectors.append(pool(input, windows).flatten(1))
    return torch.cat(vectors, dim=1)


def _require(where: str, input: Tensor, levels: Sequence[int], mode: str) -> None:
    shape = tuple(input.shape)
    fits = input.ndim == 4 and shape[1] > 0 and shape[2] > 0 and shape[3] > 0
    require(fits, f"{where}(input)", f"shape {shape}", "(B, C, H, W) with at least one pixel")
    require(len(levels) > 0 and min(levels) > 0, f"{where}(levels)", tuple(levels), "positive numbers of bins")
    require(mode in ("max", "mean"), f"{where}(mode)", repr(mode), '"max" or "mean"')


def _pixels_between(low: Float[Tensor, " R"], high: Float[Tensor, " R"], size: int) -> Int64[Tensor, "R 2"]:
    """First pixel and the one after the last, [R, 2], strictly between two places; at least one, on the map."""
    first, last = torch.floor(low) + 1, torch.ceil(high) - 1
    nearest = torch.round((low + high) / 2)
    first, last = (torch.where(first <= last, edge, nearest) for edge in (first, last))
    both = torch.stack([first, last], dim=-1).nan_to_num(0.0, 0.0, 0.0).clamp(0, size - 1).to(torch.int64)
    return torch.stack([both[:, 0], both[:, 1] + 1], dim=-1)


def _equal_bins(edges: Int64[Tensor, "R 2"], bins: int) -> Int64[Tensor, "R bins 2"]:
    """floor(i l / n) and ceil((i + 1) l / n), in whole numbers, from each window's first pixel on."""
    first, length = edges[:, :1], edges[:, 1:] - edges[:, :1]
    place = torch.arange(bins, device=edges.device)
    begin, end = place * length // bins, ((place + 1) * length + bins - 1) // bins
    return torch.stack([begin, end], dim=-1) + first[:, :, None]
