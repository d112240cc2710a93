"""Run lengths of masks: COCO's text form, unions, intersections, and polygons to runs."""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from numba import njit

BAD_CHARACTER, BAD_END = -1, -2

_FIVE_BITS, _SIGN, _MORE, _FIRST = 31, 16, 32, 48
"""COCO's text: five bits a character above "0", lowest first; the sixth says that more follow, the last's fifth is the
sign."""


@njit(cache=True, nogil=True)
def to_text(counts: Int32[np.ndarray, " K"]) -> UInt8[np.ndarray, " L"]:
    """COCO's compressed text, as uint8; from the fourth number on, the difference from two before is written."""
    text = np.empty(counts.size * 7, np.uint8)
    used = 0
    for i in range(counts.size):
        value = np.int64(counts[i])
        if i > 2:
            value -= np.int64(counts[i - 2])
        while True:
            bits = value & _FIVE_BITS
            value >>= 5
            # What is left is all sign: the last five bits must already show it.
            done = value == -1 if bits & _SIGN else value == 0
            text[used] = _FIRST + (bits if done else bits | _MORE)
            used += 1
            if done:
                break
    return text[:used]


@njit(cache=True, nogil=True)
def from_text(text: UInt8[np.ndarray, " L"], counts: Int64[np.ndarray, " L"]) -> int:
    """Read COCO's text (uint8) into counts [len(text)] int64; the number of counts, BAD_CHARACTER or BAD_END."""
    used, position = 0, 0
    while position < text.size:
        value, shift = np.int64(0), 0
        while True:
            if position == text.size:
                return BAD_END
            bits = np.int64(text[position]) - _FIRST
            position += 1
            # Thirteen characters hold more than 64 bits: no picture is that large.
            if bits < 0 or bits > 63 or shift > 55:
                return BAD_CHARACTER
            value |= (bits & _FIVE_BITS) << shift
            shift += 5
            if not bits & _MORE:
                if bits & _SIGN:
                    value |= np.int64(-1) << shift
                break
        counts[used] = value + (counts[used - 2] if used > 2 else 0)
        used += 1
    return used


@njit(cache=True, nogil=True)
def union(first: Int32[np.ndarray, " K"], second: Int32[np.ndarray, " M"]) -> Int32[np.ndarray, " U"]:
    """Counts of the union of two masks of one size; canonical if they cover the same number of pixels."""
    counts = np.empty(first.size + second.size + 1, np.int32)
    used, run = 0, np.int64(0)
    i, j = 0, 0
    left_i, left_j = np.int64(first[0]), np.int64(second[0])
    inside = False
    while True:
        while left_i == 0 and i + 1 < first.size:
            i += 1
            left_i = np.int64(first[i])
        while left_j == 0 and j + 1 < second.size:
            j += 1
            left_j = np.int64(second[j])
        step = min(left_i, left_j)
        if step == 0:
            break
        now = i % 2 == 1 or j % 2 == 1
        if now != inside:
            counts[used] = run
            used += 1
            run, inside = np.int64(0), now
        run += step
        left_i -= step
        left_j -= step
    counts[used] = run
    return counts[: used + 1]


@njit(cache=True, nogil=True)
def _shared(first: Int32[np.ndarray, " K"], second: Int32[np.ndarray, " M"]) -> np.int64:
    i, j, area = 0, 0, np.int64(0)
    end_i, end_j, at = np.int64(first[0]), np.int64(second[0]), np.int64(0)
    while True:
        end = min(end_i, end_j)
        if i % 2 == 1 and j % 2 == 1:
            area += end - at
        at = end
        if end_i == end:
            i += 1
            if i == first.size:
                return area
            end_i += first[i]
        if end_j == end:
            j += 1
            if j == second.size:
                return area
            end_j += second[j]


