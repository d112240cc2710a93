"""Position-sensitive RoIAlign, forward and backward: bin b reads the b-th group of the map's channels."""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

from bestiary.ops._kernels.region_taps import axis_taps, most_taps, region_grid
from bestiary.ops._kernels.rows import PAD, add_four, add_one, read_bins, write_bins


@njit(cache=True, nogil=True, error_model="numpy")
def position_forward(
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
        features: [B, H, W, bins * C] float32, contiguous, channels ordered (bin, channel).
        rois: [R, 5] float32: picture, x1, y1, x2, y2.
        rows: [K] int64: the regions that this map serves.
        scale: float32, map pixels a picture pixel.
        sampling_ratio: samples a bin and axis; <= 0 for ceil(size of the bin).
        aligned: shift by half a pixel.
        channels_last: whether out is [R, h, w, C], else [R, C, h, w].
        start, stop: the range of `rows`.
        out: float32, contiguous, written at `rows`.
    """
    height, width = features.shape[1:3]
    bins_h, bins_w = (out.shape[1], out.shape[2]) if channels_last else (out.shape[2], out.shape[3])
    channels = features.shape[3] // (bins_h * bins_w)
    most_y, most_x = most_taps(height, sampling_ratio), most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    means = np.empty((bins_h * bins_w, channels + PAD), np.float32)
    for position in range(start, stop):
        r = rows[position]
        y, x, h, w, grid_h, grid_w = region_grid(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        image = features[int(rois[r, 0])]
        for by in range(bins_h):
            for bx in range(bins_w):
                mean = means[by * bins_w + bx, :channels]
                mean[:] = 0
                first = (by * bins_w + bx) * channels
                for ty in range(count_y[by]):
                    line = image[index_y[by, ty], :, first : first + channels]
                    row_weight = weight_y[by, ty] * share
                    taps, tx = count_x[bx], 0
                    while tx + 4 <= taps:
                        i0, i1, i2, i3 = index_x[bx, tx], index_x[bx, tx + 1], index_x[bx, tx + 2], index_x[bx, tx + 3]
                        w0, w1 = row_weight * weight_x[bx, tx], row_weight * weight_x[bx, tx + 1]
                        w2, w3 = row_weight * weight_x[bx, tx + 2], row_weight * weight_x[bx, tx + 3]
                        add_four(mean, line[i0], line[i1], line[i2], line[i3], w0, w1, w2, w3)
                        tx += 4
                    while tx < taps:
                        add_one(mean, line[index_x[bx, tx]], row_weight * weight_x[bx, tx])
                        tx += 1
        write_bins(means, channels_last, out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def position_backward(
    grad: Float32[np.ndarray, "R _ _ _"],
    rois: Float32[np.ndarray, "R 5"],
    rows: Int64[np.ndarray, " K"],
    scale: np.float32,
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
    start: int,
    stop: int,
    features_grad: Float32[np.ndarray, "B H W C"],
) -> None:
    """Add the gradient of channels `start:stop` of every region in `rows` to the map.

    Threads share channels, not regions: each cell's sum runs over the regions in order, whatever the number of threads.

    Args:
        grad: gradient of position_forward's out, contiguous.
        start, stop: the range of the map's channels.
        features_grad: [B, H, W, C] float32, added to.

    The others are those of `position_forward`.
    """
    height, width = features_grad.shape[1:3]
    bins_h, bins_w = (grad.shape[1], grad.shape[2]) if channels_last else (grad.shape[2], grad.shape[3])
    channels = grad.shape[3] if channels_last else grad.shape[1]
    most_y, most_x = most_taps(height, sampling_ratio), most_taps(width, sampling_ratio)
    index_y, weight_y = np.empty((bins_h, most_y), np.int64), np.empty((bins_h, most_y), np.float32)
    index_x, weight_x = np.empty((bins_w, most_x), np.int64), np.empty((bins_w, most_x), np.float32)
    count_y, count_x = np.empty(bins_h, np.int64), np.empty(bins_w, np.int64)
    bins = np.empty((bins_h * bins_w, channels + PAD), np.float32)
    for position in range(rows.size):
        r = rows[position]
        y, x, h, w, grid_h, grid_w = region_grid(rois[r], scale, bins_h, bins_w, sampling_ratio, aligned)
        axis_taps(y, h, bins_h, grid_h, height, index_y, weight_y, count_y)
        axis_taps(x, w, bins_w, grid_w, width, index_x, weight_x, count_x)
        share = np.float32(1) / np.float32(max(grid_h * grid_w, 1))
        read_bins(grad[r], channels_last, 0, bins_h * bins_w, 0, channels, bins)
        image = features_grad[int(rois[r, 0])]
        for by in range(bins_h):
            for ty in range(count_y[by]):
                line = image[index_y[by, ty]]
                row_weight = weight_y[by, ty] * share
                for bx in range(bins_w):
                    first = (by * bins_w + bx) * channels
                    begin, end = max(start, first), min(stop, first + channels)
                    if begin >= end:
                        continue
                    source = bins[by * bins_w + bx, begin - first : end - first]
                    for tx in range(count_x[bx]):
                        add_one(line[index_x[bx, tx], begin:end], source, row_weight * weight_x[bx, tx])
