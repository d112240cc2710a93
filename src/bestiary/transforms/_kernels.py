"""Serial numba kernels (they run in the loader's workers): nearest-neighbour sampling and hue."""

import numba
import numpy as np

from bestiary import kernel_cache as kernel_cache

TIE = 1e-7
"""Pixels; a centre that falls on the border of two pixels belongs to the right or lower one, whatever rounding did."""


@numba.njit(cache=True, nogil=True)
def sample_nearest(
    source: np.ndarray, inverse: np.ndarray, window: np.ndarray, region: np.ndarray, out: np.ndarray
) -> None:
    """Fill `out[y1:y2, x1:x2]` (`region` x1, y1, x2, y2) from `source [H, W]`; pixels that fall outside `window` stay
    as they are.
    """
    left, top, right, bottom = window[0], window[1], window[2], window[3]
    if inverse[0, 1] == 0.0 and inverse[1, 0] == 0.0:
        columns = np.empty(region[2] - region[0], np.int64)
        for x in range(region[0], region[2]):
            column = int(np.floor(inverse[0, 0] * (x + 0.5) + inverse[0, 2] + TIE))
            columns[x - region[0]] = column if left <= column < right else -1
        for y in range(region[1], region[3]):
            row = int(np.floor(inverse[1, 1] * (y + 0.5) + inverse[1, 2] + TIE))
            if top <= row < bottom:
                for x in range(region[0], region[2]):
                    column = columns[x - region[0]]
                    if column >= 0:
                        out[y, x] = source[row, column]
        return
    for y in range(region[1], region[3]):
        for x in range(region[0], region[2]):
            column = int(np.floor(inverse[0, 0] * (x + 0.5) + inverse[0, 1] * (y + 0.5) + inverse[0, 2] + TIE))
            row = int(np.floor(inverse[1, 0] * (x + 0.5) + inverse[1, 1] * (y + 0.5) + inverse[1, 2] + TIE))
            if left <= column < right and top <= row < bottom:
                out[y, x] = source[row, column]


@numba.njit(cache=True, nogil=True)
def sample_field(source: np.ndarray, xs: np.ndarray, ys: np.ndarray, out: np.ndarray) -> None:
    """`out[y, x] = source[floor(ys[y, x]), floor(xs[y, x])]` where that is inside; continuous coordinates."""
    height, width = source.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            column = int(np.floor(xs[y, x] + TIE))
            row = int(np.floor(ys[y, x] + TIE))
            if 0 <= column < width and 0 <= row < height:
                out[y, x] = source[row, column]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def turn_hue(pixels: np.ndarray, turns: float, top: float) -> None:
    """Float32 RGB `[P, 3]`, 0..top, in place: clip, turn the hue by `turns` of a circle, keep saturation and value.

    Without branches or remainders, so that it becomes vector code: all selections are between two known numbers.
    """
    zero, one, six, limit = np.float32(0), np.float32(1), np.float32(6), np.float32(top)
    turn = np.float32((6.0 * turns) % 6.0)
    for p in range(pixels.shape[0]):
        r = min(max(pixels[p, 0], zero), limit)
        g = min(max(pixels[p, 1], zero), limit)
        b = min(max(pixels[p, 2], zero), limit)
        high, low = max(max(r, g), b), min(min(r, g), b)
        spread = high - low
        share = one / (spread if spread > zero else one)
        sextant = (r - g) * share + np.float32(4)
        sextant = (b - r) * share + np.float32(2) if high == g else sextant
        sextant = (g - b) * share if high == r else sextant
        sextant += turn
        sextant = sextant + six if sextant < zero else sextant
        sextant = sextant - six if sextant >= six else sextant
        for c in range(3):
            k = sextant + np.float32(5 - 2 * c)
            k = k - six if k >= six else k
            pixels[p, c] = high - spread * max(zero, min(min(k, np.float32(4) - k), one))
