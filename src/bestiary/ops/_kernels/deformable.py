"""Columns of a deformable convolution and their gradients, on channels-last float32 maps.

A tap reads the bilinear mean of four pixels; the inner loops run over contiguous channels.
"""

import math

import numpy as np
from jaxtyping import Float32
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _corners(
    y: np.float32, x: np.float32, height: int, width: int
) -> tuple[int, int, bool, bool, bool, bool, np.float32, np.float32]:
    """Top-left pixel, which of its rows and columns (y, y + 1, x, x + 1) are on the map, and the parts beyond it."""
    if not (y >= -1 and y <= height and x >= -1 and x <= width):
        return 0, 0, False, False, False, False, np.float32(0), np.float32(0)
    top, left = math.floor(y), math.floor(x)
    on_top, on_bottom = 0 <= top < height, 0 <= top + 1 < height
    on_left, on_right = 0 <= left < width, 0 <= left + 1 < width
    return top, left, on_top, on_bottom, on_left, on_right, y - np.float32(top), x - np.float32(left)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _blend(
    target: Float32[np.ndarray, " C"],
    f0: Float32[np.ndarray, " C"],
    f1: Float32[np.ndarray, " C"],
    f2: Float32[np.ndarray, " C"],
    f3: Float32[np.ndarray, " C"],
    w0: np.float32,
    w1: np.float32,
    w2: np.float32,
    w3: np.float32,
) -> None:
    for c in range(target.size):
        target[c] = w0 * f0[c] + w1 * f1[c] + w2 * f2[c] + w3 * f3[c]


