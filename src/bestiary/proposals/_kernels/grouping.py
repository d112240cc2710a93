"""What regions look like, which of them touch, and their greedy grouping (Selective Search, section 3)."""

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8
from numba import njit

COLOURS = 25
AXES = 4
STEPS = 10
"""Cells of a direction's histogram."""
SIGNED = 2 * STEPS - 1
"""Cells of an axis: its two directions, the cell of no slope in common."""

_FINE = np.float32(1 << 28)
"""Steps of a likeness of 1: whatever float32 tells apart above 1/16."""
_SERIAL = (1 << 32) - 1
_HALF_ROOT = np.float32(np.sqrt(0.5))


@njit(cache=True, nogil=True)
def texture_cells(
    across: Float32[np.ndarray, "H W C"], down: Float32[np.ndarray, "H W C"], cells: UInt8[np.ndarray, "H W C 4"]
) -> None:
    """Cell of each slope along four axes, in tenths of the channel's steepest."""
    height, width, channels = across.shape
    for c in range(channels):
        steepest = np.float32(1e-6)
        for y in range(height):
            for x in range(width):
                u, v = abs(across[y, x, c]), abs(down[y, x, c])
                steepest = max(steepest, u, v, (u + v) * _HALF_ROOT)
        scale = np.float32(STEPS - 0.001) / steepest
        for y in range(height):
            for x in range(width):
                u, v = across[y, x, c] * scale, down[y, x, c] * scale
                cells[y, x, c, 0] = np.uint8(np.int32(u) + STEPS - 1)
                cells[y, x, c, 1] = np.uint8(np.int32((u + v) * _HALF_ROOT) + STEPS - 1)
                cells[y, x, c, 2] = np.uint8(np.int32(v) + STEPS - 1)
                cells[y, x, c, 3] = np.uint8(np.int32((v - u) * _HALF_ROOT) + STEPS - 1)


@njit(cache=True, nogil=True)
def describe(
    labels: Int32[np.ndarray, "H W"],
    colours: UInt8[np.ndarray, "H W C"],
    cells: UInt8[np.ndarray, "H W C 4"],
    sizes: Int64[np.ndarray, " R"],
    boxes_xyxy: Int32[np.ndarray, "R 4"],
    colour: Float32[np.ndarray, "R _c"],
    texture: Float32[np.ndarray, "R _t"],
) -> None:
    """Pixels, box and histograms (each of sum 1) of every region."""
    height, width, channels = colours.shape
    regions = len(sizes)
    hues = np.zeros((regions, channels, COLOURS), np.int32)
    slopes = np.zeros((regions, channels, AXES, SIGNED), np.int32)
    for r in range(regions):
        sizes[r] = 0
        boxes_xyxy[r, 0], boxes_xyxy[r, 1], boxes_xyxy[r, 2], boxes_xyxy[r, 3] = width, height, 0, 0
    for y in range(height):
        for x in range(width):
            r = labels[y, x]
            sizes[r] += 1
            boxes_xyxy[r, 0] = min(boxes_xyxy[r, 0], x)
            boxes_xyxy[r, 1] = min(boxes_xyxy[r, 1], y)
            boxes_xyxy[r, 2] = max(boxes_xyxy[r, 2], x + 1)
            boxes_xyxy[r, 3] = max(boxes_xyxy[r, 3], y + 1)
            for c in range(channels):
                hues[r, c, colours[y, x, c]] += 1
                for axis in range(AXES):
                    slopes[r, c, axis, cells[y, x, c, axis]] += 1
    for r in range(regions):
        part = np.float32(1.0) / np.float32(sizes[r] * channels)
        for c in range(channels):
            for cell in range(COLOURS):
                colour[r, c * COLOURS + cell] = hues[r, c, cell] * part
            for direction in range(2 * AXES):
                axis, sign = direction % AXES, 1 if direction < AXES else -1
                start, rest = (c * 2 * AXES + direction) * STEPS, sizes[r]
                for cell in range(1, STEPS):
                    count = slopes[r, c, axis, STEPS - 1 + sign * cell]
                    rest -= count
                    texture[r, start + cell] = count * (part / (2 * AXES))
                texture[r, start] = rest * (part / (2 * AXES))


