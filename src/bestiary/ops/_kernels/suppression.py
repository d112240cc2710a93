"""Greedy non-maximum suppression."""

import numpy as np
from jaxtyping import Bool, Float, Int64
from numba import njit

_CHUNK = 64
"""Kept boxes compared at once: enough to fill vector registers, few enough that a suppressed box costs little."""

_PER_STRIP, _MOST_STRIPS = 128, 256
"""Boxes a strip should hold before any is dropped; beyond so many strips, visiting them costs more than it spares."""


@njit(cache=True, nogil=True, error_model="numpy")
def suppress(
    boxes: Float[np.ndarray, "4 N"],
    starts: Int64[np.ndarray, " G1"],
    threshold: np.floating,
    keep: Bool[np.ndarray, " N"],
) -> None:
    """Mark the boxes that survive within each group.

    A box is compared with those already kept, in chunks without a branch inside, and dropped after the first chunk that
    holds one overlapping it too much. Kept boxes are filed in vertical strips by their centres: the union is at least
    as high as the intersection and as wide as both boxes together, so

        IoU > t   implies   |c - c'| < w (1 - t) / (2 t)

    for the centres c, c' across and the width w of either box, and all strips further away can be left out.

    Args:
        boxes: [4, N] x1, y1, x2, y2, contiguous; sorted by group, then by descending score.
        starts: [G + 1] where each group begins.
        threshold: of the boxes' type; IoU above it suppresses.
        keep: [N] written.
    """
    most = 0
    for g in range(starts.size - 1):
        most = max(most, starts[g + 1] - starts[g])
    kept = np.empty((5, most), boxes.dtype)
    strips = np.empty(most, np.int64)
    for g in range(starts.size - 1):
        start, stop = starts[g], starts[g + 1]
        # With hardly any threshold a box reaches nearly all others.
        count = min(_MOST_STRIPS, (stop - start) // _PER_STRIP) if threshold > 0.05 else 1
        _suppress_group(boxes[:, start:stop], threshold, max(1, count), kept, strips, keep[start:stop])


@njit(cache=True, nogil=True, error_model="numpy")
def _suppress_group(
    boxes: Float[np.ndarray, "4 N"],
    threshold: np.floating,
    num_strips: int,
    kept: Float[np.ndarray, "5 M"],
    strips: Int64[np.ndarray, " M"],
    keep: Bool[np.ndarray, " N"],
) -> None:
    count = boxes.shape[1]
    begins, low, per_pixel = _file(boxes, num_strips, strips)
    ends = begins[:-1].copy()
    # A little more than the bound: the overlap itself is rounded.
    bound = threshold * (1 - 1e-4)
    reach_per_width = (1 - bound) / (2 * bound) if num_strips > 1 else 0.0
    for j in range(count):
        x1, y1, x2, y2 = boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j]
        first, last = 0, num_strips - 1
        if num_strips > 1:
            centre, reach = (np.float64(x1) + x2) / 2, (np.float64(x2) - x1) * reach_per_width
            first = _strip_of(centre - reach, low, per_pixel, num_strips)
            last = _strip_of(centre + reach, low, per_pixel, num_strips)
        area = (x2 - x1) * (y2 - y1)
        alive = True
        for s in range(first, last + 1):
            if begins[s] < ends[s] and _overlaps(kept[:, begins[s] : ends[s]], x1, y1, x2, y2, area, threshold):
                alive = False
                break
        keep[j] = alive
        if alive:
            place = ends[strips[j]]
            kept[0, place], kept[1, place], kept[2, place], kept[3, place], kept[4, place] = x1, y1, x2, y2, area
            ends[strips[j]] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _overlaps(
    kept: Float[np.ndarray, "5 K"],
    x1: np.floating,
    y1: np.floating,
    x2: np.floating,
    y2: np.floating,
    area: np.floating,
    threshold: np.floating,
) -> bool:
    """Whether any of the kept boxes (x1, y1, x2, y2, area) has an IoU above the threshold with this one."""
    zero = kept.dtype.type(0)
    kx1, ky1, kx2, ky2, kept_area = kept[0], kept[1], kept[2], kept[3], kept[4]
    for first in range(0, kept.shape[1], _CHUNK):
        hits = 0
        for k in range(first, min(first + _CHUNK, kept.shape[1])):
            width = (x2 if x2 < kx2[k] else kx2[k]) - (x1 if x1 > kx1[k] else kx1[k])
            height = (y2 if y2 < ky2[k] else ky2[k]) - (y1 if y1 > ky1[k] else ky1[k])
            inter = (width if width > zero else zero) * (height if height > zero else zero)
            hits += inter / (kept_area[k] + area - inter) > threshold
        if hits:
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _strip_of(centre: float, low: float, per_pixel: float, num_strips: int) -> int:
    """Index of the strip at `centre`, the nearest one outside; 0 for NaN, whose boxes neither suppress nor go."""
    place = (centre - low) * per_pixel
    if not place > 0:
        return 0
    return int(place) if place < num_strips else num_strips - 1


@njit(cache=True, nogil=True, error_model="numpy")
def _file(
    boxes: Float[np.ndarray, "4 N"], num_strips: int, strips: Int64[np.ndarray, " M"]
) -> tuple[Int64[np.ndarray, " S1"], float, float]:
    """Strip of each box, written; where each strip's room begins; its lowest centre; strips a pixel."""
    low, high = np.inf, -np.inf
    for j in range(boxes.shape[1]):
        centre = (np.float64(boxes[0, j]) + boxes[2, j]) / 2
        if np.isfinite(centre):
            low, high = min(low, centre), max(high, centre)
    per_pixel = num_strips / (high - low) if high > low else 0.0
    begins = np.zeros(num_strips + 1, np.int64)
    for j in range(boxes.shape[1]):
        strips[j] = _strip_of((np.float64(boxes[0, j]) + boxes[2, j]) / 2, low, per_pixel, num_strips)
        begins[strips[j] + 1] += 1
    for s in range(num_strips):
        begins[s + 1] += begins[s]
    return begins, low, per_pixel
