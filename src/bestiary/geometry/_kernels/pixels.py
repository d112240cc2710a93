"""Between pixels, row by row as tensors hold them, and run lengths, column by column as COCO counts them.

Runs begin where a pixel differs from the one above it. Whole rows are compared 64 pixels at a time, which finds all
beginnings in the order of the rows; sorting them by column (they are few) is the whole transposition.
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from numba import njit

from bestiary.geometry._kernels.instructions import differing_bytes, trailing_zeros, xor_bytes


@njit(cache=True, nogil=True)
def room(array: Int32[np.ndarray, " T"], used: int, more: int) -> Int32[np.ndarray, " S"]:
    """The array itself if `more` fit behind its first `used`, else a longer copy."""
    if used + more <= array.size:
        return array
    longer = np.empty(max(2 * array.size, used + more), array.dtype)
    longer[:used] = array[:used]
    return longer


@njit(cache=True, nogil=True)
def _changes(
    flat: UInt8[np.ndarray, " P"], above: int, below: int, width: int, columns: Int32[np.ndarray, " T"], used: int
) -> int:
    """Append the columns in which the row at `flat[below:]` differs from that at `flat[above:]`, ascending."""
    x = 0
    while x < width:
        if width - x >= 64:
            found, first, x = differing_bytes(flat, above + x, flat, below + x), x, x + 64
        elif width >= 64:
            # The last 64 pixels, less those that were seen.
            first = width - 64
            found = differing_bytes(flat, above + first, flat, below + first)
            found &= ~np.uint64(0) << np.uint64(x - first)
            x = width
        else:
            found, first, x = np.uint64(flat[above + x] != flat[below + x]), x, x + 1
        while found:
            columns[used] = first + np.int64(trailing_zeros(found))
            used += 1
            found &= found - np.uint64(1)
    return used


@njit(cache=True, nogil=True)
def _ones(flat: UInt8[np.ndarray, " P"], row: int, width: int, columns: Int32[np.ndarray, " T"], used: int) -> int:
    for x in range(width):
        columns[used] = x
        used += int(flat[row + x] != 0)
    return used


@njit(cache=True, nogil=True)
def encode(
    pixels: UInt8[np.ndarray, "N h w"],
    corners: Int64[np.ndarray, "C 2"],
    start: int,
    stop: int,
    height: int,
    width: int,
) -> tuple[Int32[np.ndarray, " K"], Int64[np.ndarray, " M1"]]:
    """Run lengths of masks `start:stop`, each a part of a picture that is zero elsewhere.

    Args:
        pixels: [N, h, w] 0 or 1, contiguous.
        corners: [C, 2] row and column of each part's top-left pixel; the part lies within the picture. With C = 1
            it is that of all parts.
        height, width: of the picture.

    Returns:
        the counts of all masks, one after the other, and where each mask's begin (and the last's end).
    """
    h, w = pixels.shape[1], pixels.shape[2]
    columns, rows = np.empty(4 * (h + w) + 64, np.int32), np.empty(h + 2, np.int64)
    sorted_rows = np.empty(columns.size, np.int32)
    begin, fill = np.empty(w + 1, np.int64), np.empty(w + 1, np.int64)
    counts, total = np.empty((stop - start) * 256 + 64, np.int32), 0
    starts = np.zeros(stop - start + 1, np.int64)
    for n in range(start, stop):
        flat = pixels[n].reshape(h * w)
        used = 0
        for y in range(h + 1):
            rows[y] = used
            columns = room(columns, used, w)
            if 0 < y < h:
                used = _changes(flat, (y - 1) * w, y * w, w, columns, used)
            else:
                used = _ones(flat, 0 if y == 0 else (y - 1) * w, w, columns, used)
        rows[h + 1] = used
        # Sort by column; within a column rows stay ascending.
        begin[:] = 0
        for i in range(used):
            begin[columns[i] + 1] += 1
        for x in range(w):
            begin[x + 1] += begin[x]
            fill[x] = begin[x]
        sorted_rows = room(sorted_rows, 0, used)
        for y in range(h + 1):
            for i in range(rows[y], rows[y + 1]):
                x = columns[i]
                sorted_rows[fill[x]] = y
                fill[x] += 1
        counts = room(counts, total, used + 1)
        top, left = corners[n % len(corners), 0], corners[n % len(corners), 1]
        at, first = 0, total
        for x in range(w):
            for i in range(begin[x], begin[x + 1]):
                here = (left + x) * height + top + sorted_rows[i]
                if here == at and total > first:
                    # The last column went on to the bottom and this one begins at the top: one run.
                    total -= 1
                    at -= counts[total]
                else:
                    counts[total] = here - at
                    at = here
                    total += 1
        # A run up to the very end needs no count of zeros behind it, as COCO writes it.
        if at < np.int64(height) * width or total == first:
            counts[total] = np.int64(height) * width - at
            total += 1
        starts[n - start + 1] = total
    return counts[:total].copy(), starts


@njit(cache=True, nogil=True)
def decode(
    counts: Int32[np.ndarray, " K"],
    starts: Int64[np.ndarray, " N1"],
    start: int,
    stop: int,
    pixels: UInt8[np.ndarray, "N H W"],
) -> None:
    """Write masks `start:stop` as 0 and 1.

    First each pixel that differs from the one above it is marked, then every row takes in the row above: both passes
    run along memory.

    Args:
        counts: of all masks, one after the other.
        starts: [N + 1] where each mask's begin.
        pixels: [N, H, W], contiguous, of any content.
    """
    height, width = pixels.shape[1], pixels.shape[2]
    for n in range(start, stop):
        flat = pixels[n].reshape(height * width)
        flat[:] = 0
        # y and x of the run's end, stepped rather than divided.
        x, y, value = 0, np.int64(0), np.uint8(0)
        for k in range(starts[n], starts[n + 1]):
            y += counts[k]
            while y >= height and x < width:
                # The next column begins with what this one ended with.
                y -= height
                x += 1
                if x < width:
                    flat[x] = value
            if x < width:
                flat[y * width + x] ^= np.uint8(1)
            value ^= np.uint8(1)
        for y in range(1, height):
            above, row = (y - 1) * width, y * width
            i = 0
            while i + 64 <= width:
                xor_bytes(flat, row + i, above + i)
                i += 64
            while i < width:
                flat[row + i] ^= flat[above + i]
                i += 1
