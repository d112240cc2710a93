"""Where the bilinear samples of a region's bins fall.

Sampling is separable: a bin's average over its samples is `sum_y a[y] sum_x b[x] f[y, x]`. The weights of both axes are
merged by row and by column, so that samples which share pixels cost one access.
"""

import math

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def axis_taps(
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
def region_grid(
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


@njit(cache=True, nogil=True, error_model="numpy")
def most_taps(size: int, sampling_ratio: int) -> int:
    """Room for a bin's taps: two a sample, or, where the grid follows the region, at most every pixel of the axis."""
    return 2 * sampling_ratio if sampling_ratio > 0 else size + 2


@njit(cache=True, nogil=True, error_model="numpy")
def bounds(indices: Int64[np.ndarray, "bins T"], counts: Int64[np.ndarray, " bins"]) -> tuple[int, int, int]:
    """First pixel that any bin touches, the one after the last, and the number of taps; (0, 0, 0) without any."""
    first, after, taps = 0, 0, 0
    for b in range(counts.size):
        for t in range(counts[b]):
            index = indices[b, t]
            first = index if taps == 0 else min(first, index)
            after = index + 1 if taps == 0 else max(after, index + 1)
            taps += 1
    return first, after, taps
