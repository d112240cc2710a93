"""RoIAlign, forward and backward, on channels-last float32 maps.

Each line of bins is taken in two steps (`region_taps`): the map's rows are summed down once for all columns that any
bin touches, and each bin is a sum of those columns. All inner loops run over contiguous channels, most of them over
many pixels at once.
"""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

from bestiary.ops._kernels.region_taps import axis_taps, bounds, most_taps, region_grid
from bestiary.ops._kernels.rows import PAD, add_one, read_bins, weighted_sum, write_bins


@njit(cache=True, nogil=True, error_model="numpy")
def align_forward(
    features: Float32[np.ndarray, "B H W C"],
    rois: Float32[np.ndarray, "R 5"],
    rows: Int64[np.ndarray, " K"],
    scale: np.float32,
    sampling_ratio: int,
    aligned: bool,
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
        channels_last: whether out is [R, h, w, C], else [R, C, h, w].
        start, stop: the range of `rows`.
        out: float32, contiguous, written at `rows`.
    """
    height, width, channels = features.shape[1:]
    bins_h, bins_w = (out.shape[1], out.shape[2]) if channels_last else (out.shape[2], out.shape[3])
    most_y, most_x = most_taps(height, sampling_ratio), most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    places = np.arange(most_x)
    line = np.empty(max(width, most_x) * channels, np.float32)
    stride = channels + PAD
    means = np.empty(bins_h * bins_w * stride, np.float32)
    flat = features.reshape(-1)
    for position in range(start, stop):
        r = rows[position]
        y, x, h, w, grid_h, grid_w = region_grid(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        image, step = int(rois[r, 0]) * height * width * channels, width * channels
        left, right, taps = bounds(index_x, count_x)
        dense = right - left <= taps
        for by in range(bins_h):
            down = (index_y[by], weight_y[by], count_y[by], share)
            if dense:
                weighted_sum(flat, image + left * channels, step, *down, line[: (right - left) * channels])
            for bx in range(bins_w):
                at = (by * bins_w + bx) * stride
                mean = means[at : at + channels]
                if dense:
                    across = (index_x[bx], weight_x[bx], count_x[bx], np.float32(1))
                    weighted_sum(line, -left * channels, channels, *across, mean)
                else:  # bins far apart: only the columns that are sampled
                    for t in range(count_x[bx]):
                        column = line[t * channels : (t + 1) * channels]
                        weighted_sum(flat, image + index_x[bx, t] * channels, step, *down, column)
                    weighted_sum(line, 0, channels, places, weight_x[bx], count_x[bx], np.float32(1), mean)
        write_bins(means.reshape(bins_h * bins_w, stride), channels_last, out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def align_backward(
    grad: Float32[np.ndarray, "R _ _ _"],
    rois: Float32[np.ndarray, "R 5"],
    rows: Int64[np.ndarray, " K"],
    scale: np.float32,
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
    height: int,
    picture: int,
    start: int,
    band: Float32[np.ndarray, "h W C"],
) -> None:
    """The gradient of a band of a map's rows: the sum over the regions in `rows` that reach into it.

    Threads share bands, not regions: each cell's sum runs over the regions in order, however the bands are cut.

    Args:
        grad: gradient of align_forward's out, contiguous.
        height: H of the whole map.
        picture: which one of the batch the band belongs to.
        start: the map's row that the band begins with.
        band: written.

    The others are those of `align_forward`.
    """
    stop, width, channels = start + band.shape[0], band.shape[1], band.shape[2]
    bins_h, bins_w = (grad.shape[1], grad.shape[2]) if channels_last else (grad.shape[2], grad.shape[3])
    most_y, most_x = most_taps(height, sampling_ratio), most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    line = np.empty(width * channels, np.float32)
    stride = channels + PAD
    bins = np.empty((bins_h * bins_w, stride), np.float32)
    flat_bins = bins.reshape(-1)
    flat = band.reshape(-1)
    flat[:] = 0
    for position in range(rows.size):
        r = rows[position]
        if int(rois[r, 0]) != picture:
            continue
        y, x, h, w, grid_h, grid_w = region_grid(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        first, after = _lines_within(index_y, count_y, start, stop)
        if first >= after:
            continue
        axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        left, right, taps = bounds(index_x, count_x)
        dense = right - left <= taps
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        read_bins(grad[r], channels_last, first * bins_w, after * bins_w, 0, channels, bins)
        for by in range(first, after):
            if dense:
                line[: (right - left) * channels] = 0
                for bx in range(bins_w):
                    at = (by * bins_w + bx) * stride
                    source = flat_bins[at : at + channels]
                    for t in range(count_x[bx]):
                        at = (index_x[bx, t] - left) * channels
                        add_one(line[at : at + channels], source, share * weight_x[bx, t])
            for ty in range(count_y[by]):
                row = index_y[by, ty] - start
                if not 0 <= row < band.shape[0]:
                    continue
                if dense:
                    at, size = (row * width + left) * channels, (right - left) * channels
                    add_one(flat[at : at + size], line[:size], weight_y[by, ty])
                    continue
                for bx in range(bins_w):  # bins far apart: only the columns that were sampled
                    at = (by * bins_w + bx) * stride
                    source, factor = flat_bins[at : at + channels], share * weight_y[by, ty]
                    for t in range(count_x[bx]):
                        at = (row * width + index_x[bx, t]) * channels
                        add_one(flat[at : at + channels], source, factor * weight_x[bx, t])


@njit(cache=True, nogil=True, error_model="numpy")
def _lines_within(
    indices: Int64[np.ndarray, "bins T"], counts: Int64[np.ndarray, " bins"], start: int, stop: int
) -> tuple[int, int]:
    """The first line of bins that touches a pixel in `start:stop`, and the one after the last; equal if none does."""
    first, after = 0, 0
    for b in range(counts.size):
        for t in range(counts[b]):
            if start <= indices[b, t] < stop:
                first = b if after == 0 else first
                after = b + 1
    return first, after