# The order in which C products are summed is not part of the definition; left free, the sum runs in vector registers.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _dots(
    grad: Float32[np.ndarray, " C"],
    f0: Float32[np.ndarray, " C"],
    f1: Float32[np.ndarray, " C"],
    f2: Float32[np.ndarray, " C"],
    f3: Float32[np.ndarray, " C"],
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    d0 = d1 = d2 = d3 = np.float32(0)
    for c in range(grad.size):
        d0 += grad[c] * f0[c]
        d1 += grad[c] * f1[c]
        d2 += grad[c] * f2[c]
        d3 += grad[c] * f3[c]
    return d0, d1, d2, d3


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add(total: Float32[np.ndarray, " C"], source: Float32[np.ndarray, " C"], weight: np.float32) -> None:
    for c in range(total.size):
        total[c] += weight * source[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _lines(
    image: Float32[np.ndarray, "H W C"],
    zeros: Float32[np.ndarray, " C"],
    corners: tuple[int, int, bool, bool, bool, bool, np.float32, np.float32],
    first: int,
    stop: int,
) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"], Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
    """Channels `first:stop` of the four pixels; zeros for those off the map."""
    top, left, on_top, on_bottom, on_left, on_right, _, _ = corners
    none = zeros[first:stop]
    return (
        image[top, left, first:stop] if on_top and on_left else none,
        image[top, left + 1, first:stop] if on_top and on_right else none,
        image[top + 1, left, first:stop] if on_bottom and on_left else none,
        image[top + 1, left + 1, first:stop] if on_bottom and on_right else none,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def columns_forward(
    image: Float32[np.ndarray, "H W C"],
    places: Float32[np.ndarray, "P K G 3"],
    first_pixel: int,
    start: int,
    stop: int,
    columns: Float32[np.ndarray, "W Q K c"],
) -> None:
    """What each tap reads, for the output pixels `first_pixel + start : first_pixel + stop`.

    Args:
        image: contiguous.
        places: y, x and modulation of each output pixel, tap and offset group.
        first_pixel: the output pixel of the columns' first row.
        start, stop: the range of the columns' rows.
        columns: [weight groups, rows, taps, channels of a group], written.
    """
    height, width, channels = image.shape
    taps, offset_groups = places.shape[1:3]
    per_weight, per_offset = columns.shape[3], channels // offset_groups
    zeros = np.zeros(channels, np.float32)
    for row in range(start, stop):
        for k in range(taps):
            for g in range(offset_groups):
                y, x, modulation = places[first_pixel + row, k, g]
                corners = _corners(y, x, height, width)
                fy, fx = corners[6], corners[7]
                bottom, top = modulation * fy, modulation * (np.float32(1) - fy)
                left = np.float32(1) - fx
                # The group's channels, cut where the weights' groups meet.
                c = g * per_offset
                while c < (g + 1) * per_offset:
                    end = min((g + 1) * per_offset, (c // per_weight + 1) * per_weight)
                    f0, f1, f2, f3 = _lines(image, zeros, corners, c, end)
                    first = c % per_weight
                    target = columns[c // per_weight, row, k, first : first + end - c]
                    _blend(target, f0, f1, f2, f3, top * left, top * fx, bottom * left, bottom * fx)
                    c = end


@njit(cache=True, nogil=True, error_model="numpy")
def places_backward(
    image: Float32[np.ndarray, "H W C"],
    places: Float32[np.ndarray, "P K G 3"],
    columns_grad: Float32[np.ndarray, "W Q K c"],
    first_pixel: int,
    start: int,
    stop: int,
    places_grad: Float32[np.ndarray, "P K G 3"],
) -> None:
    """Gradient with respect to y, x and modulation of the taps of the rows `start:stop`.

    At a whole number the derivative is that from the right.

    Args:
        columns_grad: gradient of `columns_forward`'s columns.
        places_grad: written at the rows' output pixels.

    The others are those of `columns_forward`.
    """
    height, width, channels = image.shape
    taps, offset_groups = places.shape[1:3]
    per_weight, per_offset = columns_grad.shape[3], channels // offset_groups
    zeros = np.zeros(channels, np.float32)
    one = np.float32(1)
    for row in range(start, stop):
        for k in range(taps):
            for g in range(offset_groups):
                y, x, modulation = places[first_pixel + row, k, g]
                corners = _corners(y, x, height, width)
                fy, fx = corners[6], corners[7]
                d0 = d1 = d2 = d3 = np.float32(0)
                c = g * per_offset
                while c < (g + 1) * per_offset:
                    end = min((g + 1) * per_offset, (c // per_weight + 1) * per_weight)
                    f0, f1, f2, f3 = _lines(image, zeros, corners, c, end)
                    first = c % per_weight
                    grad = columns_grad[c // per_weight, row, k, first : first + end - c]
                    e0, e1, e2, e3 = _dots(grad, f0, f1, f2, f3)
                    d0, d1, d2, d3 = d0 + e0, d1 + e1, d2 + e2, d3 + e3
                    c = end
                target = places_grad[first_pixel + row, k, g]
                target[0] = modulation * ((one - fx) * (d2 - d0) + fx * (d3 - d1))
                target[1] = modulation * ((one - fy) * (d1 - d0) + fy * (d3 - d2))
                target[2] = (one - fy) * ((one - fx) * d0 + fx * d1) + fy * ((one - fx) * d2 + fx * d3)


@njit(cache=True, nogil=True, error_model="numpy")
def image_backward(
    places: Float32[np.ndarray, "P K G 3"],
    columns_grad: Float32[np.ndarray, "W Q K c"],
    first_pixel: int,
    begin: int,
    end: int,
    image_grad: Float32[np.ndarray, "H W C"],
) -> None:
    """Add to channels `begin:end` of the map what the columns' gradient says.

    Threads share channels, not pixels: each cell's sum runs in one order, whatever their number.
    """
    height, width, channels = image_grad.shape
    rows, taps, per_weight = columns_grad.shape[1:]
    per_offset = channels // places.shape[2]
    one = np.float32(1)
    c = begin
    while c < end:
        group, g = c // per_weight, c // per_offset
        stop = min(end, (group + 1) * per_weight, (g + 1) * per_offset)
        first = c % per_weight
        for row in range(rows):
            for k in range(taps):
                y, x, modulation = places[first_pixel + row, k, g]
                top, left, on_top, on_bottom, on_left, on_right, fy, fx = _corners(y, x, height, width)
                source = columns_grad[group, row, k, first : first + stop - c]
                upper, lower = modulation * (one - fy), modulation * fy
                if on_top and on_left:
                    _add(image_grad[top, left, c:stop], source, upper * (one - fx))
                if on_top and on_right:
                    _add(image_grad[top, left + 1, c:stop], source, upper * fx)
                if on_bottom and on_left:
                    _add(image_grad[top + 1, left, c:stop], source, lower * (one - fx))
                if on_bottom and on_right:
                    _add(image_grad[top + 1, left + 1, c:stop], source, lower * fx)
        c = stop
