"""Object keypoint similarity, cell by cell."""

import math

import numpy as np
from numba import njit

_EPSILON = 2.220446049250313e-16


@njit(cache=True, nogil=True)
def _beyond(value: float, low: float, high: float) -> float:
    """How far a value lies outside a range."""
    return max(0.0, low - value) + max(0.0, value - high)


@njit(cache=True, nogil=True)
def keypoint_overlaps(
    found: np.ndarray,
    truths: np.ndarray,
    truth_boxes: np.ndarray,
    truth_areas: np.ndarray,
    spreads: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
) -> np.ndarray:
    """Similarity of the pairs of every cell, flat.

    Args:
        found: `[D, J, 2]` x, y. truths: `[G, J, 3]` x, y, visibility. truth_boxes: x, y, width, height.
        spreads: (2 sigma)^2 of each joint.
        dets, gts: rows, grouped by cell.
    """
    overlaps = np.zeros(cells[2, -1])
    joints = spreads.size
    for c in range(cells.shape[1] - 1):
        at = cells[2, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            for j in range(cells[1, c], cells[1, c + 1]):
                d, g = dets[i], gts[j]
                visible = 0
                for k in range(joints):
                    visible += truths[g, k, 2] > 0
                x, y, w, h = truth_boxes[g]
                total = 0.0
                for k in range(joints):
                    if visible == 0:
                        # No joint to compare with: how far outside the box, doubled about its centre and more.
                        dx = _beyond(found[d, k, 0], x - w, x + 2 * w)
                        dy = _beyond(found[d, k, 1], y - h, y + 2 * h)
                    elif truths[g, k, 2] > 0:
                        dx, dy = found[d, k, 0] - truths[g, k, 0], found[d, k, 1] - truths[g, k, 1]
                    else:
                        continue
                    total += math.exp(-((dx * dx + dy * dy) / spreads[k] / (truth_areas[g] + _EPSILON) / 2))
                overlaps[at] = total / (visible if visible else joints)
                at += 1
    return overlaps
