"""Cues of windows from integral images. Windows are x1, y1, x2, y2 in whole pixels, ends not included."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def integral(values: np.ndarray) -> np.ndarray:
    """Sums of all that lies above and to the left, `[H + 1, W + 1]`, in float64."""
    height, width = values.shape
    out = np.zeros((height + 1, width + 1), np.float64)
    for y in range(height):
        row = 0.0
        for x in range(width):
            row += values[y, x]
            out[y + 1, x + 1] = out[y, x + 1] + row
    return out


@njit(cache=True, nogil=True)
def integral_counts(labels: np.ndarray, count: int) -> np.ndarray:
    """How many pixels of each label 0 .. count - 1 lie above and to the left, `[H + 1, W + 1, count]`."""
    height, width = labels.shape
    out = np.zeros((height + 1, width + 1, count), np.int32)
    row = np.empty(count, np.int32)
    for y in range(height):
        row[:] = 0
        for x in range(width):
            row[labels[y, x]] += 1
            above, here = out[y, x + 1], out[y + 1, x + 1]
            for k in range(count):
                here[k] = above[k] + row[k]
    return out


@njit(cache=True, nogil=True)
def _between_rows(mass: np.ndarray, ones: np.ndarray, y1: int, y2: int, salient: np.ndarray, many: np.ndarray) -> None:
    """The integrals over x of what lies between two rows, divided by their distance."""
    part = 1.0 / (y2 - y1)
    for x in range(mass.shape[1]):
        salient[x] = mass[y2, x] - mass[y1, x]
        many[x] = (ones[y2, x] - ones[y1, x]) * part


@njit(cache=True, nogil=True)
def _scores_of_width(salient: np.ndarray, many: np.ndarray, width: int, out: np.ndarray) -> float:
    """Scores of all windows of one width between two rows, and their sum."""
    part, total = 1.0 / width, 0.0
    for x in range(len(salient) - width):
        out[x] = (salient[x + width] - salient[x]) * (many[x + width] - many[x]) * part
    for x in range(len(salient) - width):
        total += out[x]
    return total


@njit(cache=True, nogil=True)
def draw_salient(
    mass: np.ndarray, ones: np.ndarray, least_hw: tuple[int, int], number: int, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """About `number` windows of a salience map, drawn with chances that are their scores, and the scores.

    The score is the sum of the salient pixels times their share of the window (equation 3 of the paper). All windows,
    laid end to end with their scores as lengths, are picked at even steps from `offset` (0..1) of a step; a window that
    is longer than a step is picked once.

    Args:
        mass: integral image of the salience where it reaches the threshold.
        ones: integral image of where it does.
    """
    side = mass.shape[0] - 1
    salient, many, line = np.empty(side + 1), np.empty(side + 1), np.empty(side + 1)
    rows = np.zeros((side + 1, side + 1))
    for y1 in range(side + 1 - least_hw[0]):
        for y2 in range(y1 + least_hw[0], side + 1):
            _between_rows(mass, ones, y1, y2, salient, many)
            for width in range(least_hw[1], side + 1):
                rows[y1, y2] += _scores_of_width(salient, many, width, line)
    windows, scores = np.empty((number + 1, 4), np.int16), np.empty(number + 1, np.float32)
    total = rows.sum()
    if not total > 0:
        return windows[:0], scores[:0]
    found, passed, step = 0, 0.0, total / number
    mark = offset * step
    for y1 in range(side + 1 - least_hw[0]):
        for y2 in range(y1 + least_hw[0], side + 1):
            if passed + rows[y1, y2] < mark:
                passed += rows[y1, y2]
                continue
            _between_rows(mass, ones, y1, y2, salient, many)
            for width in range(least_hw[1], side + 1):
                some = _scores_of_width(salient, many, width, line)
                if passed + some < mark:
                    passed += some
                    continue
                for x in range(side + 1 - width):
                    passed += line[x]
                    if passed > mark and line[x] > 0 and found <= number:
                        windows[found] = (x, y1, x + width, y2)
                        scores[found] = line[x]
                        found += 1
                        mark += step * np.ceil((passed - mark) / step)
    return windows[:found], scores[:found]


@njit(cache=True, nogil=True)
def contrasts(counts: np.ndarray, windows: np.ndarray, factor: float, out: np.ndarray) -> None:
    """Chi-square distance (0..2) of the colours within each window and around it.

    Around it is the window enlarged about its centre so that its area grows by `factor`, less the window, cut at the
    picture. 0 where nothing is around it.
    """
    height, width, colours = counts.shape[0] - 1, counts.shape[1] - 1, counts.shape[2]
    grow = (np.sqrt(1 + factor) - 1) / 2
    for i in range(len(windows)):
        x1, y1, x2, y2 = windows[i]
        wide, tall = grow * (x2 - x1), grow * (y2 - y1)
        left, right = max(0, int(np.rint(x1 - wide))), min(width, int(np.rint(x2 + wide)))
        top, bottom = max(0, int(np.rint(y1 - tall))), min(height, int(np.rint(y2 + tall)))
        inside = (x2 - x1) * (y2 - y1)
        around = (right - left) * (bottom - top) - inside
        out[i] = 0
        if around <= 0 or inside <= 0:
            continue
        a, b, c, d = counts[y1, x1], counts[y1, x2], counts[y2, x1], counts[y2, x2]
        e, f, g, h = counts[top, left], counts[top, right], counts[bottom, left], counts[bottom, right]
        total = np.float32(0)
        per_inside, per_around = np.float32(1 / inside), np.float32(1 / around)
        for k in range(colours):
            within = d[k] - c[k] - b[k] + a[k]
            p = np.float32(within) * per_inside
            q = np.float32(h[k] - g[k] - f[k] + e[k] - within) * per_around
            total += (p - q) * (p - q) / max(p + q, np.float32(1e-12))
        out[i] = total


@njit(cache=True, nogil=True)
def edge_densities(edges: np.ndarray, windows: np.ndarray, factor: float, out: np.ndarray) -> None:
    """Edge pixels in the ring between each window and the window shrunk about its centre to 1 / (1 + factor) of its
    sides, divided by the inner one's outline.
    """
    for i in range(len(windows)):
        x1, y1, x2, y2 = windows[i]
        wide, tall = (x2 - x1) * factor / (1 + factor) / 2, (y2 - y1) * factor / (1 + factor) / 2
        left, right = int(np.rint(x1 + wide)), int(np.rint(x2 - wide))
        top, bottom = int(np.rint(y1 + tall)), int(np.rint(y2 - tall))
        within = edges[bottom, right] - edges[bottom, left] - edges[top, right] + edges[top, left]
        whole = edges[y2, x2] - edges[y2, x1] - edges[y1, x2] + edges[y1, x1]
        out[i] = (whole - within) / max(1, 2 * (right - left + bottom - top))


@njit(cache=True, nogil=True)
def straddlings(counts: np.ndarray, windows: np.ndarray, out: np.ndarray) -> None:
    """1 - the sum over segments of the smaller of their parts within and without each window, over its area."""
    sizes = counts[counts.shape[0] - 1, counts.shape[1] - 1]
    for i in range(len(windows)):
        x1, y1, x2, y2 = windows[i]
        a, b, c, d = counts[y1, x1], counts[y1, x2], counts[y2, x1], counts[y2, x2]
        cut = 0
        for k in range(len(sizes)):
            within = d[k] - c[k] - b[k] + a[k]
            cut += min(within, sizes[k] - within)
        out[i] = 1 - cut / max(1, (x2 - x1) * (y2 - y1))


@njit(cache=True, nogil=True)
def densities(
    points: np.ndarray, centres: np.ndarray, precisions: np.ndarray, heights: np.ndarray, out: np.ndarray
) -> None:
    """Sums of round Gaussians: `heights[j] exp(-0.5 precisions[j] |point - centre[j]|^2)`."""
    for i in range(len(points)):
        total = np.float32(0)
        for j in range(len(centres)):
            square = np.float32(0)
            for k in range(4):
                away = points[i, k] - centres[j, k]
                square += away * away
            square *= precisions[j]
            if square < 40:
                total += heights[j] * np.exp(np.float32(-0.5) * square)
        out[i] = total