@njit(cache=True, nogil=True)
def touching(
    labels: Int32[np.ndarray, "H W"], regions: int, table: Int64[np.ndarray, " T"], found: Int64[np.ndarray, " F"]
) -> int:
    """Each pair of regions (a < b) with pixels that touch, corners included, as a R + b; returns how many there are.

    There are fewer than four a region: where four meet in a corner, two pairs cross; otherwise the graph is planar.

    Args:
        labels: region of each pixel.
        regions: R.
        table: -1 everywhere; a power of two, above 4 R.
        found: gets the pairs; at least 4 R long.
    """
    height, width = labels.shape
    count, mask = 0, len(table) - 1
    for direction in range(4):
        right = 0 if direction == 1 else 1
        down = 0 if direction == 0 else (-1 if direction == 3 else 1)
        for y in range(1 if down < 0 else 0, height - (1 if down > 0 else 0)):
            last = np.int64(-1)
            for x in range(width - right):
                a, b = np.int64(labels[y, x]), np.int64(labels[y + down, x + right])
                if a == b:
                    continue
                code = a * regions + b if a < b else b * regions + a
                if code == last:
                    continue
                last = code
                place = (code * 11400714819323199) & mask
                while table[place] >= 0 and table[place] != code:
                    place = (place + 1) & mask
                if table[place] < 0:
                    table[place] = code
                    found[count] = code
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _common(one: Float32[np.ndarray, " D"], two: Float32[np.ndarray, " D"]) -> np.floating:
    """Sum of the smaller of each pair of cells, in five sums side by side: the length is a multiple of five."""
    a = b = c = d = e = np.float32(0.0)
    for i in range(0, len(one), 5):
        a += min(one[i], two[i])
        b += min(one[i + 1], two[i + 1])
        c += min(one[i + 2], two[i + 2])
        d += min(one[i + 3], two[i + 3])
        e += min(one[i + 4], two[i + 4])
    return a + b + c + d + e


@njit(cache=True, nogil=True)
def _mix(one: Float32[np.ndarray, " D"], two: Float32[np.ndarray, " D"], share: np.floating) -> None:
    """`one` becomes `share` of itself and the rest of `two`."""
    for i in range(len(one)):
        one[i] = one[i] * share + two[i] * (np.float32(1.0) - share)


