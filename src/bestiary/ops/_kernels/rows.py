"""Sums over rows of channels, and rows turned into columns.

Rows are pieces of a flat array; all inner loops run over contiguous values.
"""

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from numba import njit

PAD = 16
"""Values added to each row of a block that will be read by columns: rows a power of two apart share cache sets."""


@njit(cache=True, nogil=True, error_model="numpy")
def copy_row(source: Float32[np.ndarray, " C"], target: Float32[np.ndarray, " C"]) -> None:
    """target = source; an assignment of slices would compile a second longer, for the message of its error."""
    for c in range(target.size):
        target[c] = source[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def add_one(total: Float32[np.ndarray, " C"], f0: Float32[np.ndarray, " C"], w0: np.float32) -> None:
    for c in range(total.size):
        total[c] += w0 * f0[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def add_four(
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
def _put_one(total: Float32[np.ndarray, " C"], f0: Float32[np.ndarray, " C"], w0: np.float32) -> None:
    for c in range(total.size):
        total[c] = w0 * f0[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _put_two(
    total: Float32[np.ndarray, " C"],
    f0: Float32[np.ndarray, " C"],
    f1: Float32[np.ndarray, " C"],
    w0: np.float32,
    w1: np.float32,
) -> None:
    for c in range(total.size):
        total[c] = w0 * f0[c] + w1 * f1[c]


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_sum(
    source: Float32[np.ndarray, " N"],
    first: int,
    step: int,
    indices: Int64[np.ndarray, " T"],
    weights: Float32[np.ndarray, " T"],
    count: int,
    scale: np.float32,
    total: Float32[np.ndarray, " C"],
) -> None:
    """total = scale * sum over k < count of weights[k] * source[first + indices[k] * step :][:C]; 0 without any."""
    size = total.size
    if count == 0:
        total[:] = 0
        return
    a, wa = first + indices[0] * step, scale * weights[0]
    if count == 1:
        _put_one(total, source[a : a + size], wa)
        return
    b, wb = first + indices[1] * step, scale * weights[1]
    _put_two(total, source[a : a + size], source[b : b + size], wa, wb)
    for k in range(2, count):
        d = first + indices[k] * step
        add_one(total, source[d : d + size], scale * weights[k])


@njit(cache=True, nogil=True, error_model="numpy")
def columns_of(
    block: Shaped[np.ndarray, "N _M"], first: int, stop: int, low: int, high: int, target: Shaped[np.ndarray, "M P"]
) -> None:
    """target[j, i] = block[i, j] for i in first:stop and j in low:high; writes run along rows."""
    for j in range(low, high):
        for i in range(first, stop):
            target[j, i] = block[i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def read_bins(
    grid: Float32[np.ndarray, "_ _ _"],
    channels_last: bool,
    first: int,
    stop: int,
    low: int,
    high: int,
    bins: Float32[np.ndarray, "P _c"],
) -> None:
    """Bins `first:stop`, channels `low:high` of a grid ([h, w, C] if channels-last, else [C, h, w]) as rows."""
    if channels_last:
        rows = grid.reshape(-1, grid.shape[2])
        for b in range(first, stop):
            copy_row(rows[b, low:high], bins[b, : high - low])
    else:
        columns = grid.reshape(grid.shape[0], -1)
        for j in range(high - low):
            for b in range(first, stop):
                bins[b, j] = columns[low + j, b]


@njit(cache=True, nogil=True, error_model="numpy")
def write_bins(bins: Float32[np.ndarray, "P _c"], channels_last: bool, grid: Float32[np.ndarray, "_ _ _"]) -> None:
    """The inverse of `read_bins`, of all bins and channels."""
    if channels_last:
        rows = grid.reshape(-1, grid.shape[2])
        for b in range(rows.shape[0]):
            copy_row(bins[b, : rows.shape[1]], rows[b])
    else:
        columns = grid.reshape(grid.shape[0], -1)
        columns_of(bins, 0, columns.shape[1], 0, columns.shape[0], columns)


@njit(cache=True, nogil=True, error_model="numpy")
def channels_first(
    pixels: Float32[np.ndarray, "B P C"], start: int, stop: int, target: Float32[np.ndarray, "B C P"]
) -> None:
    """target[b, c, p] = pixels[b, p, c] for the blocks `start:stop` of 32 pixels each, counted over the batch."""
    size, channels = pixels.shape[1:]
    per_map = -(-size // 32)
    block = np.empty((32, channels + PAD), np.float32)
    for k in range(start, stop):
        b, first = k // per_map, k % per_map * 32
        here = min(32, size - first)
        for i in range(here):
            copy_row(pixels[b, first + i], block[i, :channels])
        columns_of(block, 0, here, 0, channels, target[b, :, first : first + here])
