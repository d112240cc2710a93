"""Coordinate descent in the dual of a linear SVM."""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit


@njit(cache=True, nogil=True)
def descend(
    rows: Float32[np.ndarray, "N D"],
    signs: Float32[np.ndarray, " N"],
    costs: Float32[np.ndarray, " N"],
    squares: Float32[np.ndarray, " N"],
    orders: Int64[np.ndarray, "T N"],
    alphas: Float32[np.ndarray, " N"],
    weight: Float32[np.ndarray, " D"],
    tolerance: float,
    most_passes: int,
) -> int:
    """Hsieh, Chang, Lin, Keerthi, Sundararajan, A Dual Coordinate Descent Method for Large-scale Linear SVM, ICML 2008,
    algorithm 3 (with shrinking), for the plain hinge. Changes `alphas` and `weight`; returns the passes made.

    Args:
        orders: permutations, one after the other a pass, then from the first again.
    """
    count = len(rows)
    active = np.ones(count, np.bool_)
    left = count
    highest, lowest = np.inf, -np.inf
    for passed in range(most_passes):
        most, least = -np.inf, np.inf
        order = orders[passed % len(orders)]
        for place in range(count):
            i = order[place]
            if not active[i]:
                continue
            gradient = np.float64(signs[i] * np.dot(weight, rows[i])) - 1.0
            projected = gradient
            if alphas[i] <= 0:
                if gradient > highest:
                    active[i] = False
                    left -= 1
                    continue
                projected = min(gradient, 0.0)
            elif alphas[i] >= costs[i]:
                if gradient < lowest:
                    active[i] = False
                    left -= 1
                    continue
                projected = max(gradient, 0.0)
            most, least = max(most, projected), min(least, projected)
            if abs(projected) > 1e-12:
                old = alphas[i]
                alphas[i] = min(max(old - np.float32(gradient / squares[i]), np.float32(0)), costs[i])
                change = (alphas[i] - old) * signs[i]
                for k in range(len(weight)):
                    weight[k] += change * rows[i, k]
        if most - least <= tolerance:
            if left == count:
                return passed + 1
            active[:] = True
            left = count
            highest, lowest = np.inf, -np.inf
            continue
        highest = most if most > 0 else np.inf
        lowest = least if least < 0 else -np.inf
    return most_passes
