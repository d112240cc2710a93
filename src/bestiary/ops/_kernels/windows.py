"""Maximum and mean over windows of whole pixels, forward and backward, on float32 maps."""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

from bestiary.ops._kernels.regions import add_one, read_bins, transpose


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_larger(best: Float32[np.ndarray, " C"], values: Float32[np.ndarray, " C"]) -> None:
    """A NaN wins and stays."""
    for c in range(best.size):
        value = values[c]
        best[c] = value if (value > best[c]) | (value != value) else best[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _hand_over(
    total: Float32[np.ndarray, " C"],
    left: Float32[np.ndarray, " C"],
    values: Float32[np.ndarray, " C"],
    best: Float32[np.ndarray, " C"],
) -> None:
    """Where the value is the best one, what is left of the gradient goes to this pixel, and nothing to later ones."""
    for c in range(total.size):
        chosen = (values[c] == best[c]) | (values[c] != values[c])
        total[c] += left[c] if chosen else np.float32(0)
        left[c] = np.float32(0) if chosen else left[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _largest(
    image: Float32[np.ndarray, "H W C"],
    top: int,
    bottom: int,
    left: int,
    right: int,
    first: int,
    stop: int,
    best: Float32[np.ndarray, " c"],
) -> None:
    """Largest value of channels `first:stop` in a window that is not empty."""
    best[:] = image[top, left, first:stop]
    for y in range(top, bottom):
        for x in range(left, right):
            _keep_larger(best, image[y, x, first:stop])


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

    Args:
        features: [B, H, W, C], contiguous.
        pictures: [R] of each region.
        rows: [R, h, 2] first row of each bin and the one after its last.
        columns: [R, w, 2] the same across.
        channels_last: whether out is [R, h, w, C], else [R, C, h, w].
        start, stop: the range of regions.
        out: contiguous, written.
    """
    channels = features.shape[3]
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    best = np.empty((bins_h * bins_w, channels), np.float32)
    for r in range(start, stop):
        image = features[pictures[r]]
        for by in range(bins_h):
            top, bottom = rows[r, by]
            for bx in range(bins_w):
                left, right = columns[r, bx]
                if top < bottom and left < right:
                    _largest(image, top, bottom, left, right, 0, channels, best[by * bins_w + bx])
                else:
                    best[by * bins_w + bx] = 0
        if channels_last:
            out[r] = best.reshape(bins_h, bins_w, channels)
        else:
            transpose(best, out[r].reshape(channels, bins_h * bins_w))


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
    """Add each bin's gradient to the first pixel that holds its largest value, in channels `start:stop`.

    The largest values are found again: that is faster than to keep where they were, which is as large as the output.
    Threads share channels, not regions: each cell's sum runs over the regions in order, whatever their number.

    Args:
        grad: of max_forward's out, contiguous.
        start, stop: the range of channels.
        total: [B, H, W, C], added to.

    The others are those of `max_forward`.
    """
    bins_h, bins_w = rows.shape[1], columns.shape[1]
    bins = np.empty((bins_h * bins_w, stop - start), np.float32)
    best = np.empty(stop - start, np.float32)
    for r in range(pictures.size):
        read_bins(grad[r], channels_last, start, stop, bins)
        image, image_grad = features[pictures[r]], total[pictures[r]]
        for by in range(bins_h):
            top, bottom = rows[r, by]
            for bx in range(bins_w):
                left, right = columns[r, bx]
                if top >= bottom or left >= right:
                    continue
                _largest(image, top, bottom, left, right, start, stop, best)
                source = bins[by * bins_w + bx]
                for y in range(top, bottom):
                    for x in range(left, right):
                        _hand_over(image_grad[y, x, start:stop], source, image[y, x, start:stop], best)


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
    means = np.empty((bins_h * bins_w, channels), np.float32)
    for r in range(start, stop):
        image = features[pictures[r]]
        for by in range(bins_h):
            top, bottom = rows[r, by]
            for bx in range(bins_w):
                left, right = columns[r, bx]
                b = by * bins_w + bx
                first = b * channels if by_position else 0
                mean = means[b]
                mean[:] = 0
                for y in range(top, bottom):
                    for x in range(left, right):
                        add_one(mean, image[y, x, first : first + channels], np.float32(1))
                mean *= np.float32(1) / np.float32(max((bottom - top) * (right - left), 1))
        if channels_last:
            out[r] = means.reshape(bins_h, bins_w, channels)
        else:
            transpose(means, out[r].reshape(channels, bins_h * bins_w))


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
    bins = np.empty((bins_h * bins_w, high - low), np.float32)
    for r in range(pictures.size):
        read_bins(grad[r], channels_last, low, high, bins)
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
