"""Gradient directions around points: SIFT's orientations and descriptors (Lowe, IJCV 2004, sections 5 and 6).

Directions run from the x axis towards the downward y axis; gradients are central differences of a level's samples.
"""

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

BINS = 36
"""Directions that a point's orientation is chosen among."""

MOST_PEAKS = BINS // 2
"""Orientations a point can have at most: peaks are not adjacent."""

CELLS = 4
DIRECTIONS = 8
LENGTH = CELLS * CELLS * DIRECTIONS

_ROOM = (CELLS + 2) * (CELLS + 2) * (DIRECTIONS + 1)
# Unsigned, for a signed index would be tested for being negative each time.
_NEXT, _ACROSS, _DOWN = np.uint64(1), np.uint64(DIRECTIONS + 1), np.uint64((CELLS + 2) * (DIRECTIONS + 1))
_FULL_TURN = np.float32(2 * np.pi)
_QUARTER_TURN = np.float32(np.pi / 2)
_HALF_TURN = np.float32(np.pi)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TINY = np.float32(1e-30)
_LAST = np.float32(CELLS + 0.9999)


@njit(cache=True, nogil=True, error_model="numpy")
def _direction(y: np.floating, x: np.floating) -> np.floating:
    """atan2 to 1e-5, -pi to pi, by the polynomial 4.4.47 of Abramowitz and Stegun.

    Without branches, so that loops of it become vector instructions.
    """
    across, down = abs(x), abs(y)
    large = across if across > down else down
    small = down if across > down else across
    z = small / (large + _TINY)
    q = z * z
    angle = z * (
        np.float32(0.9998660)
        + q
        * (
            np.float32(-0.3302995)
            + q * (np.float32(0.1801410) + q * (np.float32(-0.0851330) + q * np.float32(0.0208351)))
        )
    )
    angle = _QUARTER_TURN - angle if down > across else angle
    angle = _HALF_TURN - angle if x < _ZERO else angle
    return -angle if y < _ZERO else angle


@njit(cache=True, nogil=True, error_model="numpy")
def _votes(
    levels: Float32[np.ndarray, "S H W"], place: Int32[np.ndarray, "3"], spread: float, votes: Float32[np.ndarray, "36"]
) -> None:
    """Gradient magnitudes by direction, under a Gaussian of `spread` samples about a sample, out to three of them."""
    level, row, column = levels[place[0]], place[1], place[2]
    height, width = level.shape
    reach, scale = round(3 * spread), np.float32(-0.5 / (spread * spread))
    bins_a_radian = np.float32(BINS / (2 * np.pi))
    votes[:] = _ZERO
    for r in range(max(1, row - reach), min(height - 1, row + reach + 1)):
        for c in range(max(1, column - reach), min(width - 1, column + reach + 1)):
            dx, dy = level[r, c + 1] - level[r, c - 1], level[r + 1, c] - level[r - 1, c]
            weight = np.exp(np.float32((r - row) * (r - row) + (c - column) * (c - column)) * scale)
            b = round(_direction(dy, dx) * bins_a_radian)
            votes[b + BINS if b < 0 else (b - BINS if b >= BINS else b)] += weight * np.sqrt(dx * dx + dy * dy)


