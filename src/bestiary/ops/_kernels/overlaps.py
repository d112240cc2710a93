"""Pairwise overlaps of boxes."""

import numpy as np
from jaxtyping import Float
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def iou_rows(
    boxes1: Float[np.ndarray, "N 4"],
    boxes2: Float[np.ndarray, "4 M"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "N M"],
) -> None:
    """IoU of rows `start:stop`: boxes1 [N, 4] and boxes2 [4, M] xyxy of one type, out [N, M]; 0 / 0 is NaN."""
    zero = boxes1.dtype.type(0)
    bx1, by1, bx2, by2 = boxes2[0], boxes2[1], boxes2[2], boxes2[3]
    for i in range(start, stop):
        x1, y1, x2, y2 = boxes1[i, 0], boxes1[i, 1], boxes1[i, 2], boxes1[i, 3]
        area = (x2 - x1) * (y2 - y1)
        row = out[i]
        for j in range(row.size):
            width = (x2 if x2 < bx2[j] else bx2[j]) - (x1 if x1 > bx1[j] else bx1[j])
            height = (y2 if y2 < by2[j] else by2[j]) - (y1 if y1 > by1[j] else by1[j])
            inter = (width if width > zero else zero) * (height if height > zero else zero)
            row[j] = inter / (area + (bx2[j] - bx1[j]) * (by2[j] - by1[j]) - inter)
