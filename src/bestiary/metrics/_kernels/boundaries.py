"""Where classes meet, and how much of one boundary lies near another: exact, in whole squared pixels."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def inner_boundary(labels: np.ndarray, known: np.ndarray, out: np.ndarray) -> None:
    """`out` becomes the label of every known pixel that has a known 4-neighbour of another label, -1 elsewhere."""
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            out[y, x] = -1
            if not known[y, x]:
                continue
            label = labels[y, x]
            meets = (
                (y > 0 and known[y - 1, x] and labels[y - 1, x] != label)
                or (y + 1 < height and known[y + 1, x] and labels[y + 1, x] != label)
                or (x > 0 and known[y, x - 1] and labels[y, x - 1] != label)
                or (x + 1 < width and known[y, x + 1] and labels[y, x + 1] != label)
            )
            if meets:
                out[y, x] = label


@numba.njit(cache=True, nogil=True)
def near_counts(ours: np.ndarray, theirs: np.ndarray, offsets: np.ndarray, near: np.ndarray, total: np.ndarray) -> None:
    """Count, by label, the pixels of `ours` (-1 for none), and those with an equal one in `theirs` at an offset.

    Args:
        offsets: `[D, 2]` dy, dx, nearest first: most searches end at the first few.
        near, total: by label, added to.
    """
    height, width = ours.shape
    for y in range(height):
        for x in range(width):
            label = ours[y, x]
            if label < 0:
                continue
            total[label] += 1
            for d in range(offsets.shape[0]):
                v, u = y + offsets[d, 0], x + offsets[d, 1]
                if 0 <= v < height and 0 <= u < width and theirs[v, u] == label:
                    near[label] += 1
                    break
