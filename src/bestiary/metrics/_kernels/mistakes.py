"""What a wrong detection did wrong, and which class it was taken for: every overlap within a picture, categories
mixed.
"""

import numba
import numpy as np

from bestiary.metrics._kernels.detection import FALSE_ALARM

CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND = 1, 2, 3, 4, 5


@numba.njit(cache=True, nogil=True)
def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes x, y, width, height."""
    iw = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    ih = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if iw <= 0 or ih <= 0:
        return 0.0
    both = iw * ih
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@numba.njit(cache=True, nogil=True)
def kinds_of_mistakes(
    outcome: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    truth_rows: np.ndarray,
    truth_starts: np.ndarray,
    truth_labels: np.ndarray,
    truth_boxes: np.ndarray,
    foreground: float,
    background: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The kind of every false alarm (0 for all else) and the truth it was about (-1 for none).

    Args:
        outcome, images, labels, boxes: of D detections.
        truth_rows, truth_starts: rows of the truths that count, grouped by picture.
        foreground, background: overlaps from which a thing is found, and below which nothing was there.
    """
    kinds = np.zeros(outcome.size, np.uint8)
    about = np.full(outcome.size, -1, np.int64)
    for d in range(outcome.size):
        if outcome[d] != FALSE_ALARM:
            continue
        same, other, same_row, other_row = 0.0, 0.0, -1, -1
        for i in range(truth_starts[images[d]], truth_starts[images[d] + 1]):
            row = truth_rows[i]
            share = overlap(boxes[d], truth_boxes[row])
            if truth_labels[row] == labels[d]:
                if share > same:
                    same, same_row = share, row
            elif share > other:
                other, other_row = share, row
        if background <= same < foreground:
            kinds[d], about[d] = LOCATION, same_row
        elif other >= foreground:
            kinds[d], about[d] = CLASS, other_row
        elif same >= foreground:
            kinds[d], about[d] = DUPLICATE, same_row
        elif max(same, other) < background:
            kinds[d] = BACKGROUND
        else:
            kinds[d], about[d] = BOTH, other_row
    return kinds, about


@numba.njit(cache=True, nogil=True)
def pair_the_rest(
    order: np.ndarray,
    images: np.ndarray,
    boxes: np.ndarray,
    truth_rows: np.ndarray,
    truth_starts: np.ndarray,
    truth_boxes: np.ndarray,
    taken: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Detections in `order` each take the free truth of any category that they overlap most, from `threshold` on.

    Returns the truth's row for each of `order`, or -1; `taken` is marked.
    """
    paired = np.full(order.size, -1, np.int64)
    for i in range(order.size):
        d = order[i]
        best, found = threshold, -1
        for j in range(truth_starts[images[d]], truth_starts[images[d] + 1]):
            row = truth_rows[j]
            if not taken[row]:
                share = overlap(boxes[d], truth_boxes[row])
                if share >= best and (found < 0 or share > best):
                    best, found = share, row
        if found >= 0:
            taken[found] = True
            paired[i] = found
    return paired
