"""Extrema of differences of Gaussians, placed between samples by a quadratic (Lowe, IJCV 2004, sections 3.1 and 4)."""

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

BORDER = 5
"""Samples at each side of a level where nothing is looked for."""

_MOVES = 5
"""Times an extremum may move to a neighbouring sample before it is given up."""

_PAGE, _STAGGER = 1024, 48
"""Rows of the work space begin at different places of memory pages: a processor takes a read for one of what it is just
writing if the last twelve bits of their addresses agree, and waits."""

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_QUARTER = np.float32(0.25)


@njit(cache=True, nogil=True)
def _difference(
    fine: Float32[np.ndarray, " W"], coarse: Float32[np.ndarray, " W"], into: Float32[np.ndarray, " W"]
) -> None:
    for c in range(into.size):
        into[c] = coarse[c] - fine[c]


@njit(cache=True, nogil=True)
def _peaks_of_row(
    up: Float32[np.ndarray, " W"],
    here: Float32[np.ndarray, " W"],
    down: Float32[np.ndarray, " W"],
    threshold: np.floating,
    most: Float32[np.ndarray, " W"],
    least: Float32[np.ndarray, " W"],
    peaks: Float32[np.ndarray, " W"],
) -> None:
    """1 where none of the eight neighbours exceeds a sample (or none falls below), beyond the threshold; else 0."""
    for c in range(here.size):
        a, b, d = up[c], here[c], down[c]
        high = a if a > b else b
        low = a if a < b else b
        most[c] = d if d > high else high
        least[c] = d if d < low else low
    centre, inner = here[1:-1], peaks[1:-1]
    high0, high1, high2 = most[:-2], most[1:-1], most[2:]
    low0, low1, low2 = least[:-2], least[1:-1], least[2:]
    for c in range(centre.size):
        v = centre[c]
        top = (v > threshold) & (v >= high0[c]) & (v >= high1[c]) & (v >= high2[c])
        bottom = (v < -threshold) & (v <= low0[c]) & (v <= low1[c]) & (v <= low2[c])
        inner[c] = _ONE if top | bottom else _ZERO


@njit(cache=True, nogil=True)
def _is_extreme(room: Float32[np.ndarray, "_ W"], size: int, s: int, c: int, v: float) -> bool:
    """Whether v, at (s, c) of some row, is also extreme among the differences one finer and one coarser."""
    sign = _ONE if v > 0 else -_ONE
    for k in range(3):
        for t in (s - 1, s + 1):
            for x in range(c - 1, c + 2):
                if sign * room[k * size + t, x] > sign * v:
                    return False
    return True


@njit(cache=True, nogil=True)
def find(
    levels: Float32[np.ndarray, "S H W"], start: int, stop: int, threshold: float, found: Int32[np.ndarray, "M 3"]
) -> int:
    """Level, row and column of every sample in rows `start:stop` whose difference of Gaussians is extreme.

    Extreme is what no neighbour of the 26 in place and scale exceeds, at a magnitude above `threshold`. Rows lie at
    least `BORDER` inside; differences are made as they are needed, three rows at a time.

    Returns:
        How many there are: those beyond the length of `found` were not written.
    """
    size, width = levels.shape[0] - 1, levels.shape[2]
    limit = np.float32(threshold)
    room = np.empty((3 * size + 3, width + (_STAGGER - width) % _PAGE), np.float32)
    most, least, peaks = room[3 * size, :width], room[3 * size + 1, :width], room[3 * size + 2, :width]
    peaks[:] = _ZERO
    count = 0
    for r in range(start - 1, stop + 1):
        here = r % 3 * size
        for s in range(size):
            _difference(levels[s, r], levels[s + 1, r], room[here + s, :width])
        if r <= start:
            continue
        # The row before is the one that has both neighbours now.
        up, here, down = (r - 2) % 3 * size, (r - 1) % 3 * size, here
        for s in range(1, size - 1):
            rows = room[up + s, :width], room[here + s, :width], room[down + s, :width]
            _peaks_of_row(rows[0], rows[1], rows[2], limit, most, least, peaks)
            for c in range(BORDER, width - BORDER):
                if peaks[c] > _ZERO and _is_extreme(room, size, s, c, room[here + s, c]):
                    if count < len(found):
                        found[count, 0], found[count, 1], found[count, 2] = s, r - 1, c
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _cube(levels: Float32[np.ndarray, "S H W"], s: int, r: int, c: int, cube: Float32[np.ndarray, "3 3 3"]) -> None:
    """Differences of Gaussians around a sample."""
    for i in range(3):
        for j in range(3):
            for k in range(3):
                cube[i, j, k] = levels[s + i, r + j - 1, c + k - 1] - levels[s + i - 1, r + j - 1, c + k - 1]


