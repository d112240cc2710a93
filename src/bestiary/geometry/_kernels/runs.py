"""Run lengths of masks: COCO's text form, areas, boxes and overlaps."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8
from numba import njit

from bestiary.geometry._kernels.bits import common_bits, set_runs, span

BAD_CHARACTER, BAD_END = -1, -2

_FIVE_BITS, _SIGN, _MORE, _FIRST = 31, 16, 32, 48
"""COCO's text: five bits a character above "0", lowest first; the sixth says that more follow, the last's fifth is the
sign."""


@njit(cache=True, nogil=True)
def to_text(counts: Int32[np.ndarray, " K"]) -> UInt8[np.ndarray, " L"]:
    """COCO's compressed text, as uint8; from the fourth number on, the difference from two before is written."""
    text = np.empty(counts.size * 7, np.uint8)
    used = 0
    for i in range(counts.size):
        value = np.int64(counts[i])
        if i > 2:
            value -= np.int64(counts[i - 2])
        while True:
            bits = value & _FIVE_BITS
            value >>= 5
            # What is left is all sign: the last five bits must already show it.
            done = value == -1 if bits & _SIGN else value == 0
            text[used] = _FIRST + (bits if done else bits | _MORE)
            used += 1
            if done:
                break
    return text[:used]


@njit(cache=True, nogil=True)
def from_text(text: UInt8[np.ndarray, " L"], counts: Int64[np.ndarray, " L"]) -> int:
    """Read COCO's text (uint8) into counts [len(text)] int64; the number of counts, BAD_CHARACTER or BAD_END."""
    used, position = 0, 0
    while position < text.size:
        value, shift = np.int64(0), 0
        while True:
            if position == text.size:
                return BAD_END
            bits = np.int64(text[position]) - _FIRST
            position += 1
            # Thirteen characters hold more than 64 bits: no picture is that large.
            if bits < 0 or bits > 63 or shift > 55:
                return BAD_CHARACTER
            value |= (bits & _FIVE_BITS) << shift
            shift += 5
            if not bits & _MORE:
                if bits & _SIGN:
                    value |= np.int64(-1) << shift
                break
        counts[used] = value + (counts[used - 2] if used > 2 else 0)
        used += 1
    return used


@njit(cache=True, nogil=True)
def measure(
    counts: Int32[np.ndarray, " K"],
    starts: Int64[np.ndarray, " N1"],
    height: int,
    areas: Int64[np.ndarray, " N"],
    boxes: Float32[np.ndarray, "N 4"],
) -> None:
    """Pixels of each mask, and the smallest xyxy box around them, zeros for an empty mask.

    Args:
        counts: of all masks, one after the other.
        starts: [N + 1] where each mask's begin.
        height: of the masks, which are all of one size.
        areas, boxes: written.
    """
    for n in range(starts.size - 1):
        area, left, top, right, bottom = np.int64(0), np.int64(-1), np.int64(height), np.int64(0), np.int64(0)
        x, y = np.int64(0), np.int64(0)
        for k in range(starts[n], starts[n + 1]):
            length = np.int64(counts[k])
            inside = (k - starts[n]) % 2 == 1 and length > 0
            while y >= height and length > 0:
                x, y = x + 1, y - height
            if inside:
                area += length
                left = x if left < 0 else left
                top = min(top, y)
            y += length
            if inside:
                if y > height:
                    # A run that goes on in the next column covers the bottom of one and the top of the other.
                    top, bottom = np.int64(0), np.int64(height)
                bottom = max(bottom, y if y <= height else np.int64(height))
                while y > height:
                    x, y = x + 1, y - height
                right = x + 1
        areas[n] = area
        boxes[n] = 0
        if area:
            boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = left, top, right, bottom


@njit(cache=True, nogil=True)
def _shared(first: Int32[np.ndarray, " K"], second: Int32[np.ndarray, " M"]) -> np.int64:
    i, j, area = 0, 0, np.int64(0)
    end_i, end_j, at = np.int64(first[0]), np.int64(second[0]), np.int64(0)
    while True:
        end = min(end_i, end_j)
        if i % 2 == 1 and j % 2 == 1:
            area += end - at
        at = end
        if end_i == end:
            i += 1
            if i == first.size:
                return area
            end_i += first[i]
        if end_j == end:
            j += 1
            if j == second.size:
                return area
            end_j += second[j]


@njit(cache=True, nogil=True)
def run_areas(counts: Int32[np.ndarray, " K"], starts: Int64[np.ndarray, " N1"]) -> Int64[np.ndarray, " N"]:
    """Pixels of each mask; see `measure`."""
    areas = np.zeros(starts.size - 1, np.int64)
    for n in range(areas.size):
        for k in range(starts[n] + 1, starts[n + 1], 2):
            areas[n] += counts[k]
    return areas


_WORDS_A_RUN = 16
"""A mask is turned into bits if they are at most so many words for each of its runs; else the walk is quicker."""

_WORDS_AT_ONCE = 1 << 21
"""Words (16 MB) of bits held at a time."""


