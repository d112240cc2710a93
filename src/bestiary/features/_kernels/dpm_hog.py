"""Gradients of a colour picture, their votes into cells, and cells normalised by their neighbourhoods."""

import numpy as np
from jaxtyping import Float32, UInt8
from numba import njit

_ANGLES = np.arange(9) * np.pi / 9
_ALONG_X = np.cos(_ANGLES).astype(np.float32)
_ALONG_Y = np.sin(_ANGLES).astype(np.float32)


@njit(cache=True, nogil=True)
def edges(
    pixels: Float32[np.ndarray, "3 H W"],
    start: int,
    stop: int,
    lengths: Float32[np.ndarray, "H W"],
    directions: UInt8[np.ndarray, "H W"],
) -> None:
    """Length and direction (of 18, 20 degrees apart) of the gradient in rows `start:stop`, none at the border.

    A pixel has the gradient of the channel where it is longest. Ties go to the earlier channel and direction.
    """
    height, width = pixels.shape[1], pixels.shape[2]
    across, down = np.empty(width, np.float32), np.empty(width, np.float32)
    most, best = np.empty(width, np.float32), np.empty(width, np.uint8)
    for y in range(start, stop):
        if y == 0 or y == height - 1:
            lengths[y], directions[y] = 0, 0
            continue
        most[:] = 0
        across[:] = 0
        down[:] = 0
        for channel in range(3):
            above, here, below = pixels[channel, y - 1], pixels[channel, y], pixels[channel, y + 1]
            for x in range(1, width - 1):
                dx, dy = here[x + 1] - here[x - 1], below[x] - above[x]
                square = dx * dx + dy * dy
                if square > most[x]:
                    most[x], across[x], down[x] = square, dx, dy
        for x in range(width):
            lengths[y, x] = np.sqrt(most[x])
        most[:] = 0
        best[:] = 0
        for o in range(9):
            along_x, along_y = _ALONG_X[o], _ALONG_Y[o]
            for x in range(width):
                dot = along_x * across[x] + along_y * down[x]
                size = abs(dot)
                direction = np.uint8(o) if dot > 0 else np.uint8(o + 9)
                best[x] = direction if size > most[x] else best[x]
                most[x] = max(size, most[x])
        directions[y] = best


@njit(cache=True, nogil=True)
def votes(
    lengths: Float32[np.ndarray, "H W"],
    directions: UInt8[np.ndarray, "H W"],
    cell: int,
    start: int,
    stop: int,
    histograms: Float32[np.ndarray, "R C 18"],
    energies: Float32[np.ndarray, "R C"],
) -> None:
    """Histograms of rows `start:stop` of cells: each pixel votes with its length, bilinearly, for the nearest cells.

    Where the cells reach beyond the picture its last gradients are repeated. Energies are of the unsigned directions.
    """
    height, width = lengths.shape
    rows, columns = energies.shape
    reach = columns * cell
    left, share = np.empty(reach, np.int64), np.empty(reach, np.float32)
    for x in range(reach):
        place = (x + 0.5) / cell - 0.5
        left[x] = int(np.floor(place))
        share[x] = np.float32(place - left[x])
    for j in range(start, stop):
        into = histograms[j]
        into[:] = 0
        for y in range(max(1, j * cell - cell // 2 - 1), min(rows * cell - 1, (j + 2) * cell)):
            near = np.float32(1 - abs((y + 0.5) / cell - 0.5 - j))
            if near <= 0:
                continue
            row = min(y, height - 2)
            for x in range(1, reach - 1):
                column = min(x, width - 2)
                length, direction, i = lengths[row, column] * near, directions[row, column], left[x]
                if i >= 0:
                    into[i, direction] += length * (np.float32(1) - share[x])
                if i + 1 < columns:
                    into[i + 1, direction] += length * share[x]
        for i in range(columns):
            energy = np.float32(0)
            for o in range(9):
                unsigned = into[i, o] + into[i, o + 9]
                energy += unsigned * unsigned
            energies[j, i] = energy


@njit(cache=True, nogil=True)
def normalise(
    histograms: Float32[np.ndarray, "R C 18"],
    energies: Float32[np.ndarray, "R C"],
    start: int,
    stop: int,
    features: Float32[np.ndarray, "32 R2 C2"],
) -> None:
    """The 32 numbers of the inner cells in rows `start:stop` of `features`, which has no border cells."""
    clip, half, texture, eps = np.float32(0.2), np.float32(0.5), np.float32(0.2357), np.float32(1e-4)
    one = np.float32(1)
    for j in range(start, stop):
        for i in range(features.shape[2]):
            cell = histograms[j + 1, i + 1]
            for block in range(4):
                # Lower right, upper right, lower left, upper left: the published order of the four textures.
                y, x = j + (1 - block % 2), i + (1 - block // 2)
                energy = energies[y, x] + energies[y, x + 1] + energies[y + 1, x] + energies[y + 1, x + 1]
                scale, total = one / np.sqrt(energy + eps), np.float32(0)
                for o in range(18):
                    value = min(cell[o] * scale, clip)
                    total += value
                    features[o, j, i] = half * value if block == 0 else features[o, j, i] + half * value
                for o in range(9):
                    value = half * min((cell[o] + cell[o + 9]) * scale, clip)
                    features[18 + o, j, i] = value if block == 0 else features[18 + o, j, i] + value
                features[27 + block, j, i] = texture * total
            features[31, j, i] = 0