@njit(cache=True, nogil=True)
def _solve(h: Float32[np.ndarray, "6"], g: Float32[np.ndarray, "3"], x: Float32[np.ndarray, "3"]) -> bool:
    """x with H x = -g for the symmetric H = (cc, rr, ss, cr, cs, rs), by cofactors; False if H is singular."""
    cc, rr, ss, cr, cs, rs = h[0], h[1], h[2], h[3], h[4], h[5]
    m0, m1, m2 = rr * ss - rs * rs, cs * rs - cr * ss, cr * rs - cs * rr
    m3, m4, m5 = cc * ss - cs * cs, cr * cs - cc * rs, cc * rr - cr * cr
    det = cc * m0 + cr * m1 + cs * m2
    if det == 0:
        return False
    x[0] = -(m0 * g[0] + m1 * g[1] + m2 * g[2]) / det
    x[1] = -(m1 * g[0] + m3 * g[1] + m4 * g[2]) / det
    x[2] = -(m2 * g[0] + m4 * g[1] + m5 * g[2]) / det
    return True


@njit(cache=True, nogil=True)
def _derivatives(d: Float32[np.ndarray, "3 3 3"], g: Float32[np.ndarray, "3"], h: Float32[np.ndarray, "6"]) -> None:
    """Gradient (column, row, scale) and second derivatives at the middle of a cube, by central differences."""
    v2 = d[1, 1, 1] + d[1, 1, 1]
    g[0] = (d[1, 1, 2] - d[1, 1, 0]) * _HALF
    g[1] = (d[1, 2, 1] - d[1, 0, 1]) * _HALF
    g[2] = (d[2, 1, 1] - d[0, 1, 1]) * _HALF
    h[0] = d[1, 1, 2] + d[1, 1, 0] - v2
    h[1] = d[1, 2, 1] + d[1, 0, 1] - v2
    h[2] = d[2, 1, 1] + d[0, 1, 1] - v2
    h[3] = (d[1, 2, 2] - d[1, 2, 0] - d[1, 0, 2] + d[1, 0, 0]) * _QUARTER
    h[4] = (d[2, 1, 2] - d[2, 1, 0] - d[0, 1, 2] + d[0, 1, 0]) * _QUARTER
    h[5] = (d[2, 2, 1] - d[2, 0, 1] - d[0, 2, 1] + d[0, 0, 1]) * _QUARTER


@njit(cache=True, nogil=True)
def refine(
    levels: Float32[np.ndarray, "S H W"],
    candidates: Int32[np.ndarray, "M 3"],
    contrast: float,
    edge: float,
    placed: Float32[np.ndarray, "M 4"],
) -> Int32[np.ndarray, " K"]:
    """Which candidates are stable points; `candidates` are moved to the sample nearest to each.

    Args:
        levels: of an octave.
        candidates: level, row, column; changed.
        contrast: smallest magnitude of the quadratic at its extremum.
        edge: largest ratio of principal curvatures.
        placed: column, row, level and magnitude of each point that stays; the first two relative to sample 0.
    """
    height, width, last = levels.shape[1], levels.shape[2], levels.shape[0] - 3
    kept, count = np.empty(len(candidates), np.int32), 0
    cube, x = np.empty((3, 3, 3), np.float32), np.empty(3, np.float32)
    g, h = np.empty(3, np.float32), np.empty(6, np.float32)
    bound = np.float32((edge + 1) * (edge + 1) / edge)
    for m in range(len(candidates)):
        s, r, c = candidates[m, 0], candidates[m, 1], candidates[m, 2]
        settled = False
        for _ in range(_MOVES):
            _cube(levels, s, r, c, cube)
            _derivatives(cube, g, h)
            if not _solve(h, g, x) or not max(abs(x[0]), abs(x[1]), abs(x[2])) < 1e6:
                break
            if abs(x[0]) < _HALF and abs(x[1]) < _HALF and abs(x[2]) < _HALF:
                settled = True
                break
            c, r, s = c + round(x[0]), r + round(x[1]), s + round(x[2])
            inside = BORDER <= r < height - BORDER and BORDER <= c < width - BORDER
            if not (inside and 1 <= s <= last):
                break
        magnitude = abs(cube[1, 1, 1] + _HALF * (g[0] * x[0] + g[1] * x[1] + g[2] * x[2]))
        trace, det = h[0] + h[1], h[0] * h[1] - h[3] * h[3]
        if settled and magnitude >= contrast and det > 0 and trace * trace < bound * det:
            candidates[m, 0], candidates[m, 1], candidates[m, 2] = s, r, c
            placed[m, 0], placed[m, 1], placed[m, 2], placed[m, 3] = c + x[0], r + x[1], s + x[2], magnitude
            kept[count] = m
            count += 1
    return kept[:count]
