"""The nearest rows of a store, picked out of blocks of scalar products."""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

_RUN = 64
"""Products whose best is found first: most runs hold nothing near enough, and are passed over quickly."""


@njit(cache=True, nogil=True)
def _least(
    products: Float32[np.ndarray, " R"], halves: Float32[np.ndarray, " R"], costs: Float32[np.ndarray, " R"]
) -> float:
    """The least cost of a run; the costs are written."""
    for i in range(costs.size):
        costs[i] = halves[i] - products[i]
    least = costs[0]
    for i in range(1, costs.size):
        least = costs[i] if costs[i] < least else least
    return least


@njit(cache=True, nogil=True)
def keep_nearest(
    products: Float32[np.ndarray, "Q M"],
    halves: Float32[np.ndarray, " M"],
    first: int,
    start: int,
    stop: int,
    costs: Float32[np.ndarray, "Q k"],
    rows: Int64[np.ndarray, "Q k"],
) -> None:
    """Merge a block of the store into the k best of queries `start:stop`; of equal ones those before stay ahead.

    The cost of a row is half its squared length minus its product with the query: half the squared distance but for
    the query's own length.

    Args:
        products: of queries and the block's rows.
        halves: half squared lengths of the rows.
        first: number of the block's first row.
        start: first query.
        stop: beyond the last.
        costs: ascending, infinite at first.
        rows: numbers of the kept rows.
    """
    kept, room = costs.shape[1], np.empty(_RUN, np.float32)
    for q in range(start, stop):
        row, best, numbers = products[q], costs[q], rows[q]
        for low in range(0, halves.size, _RUN):
            high = min(low + _RUN, halves.size)
            run = room[: high - low]
            if not _least(row[low:high], halves[low:high], run) < best[kept - 1]:
                continue
            for i in range(high - low):
                if run[i] < best[kept - 1]:
                    place = kept - 1
                    while place > 0 and run[i] < best[place - 1]:
                        best[place], numbers[place] = best[place - 1], numbers[place - 1]
                        place -= 1
                    best[place], numbers[place] = run[i], first + low + i
