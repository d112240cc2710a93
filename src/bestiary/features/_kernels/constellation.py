"""All hypotheses of which region is which part, and their weights."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit


class Observed(NamedTuple):
    """The regions of I pictures, one picture's after the other's.

    Attributes:
        places: x, y and log radius.
        looks: what it adds to a hypothesis that a region is a part: the log ratio of its appearance to clutter's.
        order: of each part and picture the regions, counted within the picture, by falling looks.
        starts: where each picture's regions start, and the end.
        room: log of the volume that clutter's places are uniform in, of each picture.
    """

    places: Float64[np.ndarray, "T 3"]
    looks: Float64[np.ndarray, "P T"]
    order: Int64[np.ndarray, "P T"]
    starts: Int64[np.ndarray, " I1"]
    room: Float64[np.ndarray, " I"]


class Rules(NamedTuple):
    """Where parts are, given which parts were found before them, `mask`, and where. Rows of mask 0 are not used.

    Attributes:
        table: log probability that exactly these parts are found.
        caps: log density of a part's place at its most.
        means: place of a part relative to the first that was found, where those between stand at that first one.
        slopes: regression on the places of the parts before it.
        roots: lower triangular root of the precision.
    """

    table: Float64[np.ndarray, " M"]
    caps: Float64[np.ndarray, "M P"]
    means: Float64[np.ndarray, "M P 3"]
    slopes: Float64[np.ndarray, "M P 3 P3"]
    roots: Float64[np.ndarray, "M P 3 3"]


class Sums(NamedTuple):
    """What is known of the pictures after looking at all hypotheses; owners and moments are zero before.

    Attributes:
        logs: log of the sum over hypotheses.
        best: of the best one the region of each part, counted within its picture; -1 for a part that was not found.
        owners: probability that a region is a part.
        moments: for each set of found parts the sums of 1, z and z z^T (lower triangle), z being places relative to the
            first found part.
    """

    logs: Float64[np.ndarray, " I"]
    best: Int64[np.ndarray, "I P"]
    owners: Float64[np.ndarray, "P T"]
    moments: Float64[np.ndarray, "I M Q Q"]


@njit(cache=True, nogil=True)
def expectation(
    start: int, stop: int, seen: Observed, rules: Rules, is_scaled: bool, tolerance: float, sums: Sums
) -> None:
    """For pictures `start:stop` the sum over all hypotheses.

    Hypotheses that can be shown to lie far below the best one are left out: together they hold less than `tolerance` of
    the sum.

    Args:
        start: first picture.
        stop: after the last.
        seen: regions.
        rules: the model.
        is_scaled: whether places are in units of the first found part's radius.
        tolerance: share of the sum that may be left out; 0 for only the best hypothesis (its log is then the sum's).
        sums: written.
    """
    parts = seen.looks.shape[0]
    for n in range(start, stop):
        first, last = seen.starts[n], seen.starts[n + 1]
        places, looks, owners = seen.places[first:last], seen.looks[:, first:last], sums.owners[:, first:last]
        order, count, finest = seen.order[:, first:last], places.shape[0], 0.0
        for i in range(count):
            finest = min(finest, places[i, 2]) if i else places[i, 2]
        # In units of a small radius a density over the picture may be high: bounds must hold for the smallest.
        most = seen.room[n] - (2.0 * finest if is_scaled else 0.0)
        bounds = _bounds(looks, order, rules, most)
        room, best, moments = seen.room[n], sums.best[n], sums.moments[n]
        peak = _search(places, looks, order, bounds, rules, room, is_scaled, -np.inf, 0.0, best, owners, moments)
        sums.logs[n] = peak
        if tolerance > 0:
            slack = parts * np.log(count + 1.0) - np.log(tolerance)
            mass = _search(places, looks, order, bounds, rules, room, is_scaled, peak, slack, best, owners, moments)
            sums.logs[n] += np.log(mass)
            for p in range(parts):
                for i in range(count):
                    owners[p, i] /= mass
            for mask in range(moments.shape[0]):
                for i in range(moments.shape[1]):
                    for j in range(i + 1):
                        moments[mask, i, j] /= mass


@njit(cache=True, nogil=True)
def _bounds(looks: np.ndarray, order: np.ndarray, rules: Rules, most: float) -> np.ndarray:
    """`bounds[p, mask]`: the most that parts p, p + 1 ... can add if `mask` of those before were found."""
    parts, count = looks.shape
    bounds = np.full((parts + 1, rules.table.shape[0]), -np.inf)
    bounds[parts] = rules.table
    for p in range(parts - 1, -1, -1):
        for mask in range(1 << p):
            bounds[p, mask] = bounds[p + 1, mask]
            if count:
                place = rules.caps[mask, p] + most if mask else 0.0
                found = looks[p, order[p, 0]] + place + bounds[p + 1, mask | (1 << p)]
                bounds[p, mask] = max(bounds[p, mask], found)
    return bounds


@njit(cache=True, nogil=True)
def _search(
    places: np.ndarray,
    looks: np.ndarray,
    order: np.ndarray,
    bounds: np.ndarray,
    rules: Rules,
    room: float,
    is_scaled: bool,
    best: float,
    slack: float,
    best_parts: np.ndarray,
    owners: np.ndarray,
    moments: np.ndarray,
) -> float:
    """Depth first over the parts: each is not found, or one of the regions in the order of their looks.

    With `slack` 0 the greatest score. Else the sum of exp(score - best) over all hypotheses but those that are sure to
    lie `slack` or more below `best`, gathered on the way.
    """
    parts, count = looks.shape
    chosen, cursor = np.full(parts, -1, np.int64), np.full(parts + 1, -1, np.int64)
    scores, masks = np.zeros(parts + 1), np.zeros(parts + 1, np.int64)
    used, z, origin = np.zeros(count, np.bool_), np.zeros((parts, 3)), np.zeros(3)
    mass, depth = 0.0, 0
    while depth >= 0:
        if depth == parts:
            score = scores[depth] + rules.table[masks[depth]]
            if slack > 0:
                weight = np.exp(score - best)
                mass += weight
                _gather(weight, masks[depth], chosen, z, owners, moments)
            elif score > best:
                best = score
                best_parts[:] = chosen
            depth -= 1
            continue
        if chosen[depth] >= 0:
            used[chosen[depth]], chosen[depth], z[depth] = False, -1, 0.0
        c, mask, score = cursor[depth], masks[depth], scores[depth]
        cursor[depth] += 1
        if c >= count:
            depth -= 1
            continue
        if c < 0:
            if score + bounds[depth + 1, mask] <= best - slack:
                continue
        else:
            i, mask = order[depth, c], mask | (1 << depth)
            is_first = masks[depth] == 0
            shrink = origin[2] if is_scaled and not is_first else 0.0
            # What holds for this region whatever its place is; those further down the order look no better.
            score += looks[depth, i] + (0.0 if is_first else rules.caps[masks[depth], depth] + room - 2.0 * shrink)
            if score + bounds[depth + 1, mask] <= best - slack:
                cursor[depth] = count
                continue
            if used[i]:
                continue
            if is_first:
                origin[:] = places[i]
            else:
                unit = np.exp(-shrink)
                z[depth, 0] = (places[i, 0] - origin[0]) * unit
                z[depth, 1] = (places[i, 1] - origin[1]) * unit
                z[depth, 2] = places[i, 2] - origin[2]
                score -= _misfit(z, depth, masks[depth], rules)
                if score + bounds[depth + 1, mask] <= best - slack:
                    z[depth] = 0.0
                    continue
            used[i], chosen[depth] = True, i
        depth += 1
        scores[depth], masks[depth], cursor[depth] = score, mask, -1
    return mass if slack > 0 else best


@njit(cache=True, nogil=True)
def _misfit(z: np.ndarray, p: int, mask: int, rules: Rules) -> float:
    """Half the squared Mahalanobis distance of part p's place, given the places of the parts of `mask`."""
    slope, root = rules.slopes[mask, p], rules.roots[mask, p]
    d0, d1, d2 = (
        z[p, 0] - rules.means[mask, p, 0],
        z[p, 1] - rules.means[mask, p, 1],
        z[p, 2] - rules.means[mask, p, 2],
    )
    for q in range(p):
        if mask >> q & 1:
            for c in range(3):
                d0 -= slope[0, 3 * q + c] * z[q, c]
                d1 -= slope[1, 3 * q + c] * z[q, c]
                d2 -= slope[2, 3 * q + c] * z[q, c]
    r0 = root[0, 0] * d0
    r1 = root[1, 0] * d0 + root[1, 1] * d1
    r2 = root[2, 0] * d0 + root[2, 1] * d1 + root[2, 2] * d2
    return 0.5 * (r0 * r0 + r1 * r1 + r2 * r2)


@njit(cache=True, nogil=True)
def _gather(
    weight: float, mask: int, chosen: np.ndarray, z: np.ndarray, owners: np.ndarray, moments: np.ndarray
) -> None:
    """Add a hypothesis to the sums."""
    row = moments[mask]
    row[0, 0] += weight
    for p in range(chosen.shape[0]):
        if chosen[p] < 0:
            continue
        owners[p, chosen[p]] += weight
        for a in range(3):
            i = 1 + 3 * p + a
            scaled = weight * z[p, a]
            row[i, 0] += scaled
            for q in range(p + 1):
                for b in range(3):
                    row[i, 1 + 3 * q + b] += scaled * z[q, b]
