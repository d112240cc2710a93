"""What a wrong detection did wrong, and which class it was taken for: every overlap within a picture, categories
mixed.
"""

import numba
import numpy as np

CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND = 1, 2, 3, 4, 5


@numba.njit(cache=True, nogil=True)
def kinds_of_mistakes(
    overlaps: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
    labels: np.ndarray,
    truth_labels: np.ndarray,
    foreground: float,
    background: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each of D false alarms and the number of the truth it was about (-1 for none).

    Args:
        overlaps: of the pairs of every cell, flat; a cell is a picture, categories mixed.
        labels, truth_labels: by the numbers that `dets` and `gts` hold.
        foreground, background: overlaps from which a thing is found, and below which nothing was there.
    """
    kinds = np.zeros(dets.size, np.uint8)
    about = np.full(dets.size, -1, np.int64)
    for c in range(cells.shape[1] - 1):
        at = cells[2, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            d = dets[i]
            same, other, same_truth, other_truth = 0.0, 0.0, -1, -1
            for j in range(cells[1, c], cells[1, c + 1]):
                share = overlaps[at]
                at += 1
                if truth_labels[gts[j]] == labels[d]:
                    if share > same:
                        same, same_truth = share, gts[j]
                elif share > other:
                    other, other_truth = share, gts[j]
            if background <= same < foreground:
                kinds[d], about[d] = LOCATION, same_truth
            elif other >= foreground:
                kinds[d], about[d] = CLASS, other_truth
            elif same >= foreground:
                kinds[d], about[d] = DUPLICATE, same_truth
            elif max(same, other) < background:
                kinds[d] = BACKGROUND
            else:
                kinds[d], about[d] = BOTH, other_truth
    return kinds, about


@numba.njit(cache=True, nogil=True)
def pair_free(
    overlaps: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
    truth_rows: np.ndarray,
    taken: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Detections in order of their numbers each take the free truth of their picture that they overlap most.

    Returns the truth's row for each detection, or -1; `taken` is marked.
    """
    paired = np.full(dets.size, -1, np.int64)
    for c in range(cells.shape[1] - 1):
        at = cells[2, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            best, found = threshold, -1
            for j in range(cells[1, c], cells[1, c + 1]):
                row, share = truth_rows[gts[j]], overlaps[at]
                at += 1
                if not taken[row] and share >= best and (found < 0 or share > best):
                    best, found = share, row
            if found >= 0:
                taken[found] = True
                paired[dets[i]] = found
    return paired
