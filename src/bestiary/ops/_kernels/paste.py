"""Soft masks resampled into pictures: along x once for each of the mask's few rows, then along y for each pixel row."""

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8
from numba import njit

from bestiary.geometry._kernels.instructions import multiply_add
from bestiary.geometry._kernels.pixels import encode, room

Taps = tuple[Int32[np.ndarray, "N L"], Float32[np.ndarray, "N L"], Int64[np.ndarray, "N 2"]]
"""For each pixel along an axis the lower sample and the weight of the next; the pixels, from and to, that take any."""


@njit(cache=True, nogil=True)
def _widen(soft: Float32[np.ndarray, "N P Q"], n: int, columns: Taps, wide: Float32[np.ndarray, "P W"]) -> None:
    """Mask n along x: all its rows, as wide as the picture's part that it covers."""
    low, weight, begin, end = columns[0][n], columns[1][n], columns[2][n, 0], columns[2][n, 1]
    one = np.float32(1)
    for p in range(soft.shape[1]):
        row, into = soft[n, p], wide[p]
        for x in range(begin, end):
            high = row[low[x] + 1] * weight[x]
            into[x - begin] = multiply_add(row[low[x]], one - weight[x], high)


@njit(cache=True, nogil=True)
def _row(
    soft: Float32[np.ndarray, "N P Q"],
    n: int,
    y: int,
    columns: Taps,
    rows: Taps,
    wide: Float32[np.ndarray, "P W"],
    at_once: bool,
    values: Float32[np.ndarray, " w"],
) -> None:
    """Row y of the picture's part that mask n covers, in one of two orders of rounding (see `paste`)."""
    begin, end, one = columns[2][n, 0], columns[2][n, 1], np.float32(1)
    p, w1 = rows[0][n, y], rows[1][n, y]
    w0 = one - w1
    if not at_once:
        upper, lower = wide[p], wide[p + 1]
        for i in range(end - begin):
            values[i] = multiply_add(upper[i], w0, lower[i] * w1)
        return
    upper, lower = soft[n, p], soft[n, p + 1]
    for i in range(end - begin):
        q, v1 = columns[0][n, begin + i], columns[1][n, begin + i]
        v0 = one - v1
        value = multiply_add(w0 * v0, upper[q], w0 * v1 * upper[q + 1])
        value = multiply_add(w1 * v0, lower[q], value)
        values[i] = multiply_add(w1 * v1, lower[q + 1], value)


@njit(cache=True, nogil=True)
def paste(
    soft: Float32[np.ndarray, "N P Q"],
    columns: Taps,
    rows: Taps,
    at_once: Bool[np.ndarray, " N"],
    start: int,
    stop: int,
    out: Float32[np.ndarray, "N H W"],
) -> None:
    """Write masks `start:stop` into `out`, which is zero: value (1 - w) at the lower sample + w at the next.

    Args:
        soft: masks.
        columns, rows: what the picture's columns and rows take.
        at_once: sum the four samples with products of weights, rather than along x and then along y. The answers differ
            in the last bit, and torch's own resizing does the one for small outputs and the other for large ones.
        out: written inside the ranges only, so that pages which no mask touches stay untouched.
    """
    wide = np.empty((soft.shape[1], out.shape[2]), np.float32)
    for n in range(start, stop):
        begin, end = columns[2][n, 0], columns[2][n, 1]
        if begin >= end:
            continue
        _widen(soft, n, columns, wide)
        for y in range(rows[2][n, 0], rows[2][n, 1]):
            _row(soft, n, y, columns, rows, wide, at_once[n], out[n, y, begin:end])


@njit(cache=True, nogil=True)
def _above(
    soft: Float32[np.ndarray, "N P Q"],
    n: int,
    columns: Taps,
    rows: Taps,
    at_once: bool,
    threshold: float,
    out: UInt8[np.ndarray, " L"],
    origin: int,
    stride: int,
) -> None:
    """The picture's part that mask n covers, 1 where strictly above the threshold; the first goes to `out[origin]`."""
    width = columns[2][n, 1] - columns[2][n, 0]
    if width <= 0:
        return
    wide, values = np.empty((soft.shape[1], width), np.float32), np.empty(width, np.float32)
    _widen(soft, n, columns, wide)
    for y in range(rows[2][n, 0], rows[2][n, 1]):
        _row(soft, n, y, columns, rows, wide, at_once, values)
        place = origin + (y - rows[2][n, 0]) * stride
        into = out[place : place + width]
        for i in range(width):
            into[i] = values[i] > threshold


@njit(cache=True, nogil=True)
def paste_above(
    soft: Float32[np.ndarray, "N P Q"],
    columns: Taps,
    rows: Taps,
    at_once: Bool[np.ndarray, " N"],
    threshold: float,
    start: int,
    stop: int,
    out: UInt8[np.ndarray, " L"],
) -> None:
    """`paste`, 1 where the value is strictly above the threshold (float32); `out` is [N, H, W], flat."""
    height, width = rows[0].shape[1], columns[0].shape[1]
    for n in range(start, stop):
        origin = (n * height + rows[2][n, 0]) * width + columns[2][n, 0]
        _above(soft, n, columns, rows, at_once[n], threshold, out, origin, width)


@njit(cache=True, nogil=True)
def paste_counts(
    soft: Float32[np.ndarray, "N P Q"],
    columns: Taps,
    rows: Taps,
    at_once: Bool[np.ndarray, " N"],
    threshold: float,
    start: int,
    stop: int,
) -> tuple[Int32[np.ndarray, " K"], Int64[np.ndarray, " M1"]]:
    """`paste_above` as run lengths, by way of each mask's own part only: all counts, and where each mask's begin."""
    height, width = rows[0].shape[1], columns[0].shape[1]
    corner, starts = np.zeros((1, 2), np.int64), np.zeros(stop - start + 1, np.int64)
    counts, total = np.empty((stop - start) * 256, np.int32), 0
    for n in range(start, stop):
        h, w = rows[2][n, 1] - rows[2][n, 0], columns[2][n, 1] - columns[2][n, 0]
        found = np.full(1, height * width, np.int32)
        if h > 0 and w > 0:
            part = np.empty(h * w, np.uint8)
            _above(soft, n, columns, rows, at_once[n], threshold, part, 0, w)
            corner[0, 0], corner[0, 1] = rows[2][n, 0], columns[2][n, 0]
            found, _ = encode(part.reshape(1, h, w), corner, 0, 1, height, width)
        counts = room(counts, total, found.size)
        counts[total : total + found.size] = found
        total += found.size
        starts[n - start + 1] = total
    return counts[:total].copy(), starts
