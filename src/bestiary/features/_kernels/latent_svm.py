"""Dual coordinate ascent for hinge losses of groups of rows."""

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numba import njit


@njit(cache=True, nogil=True)
def _move(
    row: Float32[np.ndarray, " D"],
    step: float,
    inverse: Float32[np.ndarray, " D"],
    floors: Float32[np.ndarray, " D"],
    free: Float32[np.ndarray, " D"],
    weights: Float32[np.ndarray, " D"],
) -> None:
    change = np.float32(step)
    for k in range(len(row)):
        free[k] += change * row[k] * inverse[k]
        weights[k] = max(free[k], floors[k])


@njit(cache=True, nogil=True)
def ascend(
    rows: Float32[np.ndarray, "N D"],
    homes: Int64[np.ndarray, "3 N"],
    firsts: Int64[np.ndarray, " G1"],
    order: Int64[np.ndarray, " M"],
    known: Float64[np.ndarray, "2 N"],
    cost: float,
    held: Float32[np.ndarray, "2 B D"],
    duals: Float64[np.ndarray, " N"],
    totals: Float64[np.ndarray, " G"],
    state: Float32[np.ndarray, "2 B D"],
) -> None:
    """One pass over the rows of `order`: each dual variable goes to the best place that the others leave it.

    The primal: min over weights >= floors of 1/2 sum of weights^2 / inverse + cost * sum over groups of
    max(0, max over its rows of 1 - sign * weights[block] . row). The dual variables of a group sum to at most `cost`;
    where they do, a row gains what another of its group loses.

    Args:
        rows: features.
        homes: which of the B weight vectors judges each row; its group; and all rows in the order of their groups.
        firsts: where each group begins in the latter, and its length at the end.
        order: rows to be visited.
        known: 1 or -1 of each row, and its curvature, the sum of row^2 * inverse.
        cost: C.
        held: inverse, 1 / how strongly each weight is held down; and the floors, least weights, -inf for none.
        duals: of each row, moved.
        totals: sums of `duals` by group, moved.
        state: sum of duals * sign * row * inverse, and the weights, which are the larger of that and the floors; moved.
    """
    blocks, groups, members = homes[0], homes[1], homes[2]
    signs, curvatures = known[0], known[1]
    inverse, floors, free, weights = held[0], held[1], state[0], state[1]
    for i in order:
        b, g = blocks[i], groups[i]
        slack = 1 - signs[i] * np.dot(weights[b], rows[i])
        room = cost - totals[g]
        if slack <= 0 or room > 1e-9 * cost or firsts[g + 1] - firsts[g] == 1:
            target = min(max(duals[i] + slack / curvatures[i], 0.0), duals[i] + max(room, 0.0))
            step = target - duals[i]
            if step != 0:
                duals[i] = target
                totals[g] += step
                _move(rows[i], signs[i] * step, inverse[b], floors[b], free[b], weights[b])
            continue
        for at in range(firsts[g], firsts[g + 1]):
            j = members[at]
            if j == i or duals[j] <= 0:
                continue
            c = blocks[j]
            gain = 1 - signs[i] * np.dot(weights[b], rows[i]) - (1 - signs[j] * np.dot(weights[c], rows[j]))
            # |x - y|^2 <= 2 |x|^2 + 2 |y|^2: a shorter step than the best one still gains.
            step = min(gain / (2 * (curvatures[i] + curvatures[j])), duals[j])
            if step > 0:
                duals[i] += step
                duals[j] -= step
                _move(rows[i], signs[i] * step, inverse[b], floors[b], free[b], weights[b])
                _move(rows[j], -signs[j] * step, inverse[c], floors[c], free[c], weights[c])
