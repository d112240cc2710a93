"""What the RoIAlign operators compute, given validated regions: by kernel on the CPU, in plain torch elsewhere."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.records import require

_TAPS_AT_ONCE = 1 << 22
"""Bilinear taps that the plain path holds at a time (index and weight: 50 MB)."""


def pool_forward(
    features: Sequence[Shaped[Tensor, "B C _h _w"]],
    rois: Float[Tensor, "R 5"],
    levels: Int64[Tensor, " R"] | None,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    out: Shaped[Tensor, "R C _oh _ow"],
) -> None:
    """Write the bins of every region into `out` (contiguous or channels-last).

    Args:
        features: one map a level.
        rois: picture, x1, y1, x2, y2.
        levels: the map that serves each region; None with one map.
        scales: map pixels a coordinate unit, of each map.
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).
        aligned: shift by half a pixel.
        out: of the features' type.
    """
    _require_pictures(rois, len(features[0]))
    if out.device.type == "cpu" and rois.dtype == torch.float32:
        # The kernel writes float32; half precision goes through a buffer of the same layout.
        target = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
        for feature, rows, scale in zip(features, _rows_by_level(rois, levels, len(features)), scales, strict=True):
            _kernel_forward(feature.float(), rois, rows, scale, sampling_ratio, aligned, target)
        if target is not out:
            out.copy_(target)
        return
    for feature, rows, scale in zip(features, _rows_by_level(rois, levels, len(features)), scales, strict=True):
        for part in _parts(rois[rows], feature, scale, sampling_ratio, tuple(out.shape[2:])):
            indices, weights = bilinear_taps(
                rois[rows[part]], tuple(feature.shape[2:]), scale, tuple(out.shape[2:]), sampling_ratio, aligned
            )
            flat = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1]).to(rois.dtype)
            bins = F.embedding_bag(indices, flat, mode="sum", per_sample_weights=weights)
            grid = bins.view(-1, *out.shape[2:], out.shape[1]).permute(0, 3, 1, 2)
            out[rows[part]] = grid.to(out.dtype)


def pool_backward(
    grad: Shaped[Tensor, "R C _oh _ow"],
    rois: Float[Tensor, "R 5"],
    levels: Int64[Tensor, " R"] | None,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    grads: Sequence[Shaped[Tensor, "B C _h _w"]],
) -> None:
    """Write the gradient of `pool_forward`'s output into `grads` (contiguous or channels-last, of any content)."""
    rows_by_level = _rows_by_level(rois, levels, len(grads))
    by_kernel = grad.device.type == "cpu" and rois.dtype == torch.float32
    for features_grad, rows, scale in zip(grads, rows_by_level, scales, strict=True):
        batch, channels, height, width = features_grad.shape
        if features_grad.dtype == rois.dtype and features_grad.is_contiguous(memory_format=torch.channels_last):
            total = features_grad.permute(0, 2, 3, 1).zero_()
        else:
            total = torch.zeros(batch, height, width, channels, dtype=rois.dtype, device=grad.device)
        if by_kernel:
            _kernel_backward(grad.float(), rois, rows, scale, sampling_ratio, aligned, total)
        else:
            _plain_backward(grad.to(rois.dtype), rois, rows, scale, sampling_ratio, aligned, total)
        if total.data_ptr() != features_grad.data_ptr():
            features_grad.copy_(total.permute(0, 3, 1, 2))


def _require_pictures(rois: Tensor, batch: int) -> None:
    if not len(rois):
        return
    low, high = torch.aminmax(rois[:, 0])
    fits = bool(low >= 0) and bool(high < batch)
    require(
        fits, "roi_align(boxes)", f"pictures {float(low):g} to {float(high):g}", f"indices below {batch}, the batch"
    )


def _rows_by_level(rois: Tensor, levels: Tensor | None, count: int) -> list[Tensor]:
    """Indices, ascending, of the regions that each map serves."""
    if levels is None:
        return [torch.arange(len(rois), device=rois.device)]
    return [(levels == level).nonzero()[:, 0] for level in range(count)]


