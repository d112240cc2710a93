"""Orientation histograms on a regular grid of patches."""

import math

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numba import njit

CELLS = 4
ORIENTATIONS = 8


@njit(cache=True, nogil=True)
def orient_gradients(
    gray: Float32[np.ndarray, "H W"],
    magnitudes: Float32[np.ndarray, "H W"],
    bins: UInt8[np.ndarray, "H W"],
    shares: Float32[np.ndarray, "H W"],
) -> None:
    """Length of the central difference at each pixel, the lower of its two orientation bins, and the upper one's share.

    Bin 0 is a gradient along +x, bin 2 one along +y (down); beyond the border the picture goes on with its last pixels.
    """
    height, width = gray.shape
    half, turn = np.float32(0.5), np.float32(ORIENTATIONS / (2 * math.pi))
    for y in range(height):
        above, below = gray[max(y - 1, 0)], gray[min(y + 1, height - 1)]
        for x in range(width):
            dx = half * (gray[y, min(x + 1, width - 1)] - gray[y, max(x - 1, 0)])
            dy = half * (below[x] - above[x])
            magnitudes[y, x] = math.sqrt(dx * dx + dy * dy)
            place = np.float32(math.atan2(dy, dx)) * turn
            if place < 0:
                place += np.float32(ORIENTATIONS)
            low = int(place)
            shares[y, x] = place - np.float32(low)
            bins[y, x] = low % ORIENTATIONS


@njit(cache=True, nogil=True)
def describe_patches(
    magnitudes: Float32[np.ndarray, "H W"],
    bins: UInt8[np.ndarray, "H W"],
    shares: Float32[np.ndarray, "H W"],
    weights: Float32[np.ndarray, "P 4"],
    lefts: Int64[np.ndarray, " X"],
    tops: Int64[np.ndarray, " Y"],
    out: Float32[np.ndarray, "N 128"],
) -> None:
    """Histograms (cell row, cell column, orientation) of the patches at every top and left, row by row.

    Votes are separable: the pixels of a column are gathered into the four rows of cells once for all patches of a row,
    and the columns of a patch then into its columns of cells.

    Args:
        weights: the share of a pixel at each place along a patch's side in each of the four cells.
    """
    width, side, numbers = magnitudes.shape[1], weights.shape[0], CELLS * ORIENTATIONS
    columns = np.zeros((width, numbers), np.float32)
    cells = np.zeros((CELLS, numbers), np.float32)
    for row in range(tops.size):
        columns[:] = 0
        for dy in range(side):
            y = tops[row] + dy
            for j in range(CELLS):
                if weights[dy, j] > 0:
                    for x in range(width):
                        vote = weights[dy, j] * magnitudes[y, x]
                        upper = vote * shares[y, x]
                        low = bins[y, x]
                        columns[x, j * ORIENTATIONS + low] += vote - upper
                        columns[x, j * ORIENTATIONS + (low + 1) % ORIENTATIONS] += upper
        for place in range(lefts.size):
            cells[:] = 0
            for dx in range(side):
                column = columns[lefts[place] + dx]
                for i in range(CELLS):
                    weight = weights[dx, i]
                    if weight > 0:
                        for k in range(numbers):
                            cells[i, k] += weight * column[k]
            found = out[row * lefts.size + place]
            for j in range(CELLS):
                for i in range(CELLS):
                    for o in range(ORIENTATIONS):
                        found[(j * CELLS + i) * ORIENTATIONS + o] = cells[i, j * ORIENTATIONS + o]
