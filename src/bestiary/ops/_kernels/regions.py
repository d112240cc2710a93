"""RoIAlign, forward and backward, on channels-last float32 maps.

Bilinear sampling is separable: a bin's average over its samples is `sum_y a[y] sum_x b[x] f[y, x]`. For each region the
weights of both axes are merged by row and by column first, so that samples which share pixels cost one access, and all
inner loops run over contiguous channels.
"""

import math

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _axis_taps(
    begin: np.float32,
    length: np.float32,
    bins: int,
    grid: int,
    size: int,
    indices: Int64[np.ndarray, "bins T"],
    weights: Float32[np.ndarray, "bins T"],
    counts: Int64[np.ndarray, " bins"],
) -> None:
    """Pixels and weights that the samples of each bin of one axis touch.

    A sample beyond one pixel outside the map counts as zero; nearer ones take the border's value.

    Args:
        begin: where the region begins, in map pixels (float32, as the formula's rounding decides borders).
        length: the region's length.
        bins: number of bins.
        grid: samples a bin.
        size: length of the map.
        indices: [bins, T] written.
        weights: [bins, T] written.
        counts: [bins] written: taps used.
    """
    bin_size = length / np.float32(bins)
    for b in range(bins):
        used = 0
        for s in range(grid):
            at = begin + np.float32(b) * bin_size + (np.float32(s) + np.float32(0.5)) * bin_size / np.float32(grid)
            if not (at >= np.float32(-1.0) and at <= np.float32(size)):
                continue
            at = max(at, np.float32(0))
            low = int(at)
            high = low + 1
            if low >= size - 1:
                low = high = size - 1
                at = np.float32(low)
            upper = at - np.float32(low)
            for index, weight in ((low, np.float32(1) - upper), (high, upper)):
                if weight == 0:
                    continue
                if used > 0 and indices[b, used - 1] == index:
                    weights[b, used - 1] += weight
                elif used > 1 and indices[b, used - 2] == index:
                    weights[b, used - 2] += weight
                else:
                    indices[b, used] = index
                    weights[b, used] = weight
                    used += 1
        counts[b] = used


