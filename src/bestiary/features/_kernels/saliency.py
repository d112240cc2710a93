"""Entropy of grey levels in growing discs, and patches of a picture."""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from numba import njit


@njit(cache=True, nogil=True)
def saliency_peaks(
    levels: UInt8[np.ndarray, "H W"],
    pixels: Float32[np.ndarray, "H W"],
    rings: Int32[np.ndarray, "O 2"],
    starts: Int64[np.ndarray, " S"],
    smallest: int,
    step: int,
    least_contrast: float,
) -> Float32[np.ndarray, "N 4"]:
    """Rows x, y, radius, saliency of every peak of the entropy over the radius.

    Args:
        levels: grey levels below 16.
        pixels: 0..1.
        rings: offsets (y, x), ring by ring.
        starts: where each ring starts, and the end; the first is the disc of radius smallest - 1.
        smallest: radius of the first disc that is compared.
        step: between centres.
        least_contrast: standard deviation below which a disc is no candidate.
    """
    height, width = levels.shape
    scales = starts.shape[0] - 2
    most = rings.shape[0]
    information = np.zeros(most + 1)  # n log2 n
    for n in range(2, most + 1):
        information[n] = n * np.log2(n)
    found = np.empty(
        (((height + step - 1) // step) * ((width + step - 1) // step) * ((scales + 1) // 2), 4), np.float32
    )
    count = 0
    entropy, change, deviation = np.empty(scales), np.empty(scales), np.empty(scales)
    now, before = np.zeros(16, np.int64), np.zeros(16, np.int64)
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            room = min(y, x, height - 1 - y, width - 1 - x) - smallest + 1
            if room < 2:
                continue
            now[:] = 0
            total, squares = 0.0, 0.0
            fits = min(scales, room)
            for s in range(-1, fits):
                before[:] = now
                for i in range(starts[s + 1], starts[s + 2]):
                    row, column = y + rings[i, 0], x + rings[i, 1]
                    now[levels[row, column]] += 1
                    value = np.float64(pixels[row, column])
                    total += value
                    squares += value * value
                if s < 0:
                    continue
                area, inner = starts[s + 2], starts[s + 1]
                held, moved = 0.0, 0.0
                for level in range(16):
                    held += information[now[level]]
                    moved += abs(now[level] / area - before[level] / inner)
                radius = smallest + s
                entropy[s] = np.log2(area) - held / area
                change[s] = moved * radius * radius / (2 * radius - 1)
                deviation[s] = squares / area - (total / area) ** 2
            for s in range(1, fits - 1):
                peak = entropy[s] > entropy[s - 1] and entropy[s] >= entropy[s + 1]
                if peak and deviation[s] >= least_contrast * least_contrast:
                    found[count, 0], found[count, 1] = x + 0.5, y + 0.5
                    found[count, 2], found[count, 3] = smallest + s, entropy[s] * change[s]
                    count += 1
    return found[:count]


@njit(cache=True, nogil=True)
def patch_means(
    integral: Float64[np.ndarray, "H1 W1"], boxes: Float32[np.ndarray, "N 4"], side: int
) -> Float32[np.ndarray, "N S"]:
    """Each box as `side` x `side` means of the pixels in its cells; a cell is at least one pixel, within the picture.

    Args:
        integral: `integral[y, x]`, sum of all pixels above and left of the corner (x, y).
        boxes: x1, y1, x2, y2.
        side: cells along each axis.
    """
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    out = np.empty((boxes.shape[0], side * side), np.float32)
    for n in range(boxes.shape[0]):
        x0, y0 = np.float64(boxes[n, 0]), np.float64(boxes[n, 1])
        w, h = (np.float64(boxes[n, 2]) - x0) / side, (np.float64(boxes[n, 3]) - y0) / side
        for j in range(side):
            top = min(max(int(np.floor(y0 + j * h + 0.5)), 0), height - 1)
            bottom = min(max(int(np.floor(y0 + (j + 1) * h + 0.5)), top + 1), height)
            for i in range(side):
                left = min(max(int(np.floor(x0 + i * w + 0.5)), 0), width - 1)
                right = min(max(int(np.floor(x0 + (i + 1) * w + 0.5)), left + 1), width)
                mass = integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]
                out[n, j * side + i] = mass / ((bottom - top) * (right - left))
    return out
