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


@njit(cache=True, nogil=True, error_model="numpy")
def generalized_iou_rows(
    boxes1: Float[np.ndarray, "N 4"],
    boxes2: Float[np.ndarray, "4 M"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "N M"],
) -> None:
    """Generalized IoU of rows `start:stop`: IoU minus the share of the hull that neither covers."""
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
            union = area + (bx2[j] - bx1[j]) * (by2[j] - by1[j]) - inter
            width = (x2 if x2 > bx2[j] else bx2[j]) - (x1 if x1 < bx1[j] else bx1[j])
            height = (y2 if y2 > by2[j] else by2[j]) - (y1 if y1 < by1[j] else by1[j])
            hull = (width if width > zero else zero) * (height if height > zero else zero)
            row[j] = inter / union - (hull - union) / hull


@njit(cache=True, nogil=True, error_model="numpy")
def distance_iou_rows(
    boxes1: Float[np.ndarray, "N 5"],
    boxes2: Float[np.ndarray, "5 M"],
    constants: Float[np.ndarray, " 2"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "N M"],
) -> None:
    """IoU minus the penalties of distance and aspect of rows `start:stop`.

    Args:
        boxes1: [N, 5] xyxy and the angle arctan(w / h); equal angles leave the penalty of aspect out.
        boxes2: [5, M] likewise, by columns.
        constants: eps, and the factor of squared differences of angles.
        start: first row.
        stop: row after the last.
        out: [N, M] written.
    """
    kind = boxes1.dtype.type
    zero, two, one, eps, factor = kind(0), kind(2), kind(1), constants[0], constants[1]
    bx1, by1, bx2, by2, angles = boxes2[0], boxes2[1], boxes2[2], boxes2[3], boxes2[4]
    for i in range(start, stop):
        x1, y1, x2, y2, angle = boxes1[i, 0], boxes1[i, 1], boxes1[i, 2], boxes1[i, 3], boxes1[i, 4]
        area, centre_x, centre_y = (x2 - x1) * (y2 - y1), (x1 + x2) / two, (y1 + y2) / two
        row = out[i]
        for j in range(row.size):
            width = (x2 if x2 < bx2[j] else bx2[j]) - (x1 if x1 > bx1[j] else bx1[j])
            height = (y2 if y2 < by2[j] else by2[j]) - (y1 if y1 > by1[j] else by1[j])
            inter = (width if width > zero else zero) * (height if height > zero else zero)
            iou = inter / (area + (bx2[j] - bx1[j]) * (by2[j] - by1[j]) - inter)
            width = (x2 if x2 > bx2[j] else bx2[j]) - (x1 if x1 < bx1[j] else bx1[j])
            height = (y2 if y2 > by2[j] else by2[j]) - (y1 if y1 < by1[j] else by1[j])
            width, height = width if width > zero else zero, height if height > zero else zero
            apart_x, apart_y = centre_x - (bx1[j] + bx2[j]) / two, centre_y - (by1[j] + by2[j]) / two
            distance = (apart_x * apart_x + apart_y * apart_y) / (width * width + height * height + eps)
            difference = angle - angles[j]
            v = factor * (difference * difference)
            row[j] = iou - distance - v / (one - iou + v + eps) * v