@njit(cache=True, nogil=True, error_model="numpy")
def orientations(
    levels: Float32[np.ndarray, "S H W"],
    places: Int32[np.ndarray, "N 3"],
    spreads: Float32[np.ndarray, " N"],
    share: float,
    start: int,
    stop: int,
    angles: Float32[np.ndarray, "N P"],
    counts: Int32[np.ndarray, " N"],
) -> None:
    """Peaks of smoothed direction histograms of points `start:stop`: 0 to 2 pi, and how many each point has.

    Args:
        levels: of the points' octave.
        places: level, row, column of the sample nearest to each point.
        spreads: standard deviation of the window, in samples.
        share: a peak counts from this share of the highest on.
        start: first point.
        stop: beyond the last.
        angles: written.
        counts: written.
    """
    votes, smooth = np.empty(BINS, np.float32), np.empty(BINS, np.float32)
    for n in range(start, stop):
        _votes(levels, places[n], spreads[n], votes)
        for b in range(BINS):
            near = votes[b - 1] + votes[(b + 1) % BINS]
            far = votes[b - 2] + votes[(b + 2) % BINS]
            smooth[b] = far * np.float32(1 / 16) + near * np.float32(4 / 16) + votes[b] * np.float32(6 / 16)
        least, found = smooth.max() * np.float32(share), 0
        for b in range(BINS):
            before, here, after = smooth[b - 1], smooth[b], smooth[(b + 1) % BINS]
            if here > before and here > after and here >= least:
                place = b + np.float32(0.5) * (before - after) / (before - here - here + after)
                angle = np.float32(place * np.float32(2 * np.pi / BINS))
                if angle < _ZERO:
                    angle += _FULL_TURN
                angles[n, found] = angle if angle < _FULL_TURN else _ZERO
                found += 1
        counts[n] = found


@njit(cache=True, nogil=True, error_model="numpy")
def _window(distance: float, slope: float, low: float, high: float) -> tuple[float, float]:
    """Narrows low..high to the t with |distance + slope t| < (CELLS + 1) / 2."""
    half = (CELLS + 1) / 2
    if abs(slope) < 1e-9:
        return (low, high) if abs(distance) < half else (1.0, 0.0)
    a, b = (-half - distance) / slope, (half - distance) / slope
    return max(low, min(a, b)), min(high, max(a, b))


@njit(cache=True, nogil=True, error_model="numpy")
def _polar(
    above: Float32[np.ndarray, " K"],
    below: Float32[np.ndarray, " K"],
    row: Float32[np.ndarray, " L"],
    angle: float,
    turns: Float32[np.ndarray, " K"],
    lengths: Float32[np.ndarray, " K"],
) -> None:
    """Gradients of a run of samples: from their directions to `angle`, 0 to `DIRECTIONS`, and how long they are.

    `row` has a sample more at each end. Few arrays, so that the compiler can tell that none overlaps another.
    """
    left, right = row[:-2], row[2:]
    bins_a_radian = np.float32(DIRECTIONS / (2 * np.pi))
    for k in range(above.size):
        dx, dy = right[k] - left[k], below[k] - above[k]
        turn = angle - _direction(dy, dx)
        turn = turn + _FULL_TURN if turn < _ZERO else turn
        turn = turn - _FULL_TURN if turn >= _FULL_TURN else turn
        turns[k] = turn * bins_a_radian
        lengths[k] = np.sqrt(dx * dx + dy * dy)


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter(
    turns: Float32[np.ndarray, " K"],
    lengths: Float32[np.ndarray, " K"],
    weights: Float32[np.ndarray, " K"],
    count: int,
    frame: Float32[np.ndarray, "5"],
    sums: Float32[np.ndarray, " R"],
) -> None:
    """Each gradient shared linearly between two cell rows, two cell columns and two directions.

    The frame is the first sample's cell row and column, counted from the padding, what they grow by with each sample,
    and a weight of the whole run.
    """
    r0, c0, dr, dc, weight = frame[0], frame[1], frame[2], frame[3], frame[4]
    deep, wide = (CELLS + 2) * (DIRECTIONS + 1), DIRECTIONS + 1
    for k in range(count):
        # Rounding may put the first or last sample of a run just outside the cells.
        row = min(max(r0 + np.float32(k) * dr, _ZERO), _LAST)
        column = min(max(c0 + np.float32(k) * dc, _ZERO), _LAST)
        r, c, o = np.int32(row), np.int32(column), min(np.int32(turns[k]), np.int32(DIRECTIONS - 1))
        fr, fc, fo = row - np.float32(r), column - np.float32(c), turns[k] - np.float32(o)
        i = np.uint64(r * deep + c * wide + o)
        vote = lengths[k] * weights[k] * weight
        v1 = vote * fr
        v0 = vote - v1
        v11, v01 = v1 * fc, v0 * fc
        v10, v00 = v1 - v11, v0 - v01
        w00, w01, w10, w11 = v00 * fo, v01 * fo, v10 * fo, v11 * fo
        sums[i] += v00 - w00
        sums[i + _NEXT] += w00
        sums[i + _ACROSS] += v01 - w01
        sums[i + _ACROSS + _NEXT] += w01
        sums[i + _DOWN] += v10 - w10
        sums[i + _DOWN + _NEXT] += w10
        sums[i + _DOWN + _ACROSS] += v11 - w11
        sums[i + _DOWN + _ACROSS + _NEXT] += w11


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(sums: Float32[np.ndarray, " R"], clip: float, out: Float32[np.ndarray, "128"]) -> None:
    """Cells without the padding, of length 1, no entry above `clip`, of length 1 again; zeros stay."""
    wide = DIRECTIONS + 1
    for r in range(CELLS):
        for c in range(CELLS):
            at, to = ((r + 1) * (CELLS + 2) + c + 1) * wide, (r * CELLS + c) * DIRECTIONS
            for o in range(DIRECTIONS):
                out[to + o] = sums[at + o]
            out[to] += sums[at + DIRECTIONS]
    square = _ZERO
    for i in range(LENGTH):
        square += out[i] * out[i]
    limit, clipped = np.float32(clip) * np.sqrt(square), _ZERO
    for i in range(LENGTH):
        out[i] = min(out[i], limit)
        clipped += out[i] * out[i]
    scale = _ONE / np.sqrt(clipped) if clipped > _TINY else _ZERO
    for i in range(LENGTH):
        out[i] *= scale


