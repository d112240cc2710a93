"""Means of bilinear samples in the bins of regions, given validated regions: by kernel on the CPU, else in plain torch.

What RoIAlign, its form on a pyramid and the position-sensitive one have in common.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.rois import copy_channels_first, is_channels_last, pixels_first, room_in_layout

_TAPS_AT_ONCE = 1 << 22
"""Bilinear taps that the plain path holds at a time (index and weight: 50 MB)."""


_BAND_BYTES = 1 << 20
"""Of a map's gradient, summed at a time."""

_THINNEST_BAND = 8
"""Rows."""


class Sampling(NamedTuple):
    """How the bins of a region read the map.

    Attributes:
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).
        aligned: shift by half a pixel; without, regions are at least one map pixel wide and high.
        by_position: every bin has channels of its own (R-FCN's score maps), channel c * bins + bin for output c.
    """

    sampling_ratio: int
    aligned: bool
    by_position: bool = False

    def positions(self, bins_hw: Sequence[int]) -> int:
        """Groups of channels: one a bin, or one for all."""
        return bins_hw[0] * bins_hw[1] if self.by_position else 1


def pool_forward(
    features: Sequence[Shaped[Tensor, "B C _h _w"]],
    rois: Float[Tensor, "R 5"],
    levels: Int64[Tensor, " R"] | None,
    scales: Sequence[float],
    bins_hw: tuple[int, int],
    sampling: Sampling,
) -> Shaped[Tensor, "R _c _oh _ow"]:
    """The bins of every region, of the features' type and layout (contiguous or channels-last).

    Args:
        features: one map a level.
        rois: picture, x1, y1, x2, y2.
        levels: the map that serves each region; None with one map.
        scales: map pixels a coordinate unit, of each map.
        bins_hw: bins down and across.
        sampling: how they read the map.
    """
    positions = sampling.positions(bins_hw)
    shape = (len(rois), features[0].shape[1] // positions, *bins_hw)
    out = room_in_layout(shape, features[0], is_channels_last(features[0]))
    by_kernel = out.device.type == "cpu" and rois.dtype == torch.float32
    # Half precision goes through a float32 buffer of the same layout.
    target = torch.empty_like(out, dtype=rois.dtype) if out.dtype != rois.dtype else out
    compute = _kernel_forward if by_kernel else _plain_forward
    for feature, rows, scale in zip(features, _rows_by_level(rois, levels, len(features)), scales, strict=True):
        if len(rows) and target.numel():
            compute(pixels_first(feature.detach().to(rois.dtype), positions), rois, rows, scale, sampling, target)
    return out if target is out else out.copy_(target)


def pool_backward(
    grad: Shaped[Tensor, "R _c _oh _ow"],
    rois: Float[Tensor, "R 5"],
    levels: Int64[Tensor, " R"] | None,
    scales: Sequence[float],
    sampling: Sampling,
    grads: Sequence[Shaped[Tensor, "B C _h _w"]],
) -> None:
    """Write the gradient of `pool_forward`'s output into `grads` (contiguous or channels-last, of any content)."""
    rows_by_level = _rows_by_level(rois, levels, len(grads))
    by_kernel = grad.device.type == "cpu" and rois.dtype == torch.float32
    positions = sampling.positions(grad.shape[2:])
    grad = grad.detach().to(rois.dtype)
    for features_grad, rows, scale in zip(grads, rows_by_level, scales, strict=True):
        if not len(rows) or not grad.numel():
            features_grad.zero_()
        elif by_kernel and positions == 1:
            fits = features_grad.dtype == torch.float32
            target = features_grad if fits else torch.empty_like(features_grad, dtype=torch.float32)
            _kernel_backward(grad, rois, rows, scale, sampling, target)
            if not fits:
                features_grad.copy_(target)
        else:
            batch, channels, height, width = features_grad.shape
            total = room_in_layout((batch, height, width, channels), grad).zero_()
            compute = _kernel_backward_by_position if by_kernel else _plain_backward
            compute(grad, rois, rows, scale, sampling, total)
            copy_channels_first(total, positions, features_grad)


def _rows_by_level(rois: Tensor, levels: Tensor | None, count: int) -> list[Tensor]:
    """Indices, ascending, of the regions that each map serves."""
    if levels is None:
        return [torch.arange(len(rois), device=rois.device)]
    return [(levels == level).nonzero()[:, 0] for level in range(count)]


def _kernel_forward(
    maps: Float[Tensor, "B H W C"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling: Sampling,
    out: Float[Tensor, "R _c _oh _ow"],
) -> None:
    import numpy as np

    from bestiary.ops._kernels.position_regions import position_forward
    from bestiary.ops._kernels.regions import align_forward
    from bestiary.ops._kernels.threads import in_threads

    last = not out.is_contiguous()
    target = (out.permute(0, 2, 3, 1) if last else out).numpy()
    arrays = maps.numpy(), rois.contiguous().numpy(), rows.numpy()
    factor, (ratio, aligned, by_position) = np.float32(scale), sampling
    compute = position_forward if by_position else align_forward

    def work(start: int, stop: int) -> None:
        compute(*arrays, factor, ratio, aligned, last, start, stop, target)

    in_threads(work, len(rows), torch.get_num_threads(), grain=16)


def _kernel_backward(
    grad: Float[Tensor, "R C _oh _ow"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling: Sampling,
    features_grad: Float[Tensor, "B C H W"],
) -> None:
    """A band of rows at a time: it is summed channels-last, in the cache, and then written in the map's layout."""
    import numpy as np

    from bestiary.ops._kernels.regions import align_backward
    from bestiary.ops._kernels.rows import channels_first
    from bestiary.ops._kernels.threads import in_threads

    batch, channels, height, width = features_grad.shape
    last, grad_last = is_channels_last(features_grad), is_channels_last(grad)
    source = (grad.permute(0, 2, 3, 1) if grad_last else grad.contiguous()).numpy()
    arrays = source, rois.contiguous().numpy(), rows.numpy()
    target = (features_grad.permute(0, 2, 3, 1) if last else features_grad.flatten(2)).numpy()
    # Not too thin: a region that reaches into several bands is read in each.
    tall = min(height, max(_THINNEST_BAND, _BAND_BYTES // (4 * width * channels)))
    bands = [(picture, top) for picture in range(batch) for top in range(0, height, tall)]

    def work(start: int, stop: int) -> None:
        room = np.empty((tall, width, channels), np.float32)
        for picture, top in bands[start:stop]:
            bottom = min(top + tall, height)
            band = target[picture, top:bottom] if last else room[: bottom - top]
            align_backward(*arrays, np.float32(scale), *sampling[:2], grad_last, height, picture, top, band)
            if not last:
                place = target[picture : picture + 1, :, top * width : bottom * width]
                pixels = band.reshape(1, -1, channels)
                channels_first(pixels, 0, -(-pixels.shape[1] // 32), place)

    in_threads(work, len(bands), torch.get_num_threads())


def _kernel_backward_by_position(
    grad: Float[Tensor, "R _c _oh _ow"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling: Sampling,
    total: Float[Tensor, "B H W C"],
) -> None:
    import numpy as np

    from bestiary.ops._kernels.position_regions import position_backward
    from bestiary.ops._kernels.threads import in_threads

    last = is_channels_last(grad)
    source = (grad.permute(0, 2, 3, 1) if last else grad.contiguous()).numpy()
    arrays = source, rois.contiguous().numpy(), rows.numpy()
    factor, target = np.float32(scale), total.numpy()

    def work(start: int, stop: int) -> None:
        position_backward(*arrays, factor, *sampling[:2], last, start, stop, target)

    in_threads(work, total.shape[3], torch.get_num_threads(), grain=64)


def _plain_forward(
    maps: Float[Tensor, "B H W C"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling: Sampling,
    out: Float[Tensor, "R _c _oh _ow"],
) -> None:
    size_hw, bins_hw = (maps.shape[1], maps.shape[2]), (out.shape[2], out.shape[3])
    flat = maps.reshape(-1, out.shape[1])
    for part in _parts(rois[rows], scale, sampling.sampling_ratio, bins_hw):
        indices, weights = bilinear_taps(rois[rows[part]], size_hw, scale, bins_hw, sampling)
        bins = F.embedding_bag(indices, flat, mode="sum", per_sample_weights=weights)
        out[rows[part]] = bins.view(-1, *bins_hw, out.shape[1]).permute(0, 3, 1, 2)


def _plain_backward(
    grad: Float[Tensor, "R _c _oh _ow"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling: Sampling,
    total: Float[Tensor, "B H W C"],
) -> None:
    size_hw, bins_hw, channels = (total.shape[1], total.shape[2]), (grad.shape[2], grad.shape[3]), grad.shape[1]
    flat = total.view(-1, channels)
    for part in _parts(rois[rows], scale, sampling.sampling_ratio, bins_hw, copies=channels):
        indices, weights = bilinear_taps(rois[rows[part]], size_hw, scale, bins_hw, sampling)
        source = grad[rows[part]].permute(0, 2, 3, 1).reshape(-1, 1, channels)
        flat.index_add_(0, indices.flatten(), (weights[:, :, None] * source).flatten(0, 1))


def _parts(
    rois: Float[Tensor, "K 5"], scale: float, sampling_ratio: int, bins_hw: tuple[int, int], copies: int = 1
) -> list[slice]:
    """Ranges of regions whose taps fit in memory at once."""
    grid_h = grid_w = sampling_ratio
    if sampling_ratio <= 0:
        sides = (rois[:, 3:] - rois[:, 1:3]).nan_to_num(0, 0, 0).amax(dim=0) * scale
        grid_w, grid_h = int(sides[0] / bins_hw[1]) + 1, int(sides[1] / bins_hw[0]) + 1
    step = max(1, _TAPS_AT_ONCE // (4 * max(1, grid_h) * max(1, grid_w) * bins_hw[0] * bins_hw[1] * copies))
    return [slice(start, start + step) for start in range(0, len(rois), step)]


def bilinear_taps(
    rois: Float[Tensor, "K 5"],
    size_hw: tuple[int, int],
    scale: float,
    bins_hw: tuple[int, int],
    sampling: Sampling,
) -> tuple[Int64[Tensor, "KP T"], Float[Tensor, "KP T"]]:
    """Cells of the flattened maps [B H W positions] and weights whose sum is each bin's value, bins row by row."""
    shift = 0.5 if sampling.aligned else 0.0
    corners = rois[:, 1:] * scale - shift
    length = corners[:, 2:] - corners[:, :2]
    if not sampling.aligned:
        length = length.clamp(min=1)
    finite, ratio = torch.isfinite(corners).all(dim=1), sampling.sampling_ratio
    index_y, weight_y, grid_y = _axis_taps(corners[:, 1], length[:, 1], finite, bins_hw[0], size_hw[0], ratio)
    index_x, weight_x, grid_x = _axis_taps(corners[:, 0], length[:, 0], finite, bins_hw[1], size_hw[1], ratio)
    picture = rois[:, 0].to(torch.int64)[:, None, None]
    rows = picture * size_hw[0] + index_y
    indices = rows[:, :, None, :, None] * size_hw[1] + index_x[:, None, :, None, :]
    if sampling.by_position:
        bins = torch.arange(bins_hw[0] * bins_hw[1], device=rois.device).view(1, *bins_hw, 1, 1)
        indices = indices * bins.numel() + bins
    share = 1 / (grid_y * grid_x).clamp(min=1).to(rois.dtype)
    weights = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :] * share[:, None, None, None, None]
    return indices.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)


def _axis_taps(
    begin: Float[Tensor, " K"],
    length: Float[Tensor, " K"],
    finite: Bool[Tensor, " K"],
    bins: int,
    size: int,
    sampling_ratio: int,
) -> tuple[Int64[Tensor, "K P T"], Float[Tensor, "K P T"], Int64[Tensor, " K"]]:
    """Pixels and weights, two a sample, of each bin of one axis, and the samples a bin."""
    bin_size = length / bins
    if sampling_ratio > 0:
        grid = torch.full_like(begin, sampling_ratio, dtype=torch.int64)
    else:
        grid = torch.ceil(bin_size).nan_to_num(0, 0, 0).clamp(min=0).to(torch.int64)
    grid = torch.where(finite, grid, torch.zeros_like(grid))
    most = max(1, int(grid.max()))
    sample = torch.arange(most, device=begin.device)
    step = (sample + 0.5).to(begin.dtype) * bin_size[:, None] / grid.clamp(min=1)[:, None]
    start = begin[:, None] + torch.arange(bins, device=begin.device).to(begin.dtype) * bin_size[:, None]
    at = start[:, :, None] + step[:, None, :]
    used = (sample < grid[:, None])[:, None, :] & (at >= -1) & (at <= size)
    at = torch.where(used, at, torch.zeros_like(at)).clamp(min=0)
    low = at.to(torch.int64).clamp(max=size - 1)
    upper = torch.where(low >= size - 1, torch.zeros_like(at), at - low)
    indices = torch.stack([low, (low + 1).clamp(max=size - 1)], dim=-1)
    weights = torch.stack([1 - upper, upper], dim=-1) * used[..., None]
    return indices.flatten(2), weights.flatten(2), grid
