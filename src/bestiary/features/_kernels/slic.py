"""k-means of pixels in colour and place, each centre looking around itself (Achanta et al.), and connected labels."""

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit


@njit(cache=True, nogil=True)
def cluster(
    pixels: Float32[np.ndarray, "H W C"],
    centres: Float32[np.ndarray, "S D"],
    step: float,
    compactness: float,
    rounds: int,
    labels: Int32[np.ndarray, "H W"],
) -> None:
    """Rounds of assignment and means; centres are y, x and the channels, and end at their means.

    A pixel goes to the first of the centres of least distance among those within `step` of it along both axes; one that
    no centre reaches keeps the label it had.
    """
    height, width, channels = pixels.shape
    spatial = np.float32((compactness / step) ** 2)
    least = np.empty((height, width), np.float32)
    sums = np.empty((len(centres), channels + 2), np.float64)
    counts = np.empty(len(centres), np.int64)
    for _ in range(rounds):
        least[:] = np.inf
        for s in range(len(centres)):
            y, x = centres[s, 0], centres[s, 1]
            top, bottom = max(0, int(np.ceil(y - step))), min(height - 1, int(np.floor(y + step)))
            left, right = max(0, int(np.ceil(x - step))), min(width - 1, int(np.floor(x + step)))
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    dy, dx = np.float32(row) - y, np.float32(column) - x
                    distance = spatial * (dy * dy + dx * dx)
                    for c in range(channels):
                        difference = pixels[row, column, c] - centres[s, c + 2]
                        distance += difference * difference
                    if distance < least[row, column]:
                        least[row, column] = distance
                        labels[row, column] = s
        sums[:] = 0
        counts[:] = 0
        for row in range(height):
            for column in range(width):
                s = labels[row, column]
                counts[s] += 1
                sums[s, 0] += row
                sums[s, 1] += column
                for c in range(channels):
                    sums[s, c + 2] += pixels[row, column, c]
        for s in range(len(centres)):
            if counts[s]:
                for d in range(channels + 2):
                    centres[s, d] = np.float32(sums[s, d] / counts[s])


@njit(cache=True, nogil=True)
def connect(labels: Int32[np.ndarray, "H W"], least: int, connected: Int32[np.ndarray, "H W"]) -> int:
    """One number for each 4-connected part of a label, in reading order; a part of fewer than `least` pixels joins that
    to the left of its first pixel, or else above it. Returns how many there are.
    """
    height, width = labels.shape
    connected[:] = -1
    rows, columns = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    found = 0
    for y in range(height):
        for x in range(width):
            if connected[y, x] >= 0:
                continue
            before = connected[y, x - 1] if x else (connected[y - 1, x] if y else -1)
            rows[0], columns[0], size, i = y, x, 1, 0
            connected[y, x] = found
            while i < size:
                for direction in range(4):
                    row = rows[i] + (direction == 0) - (direction == 1)
                    column = columns[i] + (direction == 2) - (direction == 3)
                    inside = 0 <= row < height and 0 <= column < width
                    if inside and connected[row, column] < 0 and labels[row, column] == labels[y, x]:
                        connected[row, column] = found
                        rows[size], columns[size] = row, column
                        size += 1
                i += 1
            if size < least and before >= 0:
                for j in range(size):
                    connected[rows[j], columns[j]] = before
            else:
                found += 1
    return found
