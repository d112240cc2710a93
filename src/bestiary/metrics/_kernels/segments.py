"""Pixels that two maps of segment ids share."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def place_of(value: int, ids: np.ndarray) -> int:
    """Place of `value` in the ascending `ids`, or -1."""
    low, high = 0, ids.size
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < ids.size and ids[low] == value else -1


@numba.njit(cache=True, nogil=True)
def shared_pixels(
    truth: np.ndarray, found: np.ndarray, truth_ids: np.ndarray, found_ids: np.ndarray, counts: np.ndarray
) -> int:
    """Add the pixels of every pair of segments to `counts[truth, found]`.

    Args:
        truth, found: maps of ids, flat.
        truth_ids, found_ids: the ids that may occur, ascending.

    Returns:
        The place of the first pixel whose id is not among them, or -1.
    """
    last_truth, last_found, row, column = -1, -1, -1, -1
    for i in range(truth.size):
        # Neighbours mostly belong to one segment: search only where the id changes.
        if truth[i] != last_truth:
            last_truth = truth[i]
            row = place_of(last_truth, truth_ids)
        if found[i] != last_found:
            last_found = found[i]
            column = place_of(last_found, found_ids)
        if row < 0 or column < 0:
            return i
        counts[row, column] += 1
    return -1