@njit(cache=True, nogil=True, error_model="numpy")
def _region(
    roi: Float32[np.ndarray, " 5"], scale: np.float32, bins_h: int, bins_w: int, sampling_ratio: int, aligned: bool
) -> tuple[np.float32, np.float32, np.float32, np.float32, int, int]:
    """Region in map pixels and its sampling grid: y, x, height, width (float32), samples a bin down and across."""
    shift = np.float32(0.5) if aligned else np.float32(0.0)
    x1, y1 = roi[1] * scale - shift, roi[2] * scale - shift
    width, height = roi[3] * scale - shift - x1, roi[4] * scale - shift - y1
    if not aligned:
        width, height = max(width, np.float32(1)), max(height, np.float32(1))
    grid_h = grid_w = sampling_ratio
    if not (math.isfinite(x1) and math.isfinite(y1) and math.isfinite(width) and math.isfinite(height)):
        grid_h = grid_w = 0
    elif sampling_ratio <= 0:
        grid_h = max(0, math.ceil(height / np.float32(bins_h)))
        grid_w = max(0, math.ceil(width / np.float32(bins_w)))
    return y1, x1, height, width, grid_h, grid_w


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add_four(
    total: Float32[np.ndarray, " C"],
    f0: Float32[np.ndarray, " C"],
    f1: Float32[np.ndarray, " C"],
    f2: Float32[np.ndarray, " C"],
    f3: Float32[np.ndarray, " C"],
    w0: np.float32,
    w1: np.float32,
    w2: np.float32,
    w3: np.float32,
) -> None:
    for c in range(total.size):
        total[c] += w0 * f0[c] + w1 * f1[c] + w2 * f2[c] + w3 * f3[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def add_one(total: Float32[np.ndarray, " C"], f0: Float32[np.ndarray, " C"], w0: np.float32) -> None:
    for c in range(total.size):
        total[c] += w0 * f0[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _most_taps(size: int, sampling_ratio: int) -> int:
    """Room for a bin's taps: two a sample, or, where the grid follows the region, at most every pixel of the axis."""
    return 2 * sampling_ratio if sampling_ratio > 0 else size + 2


@njit(cache=True, nogil=True, error_model="numpy")
def align_forward(
    features: Float32[np.ndarray, "B H W C"],
    rois: Float32[np.ndarray, "R 5"],
    rows: Int64[np.ndarray, " K"],
    scale: np.float32,
    sampling_ratio: int,
    aligned: bool,
    by_position: bool,
    channels_last: bool,
    start: int,
    stop: int,
    out: Float32[np.ndarray, "R _ _ _"],
) -> None:
    """Average features of each bin of the regions `rows[start:stop]`.

    Args:
        features: [B, H, W, C] float32, contiguous.
        rois: [R, 5] float32: picture, x1, y1, x2, y2.
        rows: [K] int64: the regions that this map serves.
        scale: float32, map pixels a picture pixel.
        sampling_ratio: samples a bin and axis; <= 0 for ceil(size of the bin).
        aligned: shift by half a pixel.
        by_position: bin b reads the b-th group of C / bins channels, not all C.
        channels_last: whether out is [R, h, w, C], else [R, C, h, w].
        start, stop: the range of `rows`.
        out: float32, contiguous, written at `rows`.
    """
    height, width = features.shape[1:3]
    bins_h, bins_w = (out.shape[1], out.shape[2]) if channels_last else (out.shape[2], out.shape[3])
    channels = features.shape[3] // (bins_h * bins_w) if by_position else features.shape[3]
    most_y, most_x = _most_taps(height, sampling_ratio), _most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    means = np.empty((bins_h * bins_w, channels), np.float32)
    for position in range(start, stop):
        r = rows[position]
        y, x, h, w, grid_h, grid_w = _region(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        _axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        _axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        image = features[int(rois[r, 0])]
        for by in range(bins_h):
            for bx in range(bins_w):
                mean = means[by * bins_w + bx]
                mean[:] = 0
                first = (by * bins_w + bx) * channels if by_position else 0
                for ty in range(count_y[by]):
                    line = image[index_y[by, ty], :, first : first + channels]
                    row_weight = weight_y[by, ty] * share
                    taps, tx = count_x[bx], 0
                    while tx + 4 <= taps:
                        i0, i1, i2, i3 = index_x[bx, tx], index_x[bx, tx + 1], index_x[bx, tx + 2], index_x[bx, tx + 3]
                        w0, w1 = row_weight * weight_x[bx, tx], row_weight * weight_x[bx, tx + 1]
                        w2, w3 = row_weight * weight_x[bx, tx + 2], row_weight * weight_x[bx, tx + 3]
                        _add_four(mean, line[i0], line[i1], line[i2], line[i3], w0, w1, w2, w3)
                        tx += 4
                    while tx < taps:
                        add_one(mean, line[index_x[bx, tx]], row_weight * weight_x[bx, tx])
                        tx += 1
        if channels_last:
            out[r] = means.reshape(bins_h, bins_w, channels)
        else:
            transpose(means, out[r].reshape(channels, bins_h * bins_w))


@njit(cache=True, nogil=True, error_model="numpy")
def transpose(source: Shaped[np.ndarray, "N M"], target: Shaped[np.ndarray, "M N"]) -> None:
    """target[j, i] = source[i, j], in tiles that stay in the first cache."""
    n, m = source.shape
    for first in range(0, m, 16):
        last = min(first + 16, m)
        for i in range(n):
            for j in range(first, last):
                target[j, i] = source[i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def read_bins(
    grid: Float32[np.ndarray, "_ _ _"], channels_last: bool, low: int, high: int, bins: Float32[np.ndarray, "P c"]
) -> None:
    """Channels `low:high` of one region's grid ([h, w, C] if channels-last, else [C, h, w]) as rows, one a bin."""
    if channels_last:
        for by in range(grid.shape[0]):
            for bx in range(grid.shape[1]):
                bins[by * grid.shape[1] + bx] = grid[by, bx, low:high]
    else:
        transpose(grid[low:high].reshape(high - low, bins.shape[0]), bins)


@njit(cache=True, nogil=True, error_model="numpy")
def align_backward(
    grad: Float32[np.ndarray, "R _ _ _"],
    rois: Float32[np.ndarray, "R 5"],
    rows: Int64[np.ndarray, " K"],
    scale: np.float32,
    sampling_ratio: int,
    aligned: bool,
    by_position: bool,
    channels_last: bool,
    start: int,
    stop: int,
    features_grad: Float32[np.ndarray, "B H W C"],
) -> None:
    """Add the gradient of channels `start:stop` of every region in `rows` to the map.

    Threads share channels, not regions: each cell's sum runs over the regions in order, whatever the number of threads.

    Args:
        grad: gradient of align_forward's out, contiguous.
        start, stop: the range of the map's channels.
        features_grad: [B, H, W, C] float32, added to.

    The others are those of `align_forward`.
    """
    height, width = features_grad.shape[1:3]
    bins_h, bins_w = (grad.shape[1], grad.shape[2]) if channels_last else (grad.shape[2], grad.shape[3])
    channels = grad.shape[3] if channels_last else grad.shape[1]
    most_y, most_x = _most_taps(height, sampling_ratio), _most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    # Of the output's channels, those that this range of the map's can come from.
    low, high = (0, channels) if by_position else (start, stop)
    bins = np.empty((bins_h * bins_w, high - low), np.float32)
    for position in range(rows.size):
        r = rows[position]
        y, x, h, w, grid_h, grid_w = _region(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        _axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        _axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        read_bins(grad[r], channels_last, low, high, bins)
        image = features_grad[int(rois[r, 0])]
        for by in range(bins_h):
            for ty in range(count_y[by]):
                line = image[index_y[by, ty]]
                row_weight = weight_y[by, ty] * share
                for bx in range(bins_w):
                    first = (by * bins_w + bx) * channels if by_position else 0
                    begin, end = max(start, first), min(stop, first + channels)
                    if begin >= end:
                        continue
                    source = bins[by * bins_w + bx, begin - first - low : end - first - low]
                    for tx in range(count_x[bx]):
                        add_one(line[index_x[bx, tx], begin:end], source, row_weight * weight_x[bx, tx])