@njit(cache=True, nogil=True)
def _rise(heap: Int64[np.ndarray, " Q"], place: int) -> None:
    """Put the entry at `place` of a heap, whose largest is the first, where it belongs, between there and the first."""
    value = heap[place]
    while place > 0 and heap[(place - 1) // 2] < value:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = value


@njit(cache=True, nogil=True)
def _sink(heap: Int64[np.ndarray, " Q"], count: int) -> None:
    """Take the first entry of a heap of `count` + 1 away."""
    value, place, child = heap[count], 0, 1
    while child < count:
        if child + 1 < count and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = value


@njit(cache=True, nogil=True)
def _alive(became: Int32[np.ndarray, " M"], region: int) -> int:
    while became[region] != region:
        became[region] = became[became[region]]
        region = int(became[region])
    return region


@njit(cache=True, nogil=True)
def _similarity(
    a: int,
    b: int,
    slots: Int32[np.ndarray, " M"],
    sizes: Int64[np.ndarray, " M"],
    boxes: Int32[np.ndarray, "M 4"],
    colour: Float32[np.ndarray, "R _c"],
    texture: Float32[np.ndarray, "R _t"],
    weights: Float32[np.ndarray, "4"],
    area: np.floating,
) -> np.floating:
    """Weighted sum of likeness in colour, texture, size and fill (equations 2 to 6)."""
    total = np.float32(0.0)
    if weights[0] > 0:
        total += weights[0] * _common(colour[slots[a]], colour[slots[b]])
    if weights[1] > 0:
        total += weights[1] * _common(texture[slots[a]], texture[slots[b]])
    pixels = np.float32(sizes[a] + sizes[b])
    if weights[2] > 0:
        total += weights[2] * (np.float32(1.0) - pixels / area)
    if weights[3] > 0:
        across = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
        down = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
        total += weights[3] * (np.float32(1.0) - (np.float32(across) * np.float32(down) - pixels) / area)
    return total


@njit(cache=True, nogil=True)
def _with_room(pairs: Int32[np.ndarray, "P 2"], heap: Int64[np.ndarray, " P"]) -> tuple[np.ndarray, np.ndarray]:
    """Copies twice as long."""
    more_pairs, more = np.empty((2 * len(pairs), 2), np.int32), np.empty(2 * len(pairs), np.int64)
    for i in range(len(pairs)):
        more_pairs[i, 0], more_pairs[i, 1], more[i] = pairs[i, 0], pairs[i, 1], heap[i]
    return more_pairs, more


@njit(cache=True, nogil=True)
def _link(
    touches: Int64[np.ndarray, " E"],
    regions: int,
    ends: Int32[np.ndarray, "_half"],
    after: Int32[np.ndarray, "_half"],
    first: Int32[np.ndarray, " M"],
    last: Int32[np.ndarray, " M"],
) -> None:
    """Each region's neighbours as a linked list of half edges."""
    for e in range(len(touches)):
        a, b = touches[e] // regions, touches[e] % regions
        for side in range(2):
            here, half = (a, 2 * e) if side == 0 else (b, 2 * e + 1)
            ends[half] = b if side == 0 else a
            if first[here] < 0:
                first[here] = half
            else:
                after[last[here]] = half
            last[here], after[half] = half, -1


@njit(cache=True, nogil=True)
def group(
    touches: Int64[np.ndarray, " E"],
    sizes: Int64[np.ndarray, " M"],
    boxes_xyxy: Int32[np.ndarray, "M 4"],
    colour: Float32[np.ndarray, "R _c"],
    texture: Float32[np.ndarray, "R _t"],
    weights: Float32[np.ndarray, "4"],
    area: np.floating,
    children: Int32[np.ndarray, "M 2"],
) -> None:
    """Algorithm 1 of the paper: the two most alike neighbours become one, until one region is left.

    The first R of M = 2 R - 1 sizes and boxes are given; the others are filled, and `children` says of which two each
    was made. Histograms are overwritten: a merged region takes the row of one of its two.
    """
    count, regions = len(sizes), len(colour)
    slots, became, seen = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int32)
    ends, after = np.empty(2 * len(touches), np.int32), np.empty(2 * len(touches), np.int32)
    first, last = np.empty(count, np.int32), np.empty(count, np.int32)
    for region in range(count):
        slots[region], became[region] = region, region
        seen[region] = first[region] = -1
    _link(touches, regions, ends, after, first, last)
    # A pair's place in the heap: its likeness, and of equal ones the older first.
    pairs, heap = np.empty((4 * len(touches) + 16, 2), np.int32), np.empty(4 * len(touches) + 16, np.int64)
    known, queued, new = 0, 0, regions
    for e in range(len(touches)):
        a, b = touches[e] // regions, touches[e] % regions
        value = _similarity(a, b, slots, sizes, boxes_xyxy, colour, texture, weights, area)
        pairs[known, 0], pairs[known, 1] = a, b
        heap[queued] = (np.int64(value * _FINE) << 32) - known
        _rise(heap, queued)
        known += 1
        queued += 1
    while queued > 0:
        pair = -heap[0] & _SERIAL
        a, b = np.int64(pairs[pair, 0]), np.int64(pairs[pair, 1])
        queued -= 1
        _sink(heap, queued)
        if became[a] != a or became[b] != b:
            continue
        sizes[new] = sizes[a] + sizes[b]
        for side in range(2):
            boxes_xyxy[new, side] = min(boxes_xyxy[a, side], boxes_xyxy[b, side])
            boxes_xyxy[new, 2 + side] = max(boxes_xyxy[a, 2 + side], boxes_xyxy[b, 2 + side])
        children[new, 0], children[new, 1] = a, b
        share = np.float32(sizes[a]) / np.float32(sizes[new])
        slots[new] = slots[a]
        _mix(colour[slots[a]], colour[slots[b]], share)
        _mix(texture[slots[a]], texture[slots[b]], share)
        became[a], became[b] = new, new
        # The two lists end to end: what they name twice, or by the name of a region that has since merged, is put right
        # now that they are walked.
        first[new], last[new], seen[new] = first[a], last[b], new
        after[last[a]] = first[b]
        half, previous = np.int64(first[new]), np.int64(-1)
        while half >= 0:
            other, following = _alive(became, np.int64(ends[half])), np.int64(after[half])
            if seen[other] != new:
                seen[other], ends[half], previous = new, other, half
                value = _similarity(other, new, slots, sizes, boxes_xyxy, colour, texture, weights, area)
                if known == len(pairs):
                    pairs, heap = _with_room(pairs, heap)
                pairs[known, 0], pairs[known, 1] = other, new
                heap[queued] = (np.int64(value * _FINE) << 32) - known
                _rise(heap, queued)
                known += 1
                queued += 1
            elif previous < 0:
                first[new] = following
            else:
                after[previous] = following
            half = following
        last[new] = previous
        new += 1
