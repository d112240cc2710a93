"""The graph of neighbouring pixels, its edges by weight, and what grows from it (Felzenszwalb and Huttenlocher)."""

import numpy as np
from jaxtyping import Float32, Int32, UInt32
from numba import njit

DIGIT = 11
"""Bits that one pass of the sort looks at: three passes for the 32 of a key."""


@njit(cache=True, nogil=True)
def grid_edges(
    pixels: Float32[np.ndarray, "H W C"], weights: Float32[np.ndarray, " E"], codes: Int32[np.ndarray, " E"]
) -> None:
    """Euclidean distance in value of each pair of pixels that touch, corners included.

    Edges stand by direction (right, down, down right, up right), then in reading order; an edge's code is four times
    its first pixel, plus the direction.
    """
    height, width, channels = pixels.shape
    place = 0
    for direction in range(4):
        right = 0 if direction == 1 else 1
        down = 0 if direction == 0 else (-1 if direction == 3 else 1)
        for y in range(1 if down < 0 else 0, height - (1 if down > 0 else 0)):
            for x in range(width - right):
                total = np.float32(0.0)
                for c in range(channels):
                    step = pixels[y, x, c] - pixels[y + down, x + right, c]
                    total += step * step
                weights[place] = np.sqrt(total)
                codes[place] = 4 * (y * width + x) + direction
                place += 1


@njit(cache=True, nogil=True)
def sort_by_key(
    keys: UInt32[np.ndarray, " E"],
    values: Int32[np.ndarray, " E"],
    spare_keys: UInt32[np.ndarray, " E"],
    spare_values: Int32[np.ndarray, " E"],
) -> None:
    """Stable, by rising key; the result stands in the spare arrays, since the number of passes is odd."""
    buckets, mask = 1 << DIGIT, np.uint32((1 << DIGIT) - 1)
    counts = np.zeros((3, buckets), np.int64)
    for i in range(len(keys)):
        key = keys[i]
        counts[0, key & mask] += 1
        counts[1, (key >> np.uint32(DIGIT)) & mask] += 1
        counts[2, key >> np.uint32(2 * DIGIT)] += 1
    for step in range(3):
        total = 0
        for bucket in range(buckets):
            here = counts[step, bucket]
            counts[step, bucket] = total
            total += here
        shift = np.uint32(step * DIGIT)
        places = counts[step]
        for i in range(len(keys)):
            key = keys[i]
            bucket = (key >> shift) & mask
            place = places[bucket]
            places[bucket] = place + 1
            spare_keys[place] = key
            spare_values[place] = values[i]
        keys, spare_keys = spare_keys, keys
        values, spare_values = spare_values, values


@njit(cache=True, nogil=True, inline="always")
def _root(parents: Int32[np.ndarray, " P"], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True, nogil=True, inline="always")
def _join(parents: Int32[np.ndarray, " P"], sizes: Int32[np.ndarray, " P"], one: int, two: int) -> int:
    if sizes[one] < sizes[two]:
        one, two = two, one
    parents[two] = one
    sizes[one] += sizes[two]
    return one


@njit(cache=True, nogil=True)
def grow_segments(
    weights: Float32[np.ndarray, " E"],
    codes: Int32[np.ndarray, " E"],
    k: float,
    min_size: int,
    labels: Int32[np.ndarray, "H W"],
) -> int:
    """Algorithm 1 of the paper over sorted edges, then small segments joined along the cheapest edge.

    Labels number the segments in reading order; returns how many there are.
    """
    height, width = labels.shape
    pixels = height * width
    parents, sizes, numbers = np.empty(pixels, np.int32), np.empty(pixels, np.int32), np.empty(pixels, np.int32)
    # The largest edge within a segment, plus k / its size: what an edge to another may weigh.
    allowed = np.empty(pixels, np.float32)
    factor = np.float32(k)
    for pixel in range(pixels):
        parents[pixel], sizes[pixel], numbers[pixel], allowed[pixel] = pixel, 1, -1, factor
    steps = (1, width, width + 1, 1 - width)
    between = np.empty(len(codes), np.int32)
    left = 0
    for i in range(len(codes)):
        code = codes[i]
        pixel = int(code >> 2)
        one = _root(parents, pixel)
        two = _root(parents, pixel + steps[code & 3])
        if one == two:
            continue
        weight = weights[i]
        if weight <= allowed[one] and weight <= allowed[two]:
            joined = _join(parents, sizes, one, two)
            allowed[joined] = weight + factor / np.float32(sizes[joined])
        else:
            between[left] = code
            left += 1
    for i in range(left):
        code = between[i]
        pixel = int(code >> 2)
        one = _root(parents, pixel)
        two = _root(parents, pixel + steps[code & 3])
        if one != two and (sizes[one] < min_size or sizes[two] < min_size):
            _join(parents, sizes, one, two)
    found = 0
    for y in range(height):
        for x in range(width):
            root = _root(parents, y * width + x)
            if numbers[root] < 0:
                numbers[root] = found
                found += 1
            labels[y, x] = numbers[root]
    return found