@njit(cache=True, nogil=True)
def shared_areas(
    first: Int32[np.ndarray, " K"],
    first_starts: Int64[np.ndarray, " N1"],
    first_boxes: Float32[np.ndarray, "N 4"],
    second: Int32[np.ndarray, " J"],
    second_starts: Int64[np.ndarray, " M1"],
    second_boxes: Float32[np.ndarray, "M 4"],
    areas: Float64[np.ndarray, "N M"],
) -> None:
    """Pixels that each mask of one list shares with each of another.

    Args:
        first: counts of all masks, one after the other.
        first_starts: [N + 1] where each mask's counts begin.
        first_boxes: [N, 4] xyxy around each; boxes apart spare the walk over the runs.
        second, second_starts, second_boxes: the other list, M masks.
        areas: [N, M] float64, written.
    """
    for n in range(first_starts.size - 1):
        a, runs = first_boxes[n], first[first_starts[n] : first_starts[n + 1]]
        for m in range(second_starts.size - 1):
            b = second_boxes[m]
            areas[n, m] = 0
            if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
                areas[n, m] = _shared(runs, second[second_starts[m] : second_starts[m + 1]])


_FINE = 5
"""Polygons are drawn on a grid this much finer than the pixels."""


@njit(cache=True, nogil=True)
def _toggle(toggles: Int64[np.ndarray, " T"], used: int, column: int, row_low: int, height: int, width: int) -> int:
    """Note where the outline passes from fine column `column` to the next, if pixel centres lie between the two."""
    if column < 2 or column % _FINE != 2 or column // _FINE >= width:
        return used
    row = (row_low + 0.5) / _FINE - 0.5
    row = min(max(row, 0.0), float(height))
    if used < toggles.size:
        toggles[used] = (column // _FINE) * height + np.int64(np.ceil(row))
    return used + 1


@njit(cache=True, nogil=True)
def polygon_toggles(
    points: Float64[np.ndarray, "P 2"], height: int, width: int, toggles: Int64[np.ndarray, " T"]
) -> int:
    """Positions (column-major) at which the outline switches between outside and inside.

    The outline is traced on the fine grid, edge by edge, one fine pixel a step along the longer side. Where a step
    crosses a column of pixel centres, all pixels of that column at or below it change sides. COCO's rasteriser draws
    the same line, and rounds the same way (towards zero), so the masks are equal pixel for pixel.

    Args:
        points: [P, 2] x, y float64.
        height, width: of the mask.
        toggles: int64, written as far as it reaches.

    Returns:
        number of toggles, which may exceed the room.
    """
    used, count = 0, points.shape[0]
    for p in range(count):
        q = (p + 1) % count
        xs, ys = int(_FINE * points[p, 0] + 0.5), int(_FINE * points[p, 1] + 0.5)
        xe, ye = int(_FINE * points[q, 0] + 0.5), int(_FINE * points[q, 1] + 0.5)
        across, down = abs(xe - xs), abs(ye - ys)
        if (across >= down and xs > xe) or (across < down and ys > ye):
            xs, ys, xe, ye = xe, ye, xs, ys
        if across >= down and across > 0:
            slope = (ye - ys) / across
            # The columns of pixel centres from xs on, none beyond the mask.
            column = max(2, xs + (2 - xs) % _FINE)
            while column < min(xe, _FINE * width):
                low = min(int(ys + slope * (column - xs) + 0.5), int(ys + slope * (column + 1 - xs) + 0.5))
                used = _toggle(toggles, used, column, low, height, width)
                column += _FINE
        elif down > 0:
            slope = (xe - xs) / down
            before = int(xs + 0.5)
            for t in range(1, down + 1):
                after = int(xs + slope * t + 0.5)
                if after != before:
                    used = _toggle(toggles, used, min(before, after), ys + t - 1, height, width)
                before = after
    return used


@njit(cache=True, nogil=True)
def toggles_to_counts(toggles: Int64[np.ndarray, " T"], pixels: int) -> Int32[np.ndarray, " K"]:
    """Run lengths from sorted toggles; two at one place cancel, as do those at the very end."""
    counts = np.empty(toggles.size + 1, np.int32)
    used, at, i = 0, np.int64(0), 0
    while i < toggles.size:
        here, odd = toggles[i], False
        while i < toggles.size and toggles[i] == here:
            odd = not odd
            i += 1
        if odd and here < pixels:
            counts[used] = here - at
            at = here
            used += 1
    counts[used] = pixels - at
    return counts[: used + 1]
