"""Parts placed where response less deformation is highest, for every place of the root."""

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64
from numba import njit

from bestiary.ops._kernels.distance import envelope


@njit(cache=True, nogil=True)
def place(
    responses: Float32[np.ndarray, "N R Q"],
    deformations: Float64[np.ndarray, "N 4"],
    anchors: Int64[np.ndarray, "N 2"],
    start: int,
    stop: int,
    best: Float32[np.ndarray, "N h w"],
    places: Int16[np.ndarray, "N h w 2"],
) -> None:
    """The best score of parts `start:stop` for roots at every second place, and where it is (x, y).

    For root (x, y) a part at q scores responses[q] - d . (dx, dy, dx^2, dy^2), (dx, dy) = q - (2 x, 2 y) - anchor: two
    generalised distance transforms, of the rows and of what the rows leave at the columns that are asked for.
    """
    height, width = best.shape[1], best.shape[2]
    rows, columns = responses.shape[1], responses.shape[2]
    costs, sources = np.empty((rows, columns), np.float64), np.empty((rows, columns), np.int64)
    across, chosen = np.empty((width, rows), np.float64), np.empty((width, rows), np.int64)
    second = np.empty((width, rows), np.int64)
    long = max(rows, width)
    bend, slope = np.empty(long, np.float64), np.empty(long, np.float64)
    for n in range(start, stop):
        dx, dy, dxx, dyy = deformations[n, 0], deformations[n, 1], deformations[n, 2], deformations[n, 3]
        left, top = anchors[n, 0], anchors[n, 1]
        for r in range(rows):
            for c in range(columns):
                costs[r, c] = -responses[n, r, c]
        # The transform measures from the part to its place, p - q: the linear term turns round.
        bend[:], slope[:] = dxx, -dx
        envelope(costs, bend, slope, 0, rows, sources)
        for r in range(rows):
            for i in range(width):
                p = 2 * i + left
                q = sources[r, p]
                across[i, r] = costs[r, q] + (dxx * (p - q) - dx) * (p - q)
                chosen[i, r] = q
        bend[:], slope[:] = dyy, -dy
        envelope(across, bend, slope, 0, width, second)
        for j in range(height):
            p = 2 * j + top
            for i in range(width):
                q = second[i, p]
                best[n, j, i] = -(across[i, q] + (dyy * (p - q) - dy) * (p - q))
                places[n, j, i, 0] = chosen[i, q]
                places[n, j, i, 1] = q