@njit(cache=True, nogil=True)
def _bit_layout(
    counts: Int32[np.ndarray, " K"], starts: Int64[np.ndarray, " N1"]
) -> tuple[Int64[np.ndarray, "N 2"], Int64[np.ndarray, " N"]]:
    """Each mask's span of positions, and the words its bits take; 0 words where runs serve better."""
    spans, words = np.empty((starts.size - 1, 2), np.int64), np.empty(starts.size - 1, np.int64)
    for n in range(starts.size - 1):
        low, high = span(counts[starts[n] : starts[n + 1]])
        spans[n, 0], spans[n, 1] = low, high
        words[n] = (high + 63) // 64 - low // 64
        if words[n] > _WORDS_A_RUN * (starts[n + 1] - starts[n]) + 64:
            words[n] = 0
    return spans, words


@njit(cache=True, nogil=True)
def shared_areas(
    first: Int32[np.ndarray, " K"],
    first_starts: Int64[np.ndarray, " N1"],
    first_boxes: Float32[np.ndarray, "N 4"],
    second: Int32[np.ndarray, " J"],
    second_starts: Int64[np.ndarray, " M1"],
    second_boxes: Float32[np.ndarray, "M 4"],
    areas: Float64[np.ndarray, "N M"],
) -> None:
    """Pixels that each mask of one list shares with each of another.

    A mask that meets several others is turned into bits first, of which 64 are compared at a time.

    Args:
        first: counts of all masks, one after the other.
        first_starts: [N + 1] where each mask's counts begin.
        first_boxes: [N, 4] xyxy around each; boxes apart spare the comparison.
        second, second_starts, second_boxes: the other list, M masks.
        areas: [N, M] float64, written.
    """
    rows, columns = first_starts.size - 1, second_starts.size - 1
    if rows == 0 or columns == 0:
        return
    spans, sizes = _bit_layout(first, first_starts)
    other_spans, other_sizes = _bit_layout(second, second_starts)
    if rows == 1 or columns == 1:
        sizes[:] = 0
        other_sizes[:] = 0
    bits = np.empty(sizes.max(), np.uint64)
    places = np.zeros(columns + 1, np.int64)
    start = 0
    while start < columns:
        stop = start
        while stop < columns and (stop == start or places[stop] + other_sizes[stop] <= _WORDS_AT_ONCE):
            places[stop + 1] = places[stop] + other_sizes[stop]
            stop += 1
        others = np.zeros(places[stop], np.uint64)
        for m in range(start, stop):
            if other_sizes[m]:
                runs = second[second_starts[m] : second_starts[m + 1]]
                set_runs(runs, 1, other_spans[m, 0], other_spans[m, 1], others[places[m] : places[m + 1]])
        for n in range(rows):
            a, packed = first_boxes[n], sizes[n] == 0
            runs = first[first_starts[n] : first_starts[n + 1]]
            for m in range(start, stop):
                b = second_boxes[m]
                areas[n, m] = 0
                if not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]):
                    continue
                if not packed:
                    bits[: sizes[n]] = 0
                    set_runs(runs, 1, spans[n, 0], spans[n, 1], bits)
                    packed = True
                if sizes[n] == 0 or other_sizes[m] == 0:
                    areas[n, m] = _shared(runs, second[second_starts[m] : second_starts[m + 1]])
                    continue
                word, other_word = spans[n, 0] // 64, other_spans[m, 0] // 64
                low = max(word, other_word)
                count = min(word + sizes[n], other_word + other_sizes[m]) - low
                if count > 0:
                    areas[n, m] = common_bits(bits, others, low - word, places[m] + low - other_word, count)
        places[stop] = 0
        start = stop


@njit(cache=True, nogil=True)
def overlaps(
    first: Int32[np.ndarray, " K"],
    first_starts: Int64[np.ndarray, " N1"],
    second: Int32[np.ndarray, " J"],
    second_starts: Int64[np.ndarray, " M1"],
    height: int,
    crowd: Bool[np.ndarray, " M"],
) -> Float64[np.ndarray, "N M"]:
    """Shared area over the area of the union, or, with a crowd in the second list, of the first list's mask."""
    rows, columns = first_starts.size - 1, second_starts.size - 1
    areas, other_areas = np.empty(rows, np.int64), np.empty(columns, np.int64)
    boxes, other_boxes = np.empty((rows, 4), np.float32), np.empty((columns, 4), np.float32)
    measure(first, first_starts, height, areas, boxes)
    measure(second, second_starts, height, other_areas, other_boxes)
    shared = np.zeros((rows, columns), np.float64)
    shared_areas(first, first_starts, boxes, second, second_starts, other_boxes, shared)
    for n in range(rows):
        for m in range(columns):
            if shared[n, m] > 0:
                below = areas[n] if crowd[m] else areas[n] + other_areas[m] - shared[n, m]
                shared[n, m] /= below
    return shared


@njit(cache=True, nogil=True)
def overlap_of_two(
    first: Int32[np.ndarray, " K"], second: Int32[np.ndarray, " J"], crowd: bool
) -> Float64[np.ndarray, "1 1"]:
    """`overlaps` of a single mask with a single one, without what only many need."""
    area, other_area = np.int64(0), np.int64(0)
    for k in range(1, first.size, 2):
        area += first[k]
    for k in range(1, second.size, 2):
        other_area += second[k]
    found = np.zeros((1, 1), np.float64)
    shared = _shared(first, second)
    if shared > 0:
        found[0, 0] = shared / (area if crowd else area + other_area - shared)
    return found
