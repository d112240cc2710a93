"""Best object of each anchor and best overlap of each object, without the matrix between them."""

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _overlap_row(
    object_box: Float32[np.ndarray, " 4"],
    anchors: Float32[np.ndarray, "4 A"],
    start: int,
    stop: int,
    row: Float32[np.ndarray, " block"],
) -> None:
    zero = np.float32(0)
    x1, y1, x2, y2 = object_box[0], object_box[1], object_box[2], object_box[3]
    area = (x2 - x1) * (y2 - y1)
    ax1, ay1, ax2, ay2 = anchors[0, start:stop], anchors[1, start:stop], anchors[2, start:stop], anchors[3, start:stop]
    for a in range(stop - start):
        width = (x2 if x2 < ax2[a] else ax2[a]) - (x1 if x1 > ax1[a] else ax1[a])
        height = (y2 if y2 < ay2[a] else ay2[a]) - (y1 if y1 > ay1[a] else ay1[a])
        inter = (width if width > zero else zero) * (height if height > zero else zero)
        iou = inter / (area + (ax2[a] - ax1[a]) * (ay2[a] - ay1[a]) - inter)
        # 0 / 0, an empty anchor in an empty object, counts as no overlap.
        row[a] = iou if iou > zero else zero


_BLOCK = 2048
"""Anchors at a time: their best values stay in the first cache while the objects pass."""


@njit(cache=True, nogil=True, error_model="numpy")
def best_matches(
    objects: Float32[np.ndarray, "N 4"],
    anchors: Float32[np.ndarray, "4 A"],
    start: int,
    stop: int,
    best: Float32[np.ndarray, " A"],
    best_object: Int32[np.ndarray, " A"],
    object_best: Float32[np.ndarray, " N"],
) -> None:
    """For anchors `start:stop`: the best IoU, the lowest object that has it, and each object's best.

    Args:
        objects: [N, 4] float32, N > 0.
        anchors: [4, A] float32, contiguous.
        best: [A] float32, written.
        best_object: [A] int32, written.
        object_best: [N] float32, raised to this range's maximum.
    """
    row = np.empty(_BLOCK, np.float32)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        values, winners = best[first:last], best_object[first:last]
        values[:] = -1
        winners[:] = 0
        for n in range(objects.shape[0]):
            _overlap_row(objects[n], anchors, first, last, row)
            index = np.int32(n)
            for a in range(last - first):
                better = row[a] > values[a]
                values[a] = row[a] if better else values[a]
                winners[a] = index if better else winners[a]
            highest = object_best[n]
            for a in range(last - first):
                if row[a] > highest:
                    highest = row[a]
            object_best[n] = highest


@njit(cache=True, nogil=True, error_model="numpy")
def mark_best(
    objects: Float32[np.ndarray, "N 4"],
    anchors: Float32[np.ndarray, "4 A"],
    start: int,
    stop: int,
    object_best: Float32[np.ndarray, " N"],
    ties: UInt8[np.ndarray, " A"],
) -> None:
    """Mark the anchors `start:stop` that have some object's best IoU, if that is above zero, in `ties` [A] uint8."""
    row = np.empty(_BLOCK, np.float32)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        marks = ties[first:last]
        for n in range(objects.shape[0]):
            highest = object_best[n]
            if highest <= 0:
                continue
            _overlap_row(objects[n], anchors, first, last, row)
            for a in range(last - first):
                marks[a] |= np.uint8(row[a] == highest)
