"""Overlaps and suppression of rotated rectangles, rows (x, y, half width, half height, cosine, sine)."""

import numpy as np
from jaxtyping import Bool, Float, Int64
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def shared_rows(
    one: Float[np.ndarray, "N 6"],
    others: Float[np.ndarray, "6 M"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "N M"],
) -> None:
    """Area that each rectangle of rows `start:stop` shares with each of the others, out [N, M]."""
    x, y, half_width, half_height, cos, sin = others[0], others[1], others[2], others[3], others[4], others[5]
    for i in range(start, stop):
        first, row = one[i], out[i]
        for j in range(row.size):
            row[j] = _shared(first, x[j], y[j], half_width[j], half_height[j], cos[j], sin[j])


@njit(cache=True, nogil=True, error_model="numpy")
def _shared(
    one: Float[np.ndarray, " 6"],
    x: np.floating,
    y: np.floating,
    half_width: np.floating,
    half_height: np.floating,
    cos: np.floating,
    sin: np.floating,
) -> np.floating:
    """`geometry.rotated_boxes.shared_area` of one pair, operation by operation."""
    x0, y0, a, b, cos0, sin0 = one[0], one[1], one[2], one[3], one[4], one[5]
    # Constants of the rectangles' type: mixed arithmetic would be in float64.
    zero, half, unit = one.dtype.type(0), one.dtype.type(0.5), one.dtype.type(1)
    far_x, far_y = x - x0, y - y0
    mid_x, mid_y = far_x * cos0 - far_y * sin0, far_x * sin0 + far_y * cos0
    turn_cos, turn_sin = cos * cos0 + sin * sin0, sin * cos0 - cos * sin0
    along_x, along_y = half_width * turn_cos, half_width * turn_sin
    down_x, down_y = half_height * turn_sin, half_height * turn_cos
    apart = abs(mid_x) >= a + abs(along_x) + abs(down_x)
    apart = apart | (abs(mid_y) >= b + abs(along_y) + abs(down_y))
    apart = apart | (abs(mid_x * turn_cos - mid_y * turn_sin) >= half_width + a * abs(turn_cos) + b * abs(turn_sin))
    apart = apart | (abs(mid_x * turn_sin + mid_y * turn_cos) >= half_height + a * abs(turn_sin) + b * abs(turn_cos))
    if apart:
        return zero
    ax, ay = mid_x - along_x - down_x, mid_y + along_y - down_y
    bx, by = mid_x + along_x - down_x, mid_y - along_y - down_y
    cx, cy = mid_x + along_x + down_x, mid_y - along_y + down_y
    dx, dy = mid_x - along_x + down_x, mid_y + along_y + down_y
    area = -_area_under(ax, ay, bx, by, a, b, zero, half, unit)
    area = area - _area_under(bx, by, cx, cy, a, b, zero, half, unit)
    area = area - _area_under(cx, cy, dx, dy, a, b, zero, half, unit)
    area = area - _area_under(dx, dy, ax, ay, a, b, zero, half, unit)
    return area if area > zero else zero


@njit(cache=True, nogil=True, error_model="numpy")
def _between(value: np.floating, low: np.floating, high: np.floating) -> np.floating:
    value = value if value > low else low
    return value if value < high else high


@njit(cache=True, nogil=True, error_model="numpy")
def _area_under(
    x0: np.floating,
    y0: np.floating,
    x1: np.floating,
    y1: np.floating,
    a: np.floating,
    b: np.floating,
    zero: np.floating,
    half: np.floating,
    unit: np.floating,
) -> np.floating:
    run, rise = x1 - x0, y1 - y0
    left, right = _between(x0, -a, a), _between(x1, -a, a)
    divisor = unit if run == zero else run
    begin = y0 + _between((left - x0) / divisor, zero, unit) * rise
    end = y1 - _between((x1 - right) / divisor, zero, unit) * rise
    low, high = _between(begin, -b, b), _between(end, -b, b)
    climb = end - begin
    divisor = unit if climb == zero else climb
    before, after = _between((low - begin) / divisor, zero, unit), _between((end - high) / divisor, zero, unit)
    return (right - left) * ((low + high) * half + (before - after) * (low - high) * half)


@njit(cache=True, nogil=True, error_model="numpy")
def suppress_rotated(
    rows: Float[np.ndarray, "N 6"],
    starts: Int64[np.ndarray, " G1"],
    threshold: np.floating,
    keep: Bool[np.ndarray, " N"],
) -> None:
    """Mark the rectangles that survive within each group.

    A rectangle is compared with those already kept whose hulls meet its own, until one overlaps it too much.

    Args:
        rows: [N, 6] sorted by group, then from the best down; contiguous.
        starts: [G + 1] where each group begins.
        threshold: of the rows' type, 0 or more; IoU above it suppresses.
        keep: [N] written.
    """
    count = rows.shape[0]
    reach = np.empty((2, count), rows.dtype)
    areas = np.empty(count, rows.dtype)
    for i in range(count):
        cos, sin = abs(rows[i, 4]), abs(rows[i, 5])
        reach[0, i] = rows[i, 2] * cos + rows[i, 3] * sin
        reach[1, i] = rows[i, 2] * sin + rows[i, 3] * cos
        areas[i] = 4 * rows[i, 2] * rows[i, 3]
    kept = np.empty(count, np.int64)
    for g in range(starts.size - 1):
        num_kept = 0
        for j in range(starts[g], starts[g + 1]):
            alive = True
            for place in range(num_kept):
                i = kept[place]
                # Half a per cent more than the hulls: the overlap itself is rounded.
                near_x = abs(rows[i, 0] - rows[j, 0]) <= (reach[0, i] + reach[0, j]) * 1.005
                near_y = abs(rows[i, 1] - rows[j, 1]) <= (reach[1, i] + reach[1, j]) * 1.005
                if near_x and near_y and _ratio(rows[i], rows[j], areas[i], areas[j]) > threshold:  # type: ignore[arg-type]
                    alive = False
                    break
            keep[j] = alive
            if alive:
                kept[num_kept] = j
                num_kept += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _ratio(
    one: Float[np.ndarray, " 6"], other: Float[np.ndarray, " 6"], area1: np.floating, area2: np.floating
) -> np.floating:
    zero, unit = one.dtype.type(0), one.dtype.type(1)
    shared = _shared(one, other[0], other[1], other[2], other[3], other[4], other[5])
    union = area1 + area2 - shared
    return min(shared / union, unit) if union > zero else zero