def _kernel_forward(
    feature: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    out: Float[Tensor, "R C _oh _ow"],
) -> None:
    import numpy as np

    from bestiary.ops._kernels.regions import align_forward
    from bestiary.ops._kernels.threads import in_threads

    if not len(rows) or not out.numel():
        return
    last = not out.is_contiguous()
    maps = feature.detach().permute(0, 2, 3, 1).contiguous().numpy()
    target = (out.permute(0, 2, 3, 1) if last else out).numpy()
    regions, row_array, factor = rois.contiguous().numpy(), rows.numpy(), np.float32(scale)

    def work(start: int, stop: int) -> None:
        align_forward(maps, regions, row_array, factor, sampling_ratio, aligned, last, start, stop, target)

    in_threads(work, len(rows), torch.get_num_threads(), grain=16)


def _kernel_backward(
    grad: Float[Tensor, "R C _oh _ow"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    total: Float[Tensor, "B H W C"],
) -> None:
    import numpy as np

    from bestiary.ops._kernels.regions import align_backward
    from bestiary.ops._kernels.threads import in_threads

    if not len(rows) or not grad.numel():
        return
    last = grad.is_contiguous(memory_format=torch.channels_last) and not grad.is_contiguous()
    source = (grad.permute(0, 2, 3, 1) if last else grad.contiguous()).detach().numpy()
    regions, row_array, factor = rois.contiguous().numpy(), rows.numpy(), np.float32(scale)
    target = total.numpy()

    def work(start: int, stop: int) -> None:
        align_backward(source, regions, row_array, factor, sampling_ratio, aligned, last, start, stop, target)

    in_threads(work, total.shape[3], torch.get_num_threads(), grain=64)


def _plain_backward(
    grad: Float[Tensor, "R C _oh _ow"],
    rois: Float[Tensor, "R 5"],
    rows: Int64[Tensor, " K"],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    total: Float[Tensor, "B H W C"],
) -> None:
    channels, bins = total.shape[3], (int(grad.shape[2]), int(grad.shape[3]))
    flat = total.view(-1, channels)
    size_hw = (int(total.shape[1]), int(total.shape[2]))
    feature = total.permute(0, 3, 1, 2)
    for part in _parts(rois[rows], feature, scale, sampling_ratio, bins, copies=channels):
        indices, weights = bilinear_taps(rois[rows[part]], size_hw, scale, bins, sampling_ratio, aligned)
        source = grad[rows[part]].permute(0, 2, 3, 1).reshape(-1, 1, channels)
        flat.index_add_(0, indices.flatten(), (weights[:, :, None] * source).flatten(0, 1))


def _parts(
    rois: Float[Tensor, "K 5"],
    feature: Tensor,
    scale: float,
    sampling_ratio: int,
    bins_hw: tuple[int, ...],
    copies: int = 1,
) -> list[slice]:
    """Ranges of regions whose taps fit in memory at once."""
    if not len(rois):
        return []
    grid_h = grid_w = sampling_ratio
    if sampling_ratio <= 0:
        sides = (rois[:, 3:] - rois[:, 1:3]).nan_to_num(0, 0, 0).amax(dim=0) * scale
        grid_w, grid_h = int(sides[0] / bins_hw[1]) + 1, int(sides[1] / bins_hw[0]) + 1
    step = max(1, _TAPS_AT_ONCE // (4 * max(1, grid_h) * max(1, grid_w) * bins_hw[0] * bins_hw[1] * copies))
    return [slice(start, start + step) for start in range(0, len(rois), step)]


def bilinear_taps(
    rois: Float[Tensor, "K 5"],
    size_hw: tuple[int, ...],
    scale: float,
    bins_hw: tuple[int, ...],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Int64[Tensor, "KP T"], Float[Tensor, "KP T"]]:
    """Cells of the flattened maps [B H W] and weights whose sum is each bin's value, bins row by row."""
    shift = 0.5 if aligned else 0.0
    corners = rois[:, 1:] * scale - shift
    length = corners[:, 2:] - corners[:, :2]
    if not aligned:
        length = length.clamp(min=1)
    finite = torch.isfinite(corners).all(dim=1)
    index_y, weight_y, grid_y = _axis_taps(corners[:, 1], length[:, 1], finite, bins_hw[0], size_hw[0], sampling_ratio)
    index_x, weight_x, grid_x = _axis_taps(corners[:, 0], length[:, 0], finite, bins_hw[1], size_hw[1], sampling_ratio)
    picture = rois[:, 0].to(torch.int64)[:, None, None]
    rows = picture * size_hw[0] + index_y
    indices = rows[:, :, None, :, None] * size_hw[1] + index_x[:, None, :, None, :]
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
