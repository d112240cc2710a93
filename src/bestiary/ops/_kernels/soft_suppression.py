"""Soft non-maximum suppression."""

import numpy as np
from jaxtyping import Float, Int64
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def soften(
    columns: Float[np.ndarray, "5 M"],
    members: Int64[np.ndarray, " M"],
    scores: Float[np.ndarray, " M"],
    gaussian: bool,
    iou_threshold: np.floating,
    sigma: np.floating,
    score_threshold: np.floating,
    picked: Int64[np.ndarray, " M"],
    picked_scores: Float[np.ndarray, " M"],
) -> int:
    """Take the best box, lower the scores of the others by their overlap with it, and so on; how many were taken.

    Args:
        columns: x1, y1, x2, y2, area of each box of a group; overwritten, as are the next two.
        members: ascending indices of the boxes.
        scores: of the boxes.
        gaussian: times exp(-IoU^2 / sigma); else times 1 - IoU from the threshold on.
        iou_threshold: of the linear form.
        sigma: of the Gaussian form.
        score_threshold: boxes below it go.
        picked: written: indices in the order in which they were taken.
        picked_scores: written: their scores then.
    """
    unit = columns.dtype.type(1)
    left = 0
    best = -1
    for k in range(members.size):
        if scores[k] >= score_threshold:
            _move(columns, members, scores, k, left)
            if best < 0 or scores[left] > scores[best]:
                best = left
            left += 1
    taken = 0
    while left > 0:
        x1, y1, x2, y2 = columns[0, best], columns[1, best], columns[2, best], columns[3, best]
        area = columns[4, best]
        picked[taken], picked_scores[taken] = members[best], scores[best]
        taken += 1
        # Those that remain move up in their order, so that among equal scores the first found is the lowest index.
        chosen, best, stay = best, -1, 0
        for k in range(left):
            if k == chosen:
                continue
            width = min(x2, columns[2, k]) - max(x1, columns[0, k])
            height = min(y2, columns[3, k]) - max(y1, columns[1, k])
            if width > 0 and height > 0:
                inter = width * height
                iou = inter / (area + columns[4, k] - inter)
                if gaussian:
                    scores[k] *= np.exp(-(iou * iou) / sigma)
                elif iou >= iou_threshold:
                    scores[k] *= unit - iou
            if scores[k] >= score_threshold:
                _move(columns, members, scores, k, stay)
                if best < 0 or scores[stay] > scores[best]:
                    best = stay
                stay += 1
        left = stay
    return taken


@njit(cache=True, nogil=True)
def _move(
    columns: Float[np.ndarray, "5 M"],
    members: Int64[np.ndarray, " M"],
    scores: Float[np.ndarray, " M"],
    source: int,
    target: int,
) -> None:
    for c in range(5):
        columns[c, target] = columns[c, source]
    members[target], scores[target] = members[source], scores[source]
