"""Normed gradients, their bits, and the 8 x 8 template over them."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

SIDE = 8
"""Pixels along a side of the template: 64 bits are one window."""

CELLS = 1024
"""Cells that scores are counted in."""

CHUNK = 4
"""Positions looked at for each one taken, at first."""


@intrinsic
def count_ones_in(typing_context: Any, bits: Any) -> Any:
    """How many bits of an unsigned integer are set: one instruction."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_count_ones: Any = count_ones_in  # a call has one argument: the context is numba's


@njit(cache=True, nogil=True)
def halve_rows(planes: np.ndarray) -> np.ndarray:
    """Means of rows 2 i and 2 i + 1, a half rounded up; an odd last row is left out. `[C, H, W]` of uint8."""
    channels, height, width = planes.shape
    out = np.empty((channels, height // 2, width), np.uint8)
    for c in range(channels):
        for y in range(height // 2):
            for x in range(width):
                out[c, y, x] = (np.uint16(planes[c, 2 * y, x]) + np.uint16(planes[c, 2 * y + 1, x]) + 1) >> 1
    return out


@njit(cache=True, nogil=True)
def halve_columns(planes: np.ndarray) -> np.ndarray:
    """Means of columns 2 i and 2 i + 1, as `halve_rows`."""
    channels, height, width = planes.shape
    out = np.empty((channels, height, width // 2), np.uint8)
    for c in range(channels):
        for y in range(height):
            for x in range(width // 2):
                out[c, y, x] = (np.uint16(planes[c, y, 2 * x]) + np.uint16(planes[c, y, 2 * x + 1]) + 1) >> 1
    return out


@njit(cache=True, nogil=True)
def normed_gradients(planes: np.ndarray) -> np.ndarray:
    """min(|gx| + |gy|, 255) by the mask [-1, 0, 1]; of the channels, the one that differs most counts in each
    direction. At the border the one-sided difference counts twice. `[C, H, W]` of uint8, both sides at least 2.
    """
    channels, height, width = planes.shape
    out = np.empty((height, width), np.uint8)
    across, down = np.empty(width, np.int32), np.empty(width, np.int32)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        across[:] = 0
        down[:] = 0
        for c in range(channels):
            row, row_above, row_below = planes[c, y], planes[c, above], planes[c, below]
            for x in range(1, width - 1):
                across[x] = max(across[x], abs(np.int32(row[x + 1]) - np.int32(row[x - 1])))
            across[0] = max(across[0], 2 * abs(np.int32(row[1]) - np.int32(row[0])))
            last = width - 1
            across[last] = max(across[last], 2 * abs(np.int32(row[last]) - np.int32(row[last - 1])))
            for x in range(width):
                down[x] = max(down[x], abs(np.int32(row_below[x]) - np.int32(row_above[x])))
        times = 2 if y == 0 or y == height - 1 else 1
        for x in range(width):
            out[y, x] = min(across[x] + times * down[x], 255)
    return out


@njit(cache=True, nogil=True)
def binary_scores(gradients: np.ndarray, masks: np.ndarray, factors: np.ndarray, bits: int) -> np.ndarray:
    """Scores of all windows: sum_j factors[j] sum_k 2^(8-k) (2 |masks[j] & b_k| - |b_k|), b_k the 64 k-th highest bits
    of the window, k = 1 .. `bits` (equation 6 of the paper).

    A window's bits are those of the window above, moved up by a row, and a row's 8 bits (algorithm 2). The row's are
    put together from 8 neighbours instead of from the window to the left, so that a row is done many at a time.
    """
    height, width = gradients.shape
    columns = width - SIDE + 1
    out = np.zeros((height - SIDE + 1, columns), np.float32)
    windows = np.zeros((bits, columns), np.uint64)
    single, row = np.empty(width, np.uint8), np.empty(columns, np.uint8)
    every, both = np.empty(columns, np.int32), np.empty((len(masks), columns), np.int32)
    for y in range(height):
        every[:] = 0
        both[:] = 0
        for k in range(bits):
            shift, found = 7 - k, windows[k]
            line = gradients[y]
            for x in range(width):
                single[x] = (line[x] >> np.uint8(shift)) & np.uint8(1)
            row[:] = 0
            for i in range(SIDE):
                shifted = single[SIDE - 1 - i :]
                for x in range(columns):
                    row[x] |= shifted[x] << np.uint8(i)
            for x in range(columns):
                found[x] = (found[x] << np.uint64(SIDE)) | np.uint64(row[x])
            if y < SIDE - 1:
                continue
            for x in range(columns):
                every[x] += np.int32(_count_ones(found[x])) << shift
            for j in range(len(masks)):
                mask, some = masks[j], both[j]
                for x in range(columns):
                    some[x] += np.int32(_count_ones(found[x] & mask)) << (shift + 1)
        if y >= SIDE - 1:
            target = out[y - SIDE + 1]
            for j in range(len(masks)):
                factor, some = factors[j], both[j]
                for x in range(columns):
                    target[x] += factor * np.float32(some[x] - every[x])
    return out


@njit(cache=True, nogil=True)
def exact_scores(gradients: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Scores of all windows, the template's weights `[8, 8]` of float32 as they are."""
    height, width = gradients.shape
    out = np.zeros((height - SIDE + 1, width - SIDE + 1), np.float32)
    for y in range(height - SIDE + 1):
        for i in range(SIDE):
            for j in range(SIDE):
                value = weight[i, j]
                for x in range(width - SIDE + 1):
                    out[y, x] += value * np.float32(gradients[y + i, x + j])
    return out


@njit(cache=True, nogil=True)
def _limit_of(scores: np.ndarray, wanted: int) -> float:
    """A number that at least `wanted` scores reach, and not many more; by counting, since sorting would take longest
    of all.
    """
    low, high = scores.min(), scores.max()
    if len(scores) <= wanted or not high > low:
        return low
    step = (high - low) / CELLS
    counts = np.zeros(CELLS + 1, np.int64)
    for value in scores:
        counts[int((value - low) / step)] += 1
    cell = CELLS
    reached = counts[cell]
    while reached < wanted and cell > 0:
        cell -= 1
        reached += counts[cell]
    # One cell more: rounding may have put a score that belongs to this one into the next.
    return low + (cell - 1) * step


@njit(cache=True, nogil=True)
def suppress(scores: np.ndarray, radius: int, most: int) -> np.ndarray:
    """Flat places of at most `most` positions, best first: each is the best (the first in reading order, of equal ones)
    that has none of those before within `radius` in both directions.
    """
    height, width = scores.shape
    flat = scores.ravel()
    taken, count = np.empty(most, np.int64), 0
    hidden = np.zeros((height, width), np.uint8)
    wanted = CHUNK * most
    done = np.float32(np.inf)
    while True:
        limit = np.float32(_limit_of(flat, wanted))
        places = np.empty(len(flat), np.int64)
        found = 0
        for i in range(len(flat)):
            if flat[i] >= limit and flat[i] < done:
                places[found] = i
                found += 1
        places = places[:found]
        for i in places[np.argsort(-flat[places], kind="mergesort")]:
            y, x = i // width, i % width
            if hidden[y, x]:
                continue
            taken[count] = i
            count += 1
            if count == most:
                return taken
            hidden[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = 1
        if wanted >= len(flat):
            return taken[:count]
        done, wanted = min(done, limit), 4 * wanted
