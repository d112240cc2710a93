"""Distances to the nearest pixel of a set, to the nearest two things, and lower envelopes of parabolas."""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from numba import njit


@njit(cache=True, nogil=True)
def column_gaps(pixels: UInt8[np.ndarray, "N H W"], start: int, stop: int, gaps: Int32[np.ndarray, "N H W"]) -> None:
    """Rows between each pixel and the nearest 0 of its column, in `start:stop`; H + W where the column has none."""
    height, width = pixels.shape[1], pixels.shape[2]
    far = np.int32(height + width)
    for n in range(start, stop):
        for y in range(height):
            into, row = gaps[n, y], pixels[n, y]
            if y == 0:
                for x in range(width):
                    into[x] = far if row[x] else np.int32(0)
            else:
                above = gaps[n, y - 1]
                for x in range(width):
                    into[x] = min(above[x] + np.int32(1), far) if row[x] else np.int32(0)
        for y in range(height - 2, -1, -1):
            into, below = gaps[n, y], gaps[n, y + 1]
            for x in range(width):
                into[x] = min(into[x], below[x] + np.int32(1))


@njit(cache=True, nogil=True)
def nearest_columns(
    gaps: Int32[np.ndarray, "R W"], start: int, stop: int, far: int, columns: Int32[np.ndarray, "R W"]
) -> None:
    """For each pixel of rows `start:stop` the column u, lowest of equals, of the least (x - u)^2 + gaps[u]^2.

    The parabolas' lower envelope (Felzenszwalb and Huttenlocher 2012, section 2.1) in whole numbers: parabola u is
    below an earlier v from x on where x exceeds ((u^2 + g_u^2) - (v^2 + g_v^2)) / (2 (u - v)).

    Args:
        gaps: rows to the nearest pixel of the set, `far` and more where a column has none.
        columns: written; -1 where no column of the row has any.
    """
    width = gaps.shape[1]
    site, begin, height = np.empty(width, np.int64), np.empty(width + 1, np.int64), np.empty(width, np.int64)
    for r in range(start, stop):
        row, into = gaps[r], columns[r]
        top = -1
        for u in range(width):
            gap = np.int64(row[u])
            if gap >= far:
                continue
            level, first = u * u + gap * gap, np.int64(0)
            while top >= 0:
                # The first whole x at which u is strictly lower.
                first = (level - height[top]) // (2 * (u - site[top])) + 1
                if first > begin[top]:
                    break
                top -= 1
            first = max(first, 0) if top >= 0 else np.int64(0)
            if first < width:
                top += 1
                site[top], height[top], begin[top] = u, level, first
        k = 0
        for i in range(top + 1):
            end = begin[i + 1] if i < top else np.int64(width)
            while k < end:
                into[k] = site[i]
                k += 1
        while k < width:
            into[k] = -1
            k += 1


@njit(cache=True, nogil=True)
def distances(
    gaps: Int32[np.ndarray, "R W"],
    columns: Int32[np.ndarray, "R W"],
    start: int,
    stop: int,
    out: Float32[np.ndarray, "R W"],
) -> None:
    """Square roots of (x - u)^2 + gaps[u]^2 for the columns u found; infinite where there is none."""
    for r in range(start, stop):
        for x in range(gaps.shape[1]):
            u = columns[r, x]
            across, down = np.float64(x - u), np.float64(gaps[r, max(u, 0)])
            out[r, x] = np.sqrt(across * across + down * down) if u >= 0 else np.inf


@njit(cache=True, nogil=True)
def envelope(
    costs: Float64[np.ndarray, "R L"],
    quadratic: Float64[np.ndarray, " R"],
    linear: Float64[np.ndarray, " R"],
    start: int,
    stop: int,
    sources: Int64[np.ndarray, "R L"],
) -> None:
    """For each p of lines `start:stop` the q of the least costs[q] + a (p - q)^2 + b (p - q), lowest q of equals.

    Felzenszwalb and Huttenlocher 2012, section 2.1, with a linear term: parabolas q < r meet at
    ((c_r + a r^2 - b r) - (c_q + a q^2 - b q)) / (2 a (r - q)). Infinite costs are no parabolas.

    Args:
        costs: above -inf.
        quadratic: a > 0 of each line.
        linear: b of each line.
        sources: written; 0 where all costs are infinite.
    """
    length = costs.shape[1]
    site, begin = np.empty(length, np.int64), np.empty(length, np.float64)
    for r in range(start, stop):
        a, b, row, into = quadratic[r], linear[r], costs[r], sources[r]
        top = -1
        for q in range(length):
            if row[q] == np.inf:
                continue
            meet = -np.inf
            while top >= 0:
                v = site[top]
                # The difference of the squares as a product: exact, where their own rounding is not.
                meet = 0.5 * ((row[q] - row[v]) / (a * (q - v)) - b / a + (q + v))
                if meet > begin[top]:
                    break
                top -= 1
                meet = -np.inf
            top += 1
            site[top], begin[top] = q, meet
        k = 0
        for p in range(length):
            while k < top and begin[k + 1] < p:
                k += 1
            into[p] = site[k] if top >= 0 else 0


@njit(cache=True, nogil=True)
def two_nearest(cells: Int32[np.ndarray, "H W"], count: int, reach: int, squares: Int64[np.ndarray, "2 H W"]) -> None:
    """Squared distances of each pixel to its nearest two cells; -1 where there is none within reach.

    Each cell is looked at in its own neighbourhood only: cost grows with the cells' extents, not with their number
    times the picture.

    Args:
        cells: number, 1 to `count`, of the cell that each pixel belongs to, 0 for none.
        count: of cells.
        reach: columns and rows around a cell's box in which it counts.
        squares: written.
    """
    height, width = cells.shape
    boxes = np.empty((count + 1, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = max(height, width), 0
    for y in range(height):
        for x in range(width):
            box = boxes[cells[y, x]]
            box[0], box[1] = min(box[0], y), min(box[1], x)
            box[2], box[3] = max(box[2], y + 1), max(box[3], x + 1)
    squares[:] = -1
    for number in range(1, count + 1):
        if boxes[number, 0] >= boxes[number, 2]:
            continue
        top, left = max(boxes[number, 0] - reach, 0), max(boxes[number, 1] - reach, 0)
        bottom, right = min(boxes[number, 2] + reach, height), min(boxes[number, 3] + reach, width)
        h, w = bottom - top, right - left
        outside = np.empty((1, h, w), np.uint8)
        for y in range(h):
            for x in range(w):
                outside[0, y, x] = cells[top + y, left + x] != number
        gaps, columns = np.empty((1, h, w), np.int32), np.empty((h, w), np.int32)
        column_gaps(outside, 0, 1, gaps)
        nearest_columns(gaps[0], 0, h, h + w, columns)
        for y in range(h):
            best, second = squares[0, top + y], squares[1, top + y]
            for x in range(w):
                across, down = x - columns[y, x], np.int64(gaps[0, y, columns[y, x]])
                square, place = across * across + down * down, left + x
                if best[place] < 0 or square < best[place]:
                    best[place], second[place] = square, best[place]
                elif second[place] < 0 or square < second[place]:
                    second[place] = square
