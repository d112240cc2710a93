"""Polygons to run lengths, as COCO draws them."""

import numpy as np
from jaxtyping import Float64, Int32, Int64
from numba import njit

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
