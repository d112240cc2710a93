"""Maximum and mean over windows of whole pixels, forward and backward, on float32 maps."""

import numpy as np
from jaxtyping import Float32, Int32, Int64
from numba import njit

from bestiary.ops._kernels.rows import PAD, add_one, copy_row, read_bins, write_bins


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_larger(best: Float32[np.ndarray, " C"], values: Float32[np.ndarray, " C"]) -> None:
    """A NaN wins and stays."""
    for c in range(best.size):
        value = values[c]
        best[c] = value if (value > best[c]) | (value != value) else best[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _larger_of_two(
    best: Float32[np.ndarray, " C"], v0: Float32[np.ndarray, " C"], v1: Float32[np.ndarray, " C"]
) -> None:
    for c in range(best.size):
        best[c] = v1[c] if (v1[c] > v0[c]) | (v1[c] != v1[c]) else v0[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _largest(
    source: Float32[np.ndarray, " N"], first: int, step: int, count: int, best: Float32[np.ndarray, " C"]
) -> None:
    """best = the largest of `count` > 0 rows of `source`, `step` apart."""
    size = best.size
    if count == 1:
        copy_row(source[first : first + size], best)
        return
    second = first + step
    _larger_of_two(best, source[first : first + size], source[second : second + size])
    for k in range(2, count):
        row = first + k * step
        _keep_larger(best, source[row : row + size])


@njit(cache=True, nogil=True, error_model="numpy")
def max_forward(
    features: Float32[np.ndarray, "B H W C"],
    pictures: Int64[np.ndarray, " R"],
    rows: Int64[np.ndarray, "R h 2"],
    columns: Int64[np.ndarray, "R w 2"],
    channels_last: bool,
    start: int,
    stop: int,
    out: Float32[np.ndarray, "R _ _ _"],
) -> None:
    """Largest value of each window of the regions `start:stop`; 0 for an empty one.

    Each line of windows is taken in two steps: the largest of its rows, for all columns of the region, and of those.

    Args:
        features: [B, H, W, C], contiguous.
        pictures: [R] of each region.
        rows: [R, h, 2] first row of each bin and the one after its last.
        columns: [R, w, 2] the same across.
        channels_last: whether out is [R, h, w, C], else [R, C, h, w].
        start, stop: the range of regions.
        out: contiguous, written.
    """
    height, width, channels = features.shape[1:]
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    stride = channels + PAD
    best = np.empty(bins_h * bins_w * stride, np.float32)
    line = np.empty(width * channels, np.float32)
    flat = features.reshape(-1)
    for r in range(start, stop):
        image, left, right = pictures[r] * height * width, width, 0
        for bx in range(bins_w):
            if columns[r, bx, 0] < columns[r, bx, 1]:
                left, right = min(left, columns[r, bx, 0]), max(right, columns[r, bx, 1])
        for by in range(bins_h):
            top, bottom = rows[r, by]
            filled = top < bottom and left < right
            if filled:
                at, size = (image + top * width + left) * channels, (right - left) * channels
                _largest(flat, at, width * channels, bottom - top, line[:size])
            for bx in range(bins_w):
                begin, end = columns[r, bx]
                at = (by * bins_w + bx) * stride
                if filled and begin < end:
                    _largest(line, (begin - left) * channels, channels, end - begin, best[at : at + channels])
                else:
                    best[at : at + channels] = 0
        write_bins(best.reshape(bins_h * bins_w, stride), channels_last, out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_place(
    best: Float32[np.ndarray, " C"], places: Int32[np.ndarray, " C"], values: Float32[np.ndarray, " C"], place: np.int32
) -> None:
    """Where the value is larger than the best one, or the first NaN, it and its place are kept."""
    for c in range(best.size):
        larger = (values[c] > best[c]) | ((values[c] != values[c]) & (best[c] == best[c]))
        best[c] = values[c] if larger else best[c]
        places[c] = place if larger else places[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_where(
    total: Float32[np.ndarray, " C"],
    source: Float32[np.ndarray, " C"],
    places: Int32[np.ndarray, " C"],
    place: np.int32,
) -> None:
    for c in range(total.size):
        total[c] += source[c] if places[c] == place else np.float32(0)


@njit(cache=True, nogil=True, error_model="numpy")
def max_backward(
    features: Float32[np.ndarray, "B H W C"],
    pictures: Int64[np.ndarray, " R"],
    rows: Int64[np.ndarray, "R h 2"],
    columns: Int64[np.ndarray, "R w 2"],
    grad: Float32[np.ndarray, "R _ _ _"],
    channels_last: bool,
    start: int,
    stop: int,
    total: Float32[np.ndarray, "B H W C"],
) -> None:
    """Add each bin's gradient to the first pixel that holds its largest value, where that lies in the map's rows
    `start:stop`, counted over the batch.

    The largest values are found again: to keep where they were would cost the forward pass an array as large as its
    output. Threads share the map's rows, not the regions: each cell's sum runs over the regions in order, whatever the
    number of threads.

    Args:
        grad: of max_forward's out, contiguous.
        start, stop: the range of the batch's B * H rows.
        total: [B, H, W, C], added to.

    The others are those of `max_forward`.
    """
    height, width, channels = features.shape[1:]
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    stride = channels + PAD
    bins = np.empty((bins_h * bins_w, stride), np.float32)
    flat_bins = bins.reshape(-1)
    best, places = np.empty(channels, np.float32), np.empty(channels, np.int32)
    flat, flat_total = features.reshape(-1), total.reshape(-1)
    for r in range(pictures.size):
        first_row = pictures[r] * height
        first, after = 0, 0
        for by in range(bins_h):
            top, bottom = rows[r, by, 0] + first_row, rows[r, by, 1] + first_row
            if top < bottom and bottom > start and top < stop:
                first, after = by if after == 0 else first, by + 1
        read_bins(grad[r], channels_last, first * bins_w, after * bins_w, 0, channels, bins)
        for by in range(first, after):
            top, bottom = rows[r, by, 0] + first_row, rows[r, by, 1] + first_row
            for bx in range(bins_w):
                left, right = columns[r, bx]
                if top >= bottom or left >= right:
                    continue
                begin = (top * width + left) * channels
                copy_row(flat[begin : begin + channels], best)
                places[:] = 0
                for y in range(top, bottom):
                    for x in range(left, right):
                        at = (y * width + x) * channels
                        if at > begin:
                            _keep_place(best, places, flat[at : at + channels], np.int32((at - begin) // channels))
                at = (by * bins_w + bx) * stride
                source = flat_bins[at : at + channels]
                for y in range(max(top, start), min(bottom, stop)):
                    for x in range(left, right):
                        at = (y * width + x) * channels
                        place = np.int32((at - begin) // channels)
                        _add_where(flat_total[at : at + channels], source, places, place)


@njit(cache=True, nogil=True, error_model="numpy")
def mean_forward(
    features: Float32[np.ndarray, "B H W C"],
    pictures: Int64[np.ndarray, " R"],
    rows: Int64[np.ndarray, "R h 2"],
    columns: Int64[np.ndarray, "R w 2"],
    by_position: bool,
    channels_last: bool,
    start: int,
    stop: int,
    out: Float32[np.ndarray, "R _ _ _"],
) -> None:
    """Mean of each window of the regions `start:stop`; 0 for an empty one.

    Args:
        by_position: bin b reads the b-th group of C / bins channels, not all C.

    The others are those of `max_forward`.
    """
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    channels = features.shape[3] // (bins_h * bins_w) if by_position else features.shape[3]
    means = np.empty((bins_h * bins_w, channels + PAD), np.float32)
    for r in range(start, stop):
        image = features[pictures[r]]
        for by in range(bins_h):
            top, bottom = rows[r, by]
            for bx in range(bins_w):
                left, right = columns[r, bx]
                b = by * bins_w + bx
                first = b * channels if by_position else 0
                mean = means[b, :channels]
                mean[:] = 0
                for y in range(top, bottom):
                    for x in range(left, right):
                        add_one(mean, image[y, x, first : first + channels], np.float32(1))
                mean *= np.float32(1) / np.float32(max((bottom - top) * (right - left), 1))
        write_bins(means, channels_last, out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def mean_backward(
    pictures: Int64[np.ndarray, " R"],
    rows: Int64[np.ndarray, "R h 2"],
    columns: Int64[np.ndarray, "R w 2"],
    grad: Float32[np.ndarray, "R _ _ _"],
    by_position: bool,
    channels_last: bool,
    start: int,
    stop: int,
    total: Float32[np.ndarray, "B H W C"],
) -> None:
    """Add an equal share of each bin's gradient to the pixels of its window, in the map's channels `start:stop`.

    Args:
        grad: of mean_forward's out, contiguous.
        start, stop: the range of channels, which threads share (see `max_backward`).
        total: [B, H, W, C], added to.

    The others are those of `mean_forward`.
    """
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    channels = grad.shape[3] if channels_last else grad.shape[1]
    # Of the output's channels, those that this range of the map's can come from.
    low, high = (0, channels) if by_position else (start, stop)
    bins = np.empty((bins_h * bins_w, high - low + PAD), np.float32)
    for r in range(pictures.size):
        read_bins(grad[r], channels_last, 0, bins_h * bins_w, low, high, bins)
        image = total[pictures[r]]
        for by in range(bins_h):
            top, bottom = rows[r, by]
            for bx in range(bins_w):
                left, right = columns[r, bx]
                first = (by * bins_w + bx) * channels if by_position else 0
                begin, end = max(start, first), min(stop, first + channels)
                if begin >= end:
                    continue
                share = np.float32(1) / np.float32(max((bottom - top) * (right - left), 1))
                source = bins[by * bins_w + bx, begin - first - low : end - first - low]
                for y in range(top, bottom):
                    for x in range(left, right):
                        add_one(image[y, x, begin:end], source, share)