@njit(cache=True, nogil=True, error_model="numpy")
def describe(
    levels: Float32[np.ndarray, "S H W"],
    points: Float32[np.ndarray, "N 5"],
    clip: float,
    start: int,
    stop: int,
    descriptors: Float32[np.ndarray, "N 128"],
) -> None:
    """Descriptors of points `start:stop`.

    Args:
        levels: of the points' octave.
        points: level, row, column (not rounded), width of a cell in samples, angle.
        clip: largest entry of a descriptor of length 1.
        start: first point.
        stop: beyond the last.
        descriptors: written; zeros where nothing varies.
    """
    height, width = levels.shape[1:]
    longest = min(width, 2 * int(points[start:stop, 3].max() * 3.6) + 3) if stop > start else 1
    turns, lengths = np.empty(longest, np.float32), np.empty(longest, np.float32)
    weights = np.empty(longest, np.float32)
    sums, frame = np.empty(_ROOM, np.float32), np.empty(5, np.float32)
    padding = CELLS / 2 + 0.5
    for n in range(start, stop):
        level, row, column, cell = levels[int(points[n, 0])], points[n, 1], points[n, 2], points[n, 3]
        angle = points[n, 4]
        cos, sin = np.cos(angle) / cell, np.sin(angle) / cell
        reach = cell * np.sqrt(2.0) * (CELLS + 1) / 2
        narrow = np.float32(-2.0 / (CELLS * CELLS * cell * cell))
        sums[:] = _ZERO
        first, last = max(1, int(np.ceil(column - reach))), min(width - 2, int(np.floor(column + reach)))
        for c in range(first, last + 1):
            weights[c - first] = np.exp(np.float32((c - column) * (c - column)) * narrow)
        for r in range(max(1, int(np.ceil(row - reach))), min(height - 2, int(np.floor(row + reach))) + 1):
            dy = r - row
            low, high = _window(dy * cos, -sin, first - column, last - column)
            low, high = _window(dy * sin, cos, low, high)
            a, b = int(np.ceil(low + column)), int(np.floor(high + column)) + 1
            if b <= a:
                continue
            dx, count = a - column, b - a
            frame[0], frame[1] = dy * cos - dx * sin + padding, dx * cos + dy * sin + padding
            frame[2], frame[3], frame[4] = -sin, cos, np.exp(np.float32(dy * dy) * narrow)
            _polar(level[r - 1, a:b], level[r + 1, a:b], level[r, a - 1 : b + 1], angle, turns, lengths)
            _scatter(turns, lengths, weights[a - first :], count, frame, sums)
        _finish(sums, clip, descriptors[n])
