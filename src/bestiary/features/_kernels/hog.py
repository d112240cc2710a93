"""Gradients with two orientations each, and their histograms in overlapping blocks of cells."""

import math

import numpy as np
from jaxtyping import Float32, UInt8
from numba import njit

_A = (1.0, -0.3333314528, 0.1999355085, -0.1420889944, 0.1065626393, -0.0752896400, 0.0429096138, -0.0161657367)
_A8 = np.float32(0.0028662257)
_A0, _A1, _A2, _A3, _A4, _A5, _A6, _A7 = (np.float32(a) for a in _A)
"""atan(t) / t in powers of t^2, |t| <= 1: wrong by 2e-8 at most (Abramowitz, Stegun, 4.4.49). Unlike the library's
arctangent it runs on several pixels at once.
"""


@njit(cache=True, nogil=True)
def orient_gradients(
    levels: Float32[np.ndarray, "C H W"],
    first_row: int,
    last_row: int,
    bins: int,
    low: UInt8[np.ndarray, "H W"],
    low_vote: Float32[np.ndarray, "H W"],
    high_vote: Float32[np.ndarray, "H W"],
) -> None:
    """Of the channel with the largest gradient at each pixel: the lower of its two unsigned orientations, and how the
    gradient's length is shared between it and the next.

    Orientation k has its centre at (k + 1/2) pi / bins, from the x axis towards the downward y axis. At the border the
    picture goes on mirrored, so nothing points out of it.
    """
    channels, height, width = levels.shape
    best_x, best_y, best = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    step = np.float32(bins / math.pi)
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    quarter, turn, most = np.float32(math.pi / 2), np.float32(math.pi), np.float32(bins)
    tiny = np.float32(1e-30)
    for y in range(first_row, last_row):
        best[:] = np.float32(-1)
        above = y - 1 if y > 0 else min(1, height - 1)
        below = y + 1 if y + 1 < height else max(height - 2, 0)
        for c in range(channels):
            row, up, down = levels[c, y], levels[c, above], levels[c, below]
            for x in range(1, width - 1):
                dx, dy = row[x + 1] - row[x - 1], down[x] - up[x]
                square = dx * dx + dy * dy
                wins = square > best[x]
                best_x[x] = dx if wins else best_x[x]
                best_y[x] = dy if wins else best_y[x]
                best[x] = square if wins else best[x]
            for x in (0, width - 1):
                dy = down[x] - up[x]
                if dy * dy > best[x]:
                    best_x[x], best_y[x], best[x] = zero, dy, dy * dy
        for x in range(width):
            dx, dy = best_x[x], best_y[x]
            wide, tall = abs(dx), abs(dy)
            steep = tall > wide
            t = (wide if steep else tall) / max(max(wide, tall), tiny)
            u = t * t
            p = ((_A8 * u + _A7) * u + _A6) * u + _A5
            p = (((((p * u + _A4) * u + _A3) * u + _A2) * u + _A1) * u + _A0) * t
            angle = quarter - p if steep else p
            # Opposite directions are one orientation, so only whether the signs agree matters.
            angle = turn - angle if (dx < zero) != (dy < zero) else angle
            place = angle * step - half
            place = place + most if place < zero else place
            below_place = np.int32(place)
            share = place - np.float32(below_place)
            length = np.sqrt(best[x])
            low[y, x] = np.uint8(below_place)
            low_vote[y, x] = length * (one - share)
            high_vote[y, x] = length * share


@njit(cache=True, nogil=True)
def gather_blocks(
    low: UInt8[np.ndarray, "H W"],
    low_vote: Float32[np.ndarray, "H W"],
    high_vote: Float32[np.ndarray, "H W"],
    bins: int,
    stride: int,
    weights: Float32[np.ndarray, "P N"],
    first_row: int,
    last_row: int,
    out: Float32[np.ndarray, "Y X D"],
) -> None:
    """Histograms (cell row, cell column, orientation) of the blocks in some rows of blocks.

    Votes are separable: every row of pixels is gathered once into the columns of cells of all blocks, and these lines,
    kept while a block still needs them, are added up in rows of cells.

    Args:
        weights: the share of a pixel at each place along a block's side in each of its cells.
    """
    side, cells = weights.shape
    columns, numbers = out.shape[1], cells * bins
    starts, offsets, shares = _taps(low.shape[1], columns, bins, stride, weights)
    lines = np.zeros((side, columns * numbers), np.float32)
    total = np.zeros(columns * numbers, np.float32)
    for block_row in range(first_row, last_row):
        top = block_row * stride
        for y in range(top if block_row == first_row else top + side - stride, top + side):
            line = lines[y % side]
            line[:] = 0
            for x in range(low.shape[1]):
                first = np.int64(low[y, x])
                second = first + 1 if first + 1 < bins else 0
                a, b = low_vote[y, x], high_vote[y, x]
                for tap in range(starts[x], starts[x + 1]):
                    place, share = offsets[tap], shares[tap]
                    line[place + first] += share * a
                    line[place + second] += share * b
        for cell in range(cells):
            total[:] = 0
            for i in range(side):
                share = weights[i, cell]
                if share > 0:
                    line = lines[(top + i) % side]
                    for k in range(columns * numbers):
                        total[k] += share * line[k]
            for block in range(columns):
                for k in range(numbers):
                    out[block_row, block, cell * numbers + k] = total[block * numbers + k]


@njit(cache=True, nogil=True)
def _taps(
    width: int, columns: int, bins: int, stride: int, weights: Float32[np.ndarray, "P N"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column of pixels, the cells of blocks to which it gives a share: where they start, and the share."""
    side, cells = weights.shape
    starts = np.zeros(width + 1, np.int64)
    offsets = np.empty(width * (side // stride + 1) * cells, np.int64)
    shares = np.empty(len(offsets), np.float32)
    count = 0
    for x in range(width):
        for block in range(max(0, (x - side) // stride + 1), min(columns - 1, x // stride) + 1):
            for cell in range(cells):
                share = weights[x - block * stride, cell]
                if share > 0:
                    offsets[count], shares[count] = (block * cells + cell) * bins, share
                    count += 1
        starts[x + 1] = count
    return starts, offsets, shares


@njit(cache=True, nogil=True)
def normalise_blocks(
    blocks: Float32[np.ndarray, "Y X D"], first_row: int, last_row: int, epsilon: float, clip: float
) -> None:
    """Each block by its length, clipped, and by its length again, in place; a block without gradients stays 0."""
    numbers = blocks.shape[2]
    floor, most, zero = np.float32(epsilon * epsilon), np.float32(clip), np.float32(0)
    for y in range(first_row, last_row):
        for x in range(blocks.shape[1]):
            block = blocks[y, x]
            square = zero
            for k in range(numbers):
                square += block[k] * block[k]
            factor = np.float32(1) / np.sqrt(square + floor) if square > zero else zero
            square = zero
            for k in range(numbers):
                block[k] = min(block[k] * factor, most)
                square += block[k] * block[k]
            factor = np.float32(1) / np.sqrt(square) if square > zero else zero
            for k in range(numbers):
                block[k] *= factor
