"""Ranks of right pictures without sorting the wrong ones."""

import numba
import numpy as np

FEW = 32
"""Right pictures up to which one pass over the row for each, which vectorises, is faster than searching them."""


@numba.njit(cache=True, nogil=True)
def sort_in_place(numbers: np.ndarray, count: int) -> None:
    """Sort the first `count` ascending, by Shell's method: numba's own sort takes seconds to compile."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            number, place = numbers[i], i
            while place >= gap and numbers[place - gap] > number:
                numbers[place] = numbers[place - gap]
                place -= gap
            numbers[place] = number
        gap //= 3


@numba.njit(cache=True, nogil=True)
def rank_rows(
    distances: np.ndarray, right: np.ndarray, junk: np.ndarray, ranks: np.ndarray, start: int, stop: int
) -> None:
    """Write the ascending ranks of each row's right columns, counted from 1 among those that are not junk.

    A wrong column stands before every right one that is not nearer. Rows are independent; `ranks` holds zeros and is
    wide enough.
    """
    columns = distances.shape[1]
    near = np.empty(ranks.shape[1], distances.dtype)
    others = np.empty(columns, distances.dtype)
    for q in range(start, stop):
        count = wrong = 0
        for g in range(columns):
            distance = distances[q, g]
            # Written before it is known to be wrong: without a branch here the pass does not stall.
            others[wrong] = distance
            wrong += not (right[q, g] or junk[q, g])
            if right[q, g] and not junk[q, g]:
                near[count] = distance
                count += 1
        sort_in_place(near, count)
        if count <= FEW:
            for i in range(count):
                limit = near[i]
                before = 0
                for k in range(wrong):
                    before += others[k] <= limit
                ranks[q, i] = before + i + 1
            continue
        for k in range(wrong):
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                if near[middle] < others[k]:
                    low = middle + 1
                else:
                    high = middle
            if low < count:
                ranks[q, low] += 1
        for i in range(1, count):
            ranks[q, i] += ranks[q, i - 1]
        for i in range(count):
            ranks[q, i] += i + 1
