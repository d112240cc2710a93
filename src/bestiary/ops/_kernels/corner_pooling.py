"""Running maxima towards a border, and the way of gradients back, for the two axes of a plane.

`step` is the direction of the scan: 1 from the first row or column to the last, -1 back.
"""

import numpy as np
from jaxtyping import Float
from numba import njit


@njit(cache=True, nogil=True)
def scan_rows(
    planes: Float[np.ndarray, "P H W"], step: int, start: int, stop: int, out: Float[np.ndarray, "P H W"]
) -> None:
    """Running maximum over the rows: a scan for each column, and columns side by side fill the vector registers."""
    height, width = planes.shape[1], planes.shape[2]
    first = 0 if step > 0 else height - 1
    for plane in range(start, stop):
        out[plane, first] = planes[plane, first]
        for i in range(1, height):
            value, before = planes[plane, first + step * i], out[plane, first + step * (i - 1)]
            here = out[plane, first + step * i]
            for x in range(width):
                # Both comparisons fail on a NaN before, which stays; a NaN here fails the first, and comes in.
                here[x] = before[x] if (before[x] > value[x] or before[x] != before[x]) else value[x]


@njit(cache=True, nogil=True)
def _scan_four(
    a: Float[np.ndarray, " W"],
    b: Float[np.ndarray, " W"],
    c: Float[np.ndarray, " W"],
    d: Float[np.ndarray, " W"],
    out_a: Float[np.ndarray, " W"],
    out_b: Float[np.ndarray, " W"],
    out_c: Float[np.ndarray, " W"],
    out_d: Float[np.ndarray, " W"],
) -> None:
    """Four rows at a time, as each waits for its own last value."""
    best_a, best_b, best_c, best_d = a[0], b[0], c[0], d[0]
    for x in range(len(a)):
        best_a = best_a if (best_a > a[x] or best_a != best_a) else a[x]
        best_b = best_b if (best_b > b[x] or best_b != best_b) else b[x]
        best_c = best_c if (best_c > c[x] or best_c != best_c) else c[x]
        best_d = best_d if (best_d > d[x] or best_d != best_d) else d[x]
        out_a[x], out_b[x], out_c[x], out_d[x] = best_a, best_b, best_c, best_d


@njit(cache=True, nogil=True)
def scan_columns(
    planes: Float[np.ndarray, "P H W"], step: int, start: int, stop: int, out: Float[np.ndarray, "P H W"]
) -> None:
    """Running maximum along each row; a scan against the memory's order, which is five times slower, goes through a
    reversed copy."""
    height, width = planes.shape[1], planes.shape[2]
    turned = np.empty((4, width), planes.dtype)
    for plane in range(start, stop):
        for y in range(0, height, 4):
            # The last row again where fewer than four are left.
            i, j, k, m = y, min(y + 1, height - 1), min(y + 2, height - 1), min(y + 3, height - 1)
            source, target = planes[plane], out[plane]
            if step > 0:
                _scan_four(source[i], source[j], source[k], source[m], target[i], target[j], target[k], target[m])
                continue
            for r, row in enumerate((i, j, k, m)):
                for x in range(width):
                    turned[r, width - 1 - x] = source[row, x]
            _scan_four(turned[0], turned[1], turned[2], turned[3], turned[0], turned[1], turned[2], turned[3])
            for r, row in enumerate((i, j, k, m)):
                for x in range(width):
                    target[row, x] = turned[r, width - 1 - x]


@njit(cache=True, nogil=True)
def return_rows(
    grad: Float[np.ndarray, "P H W"],
    planes: Float[np.ndarray, "P H W"],
    out: Float[np.ndarray, "P H W"],
    step: int,
    start: int,
    stop: int,
    result: Float[np.ndarray, "P H W"],
) -> None:
    """Gradient of `scan_rows`: against the scan, sums are carried to the value that set the record."""
    height, width = planes.shape[1], planes.shape[2]
    last = height - 1 if step > 0 else 0
    carried = np.empty(width, planes.dtype)
    zero = planes.dtype.type(0)
    for plane in range(start, stop):
        carried[:] = zero
        for i in range(height):
            y = last - step * i
            g, value, best, here = grad[plane, y], planes[plane, y], out[plane, y], result[plane, y]
            for x in range(width):
                total = carried[x] + g[x]
                record = value[x] == best[x] or value[x] != value[x]
                here[x] = total if record else zero
                carried[x] = zero if record else total


@njit(cache=True, nogil=True)
def return_columns(
    grad: Float[np.ndarray, "P H W"],
    planes: Float[np.ndarray, "P H W"],
    out: Float[np.ndarray, "P H W"],
    step: int,
    start: int,
    stop: int,
    result: Float[np.ndarray, "P H W"],
) -> None:
    """Gradient of `scan_columns`, in copies that lie in the order of the way back."""
    height, width = planes.shape[1], planes.shape[2]
    g, records = np.empty(width, planes.dtype), np.empty(width, np.bool_)
    zero = planes.dtype.type(0)
    for plane in range(start, stop):
        for y in range(height):
            value, best = planes[plane, y], out[plane, y]
            if step > 0:
                for x in range(width):
                    g[width - 1 - x] = grad[plane, y, x]
                    records[width - 1 - x] = value[x] == best[x] or value[x] != value[x]
            else:
                for x in range(width):
                    g[x] = grad[plane, y, x]
                    records[x] = value[x] == best[x] or value[x] != value[x]
            total = zero
            for x in range(width):
                total += g[x]
                g[x] = total if records[x] else zero
                total = zero if records[x] else total
            for x in range(width):
                result[plane, y, x] = g[width - 1 - x] if step > 0 else g[x]
