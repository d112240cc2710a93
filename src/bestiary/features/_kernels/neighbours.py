"""The nearest rows of a store: bytes by L1 or squared L2, histograms by intersection."""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

TILE = 64
"""Rows of the store that stay in the cache while all queries of a range pass by."""

RUN = 16384
"""Bytes whose squared differences are sure to fit a 32-bit sum (16384 * 255^2 < 2^31): it fills a vector register with
twice as many as a 64-bit one."""


@njit(cache=True, nogil=True)
def _insert(distance: float, index: int, distances: np.ndarray, indices: np.ndarray) -> None:
    """Put a pair into its place among the ascending k; of equal ones the earlier comer stays ahead."""
    place = distances.shape[0] - 1
    if not distance < distances[place]:
        return
    while place > 0 and distance < distances[place - 1]:
        distances[place], indices[place] = distances[place - 1], indices[place - 1]
        place -= 1
    distances[place], indices[place] = distance, index


@njit(cache=True, nogil=True)
def _absolute(a: np.ndarray, b: np.ndarray) -> np.int64:
    total = np.int32(0)
    for i in range(a.shape[0]):
        total += np.int32(abs(np.int16(a[i]) - np.int16(b[i])))
    return np.int64(total)


@njit(cache=True, nogil=True)
def _squared(a: np.ndarray, b: np.ndarray) -> np.int64:
    total = np.int32(0)
    for i in range(a.shape[0]):
        step = np.int32(a[i]) - np.int32(b[i])
        total += step * step
    return np.int64(total)


@njit(cache=True, nogil=True)
def nearest_bytes(
    queries: UInt8[np.ndarray, "M D"],
    store: UInt8[np.ndarray, "N D"],
    squares: bool,
    start: int,
    stop: int,
    distances: Float64[np.ndarray, "M k"],
    indices: Int64[np.ndarray, "M k"],
) -> None:
    """For queries `start:stop` the rows of the least sum of |a - b|, or of (a - b)^2 with `squares`; sums are exact.

    Args:
        queries: bytes.
        store: bytes.
        squares: whether differences are squared.
        start: first query.
        stop: after the last.
        distances: infinite; filled in ascending order.
        indices: filled; of equal distances the lower first.
    """
    size = store.shape[1]
    for first in range(0, store.shape[0], TILE):
        for m in range(start, stop):
            for n in range(first, min(first + TILE, store.shape[0])):
                total = np.int64(0)
                for run in range(0, size, RUN):
                    a, b = queries[m, run : run + RUN], store[n, run : run + RUN]
                    total += _squared(a, b) if squares else _absolute(a, b)
                _insert(np.float64(total), n, distances[m], indices[m])


@njit(cache=True, nogil=True)
def nearest_histograms(
    queries: Float32[np.ndarray, "M D"],
    bins: Float32[np.ndarray, "D N"],
    start: int,
    stop: int,
    distances: Float64[np.ndarray, "M k"],
    indices: Int64[np.ndarray, "M k"],
) -> None:
    """For queries `start:stop` the columns of the greatest sum of min(a, b), as ascending negative sums.

    A bin that is empty in the query adds nothing: most are, so they are passed over. Bins are added in their order,
    whatever the number of threads.

    Args:
        queries: histograms.
        bins: the store's histograms, a column each.
        start: first query.
        stop: after the last.
        distances: infinite; filled in ascending order.
        indices: filled; of equal sums the lower first.
    """
    common = np.empty(bins.shape[1], np.float32)
    for m in range(start, stop):
        common[:] = 0
        for d in range(bins.shape[0]):
            level, row = queries[m, d], bins[d]
            if level > 0:
                for n in range(common.shape[0]):
                    common[n] += min(level, row[n])
        for n in range(common.shape[0]):
            _insert(-np.float64(common[n]), n, distances[m], indices[m])
