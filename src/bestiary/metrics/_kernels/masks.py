"""Masks as COCO's compressed run lengths, many in one array of characters: measures, overlaps, and how to get there."""

import numpy as np
from numba import njit

from bestiary.geometry._kernels.bits import merge
from bestiary.geometry._kernels.polygons import polygon_toggles, toggles_to_counts
from bestiary.geometry._kernels.runs import from_text, to_text

OTHER_TOTAL, _LONGEST = -3, 2**40
"""A run is negative, or longer than any picture."""


@njit(cache=True, nogil=True)
def _decode(text: np.ndarray, ends: np.ndarray) -> int:
    """Where each run ends, column-major, into `ends`; how many runs, or below 0 if the text is none or one is."""
    count, at = from_text(text, ends), np.int64(0)
    for i in range(count):
        if ends[i] < 0 or ends[i] > _LONGEST:
            return OTHER_TOTAL
        at += ends[i]
        ends[i] = at
    return count


@njit(cache=True, nogil=True)
def measure(
    text: np.ndarray,
    starts: np.ndarray,
    sizes_hw: np.ndarray,
    first: int,
    last: int,
    areas: np.ndarray,
    boxes: np.ndarray,
) -> int:
    """Area and box (x, y, width, height) of the masks from `first` on; the first that is none, or -1."""
    for i in range(first, last):
        height, pixels = np.int64(sizes_hw[i, 0]), np.int64(sizes_hw[i, 0]) * np.int64(sizes_hw[i, 1])
        mine = text[starts[i] : starts[i + 1]]
        ends = np.empty(mine.size + 1, np.int64)
        count = _decode(mine, ends)
        if count <= 0 or ends[count - 1] != pixels:
            return i
        area, top, bottom, left, right = np.int64(0), height, np.int64(-1), np.int64(-1), np.int64(-1)
        for k in range(1, count, 2):
            begin, behind = ends[k - 1], ends[k]
            if behind == begin:
                continue
            area += behind - begin
            column, last_column = begin // height, (behind - 1) // height
            left = column if left < 0 else left
            right = last_column
            # A run that goes on in the next column covers the bottom of the one and the top of the other.
            top = min(top, 0 if last_column > column else begin - column * height)
            bottom = max(bottom, height - 1 if last_column > column else behind - 1 - column * height)
        areas[i] = area
        if area:
            boxes[i] = (left, top, right + 1 - left, bottom + 1 - top)
        else:
            boxes[i] = 0
    return -1


@njit(cache=True, nogil=True)
def _shared(first: np.ndarray, n_first: int, second: np.ndarray, n_second: int) -> np.int64:
    """Pixels in both of two lists of run ends."""
    i, j, area = 1, 1, np.int64(0)
    while i < n_first and j < n_second:
        begin, behind = max(first[i - 1], second[j - 1]), min(first[i], second[j])
        if behind > begin:
            area += behind - begin
        if first[i] < second[j]:
            i += 2
        else:
            j += 2
    return area


@njit(cache=True, nogil=True)
def mask_overlaps(
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    truths: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    crowd: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
) -> np.ndarray:
    """IoU of the pairs of every cell, flat; over the detection's own area where the truth is a crowd.

    Args:
        found, truths: text, starts, areas and boxes of all masks of a table.
        dets, gts: rows in them, grouped by cell.
    """
    text, starts, areas, boxes = found
    gt_text, gt_starts, gt_areas, gt_boxes = truths
    overlaps = np.zeros(cells[2, -1])
    runs, gt_runs = np.empty(1024, np.int64), np.empty(4096, np.int64)
    bounds, counts = np.empty(64, np.int64), np.empty(64, np.int64)
    for c in range(cells.shape[1] - 1):
        begin, n_gts = cells[1, c], cells[1, c + 1] - cells[1, c]
        if not n_gts or cells[0, c] == cells[0, c + 1]:
            continue
        room = 0
        for j in range(n_gts):
            room += gt_starts[gts[begin + j] + 1] - gt_starts[gts[begin + j]] + 1
        if room > gt_runs.size:
            gt_runs = np.empty(2 * room, np.int64)
        if n_gts > counts.size:
            bounds, counts = np.empty(2 * n_gts, np.int64), np.empty(2 * n_gts, np.int64)
        room = 0
        for j in range(n_gts):
            g = gts[begin + j]
            bounds[j] = room
            counts[j] = _decode(gt_text[gt_starts[g] : gt_starts[g + 1]], gt_runs[room:])
            room += gt_starts[g + 1] - gt_starts[g] + 1
        at = cells[2, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            d, count = dets[i], -1
            x, y, w, h = boxes[d]
            for j in range(n_gts):
                g = gts[begin + j]
                gx, gy, gw, gh = gt_boxes[g]
                if x < gx + gw and gx < x + w and y < gy + gh and gy < y + h:
                    if count < 0:
                        if starts[d + 1] - starts[d] >= runs.size:
                            runs = np.empty(2 * (starts[d + 1] - starts[d]), np.int64)
                        count = _decode(text[starts[d] : starts[d + 1]], runs)
                    both = _shared(runs, count, gt_runs[bounds[j] :], counts[j])
                    if both:
                        overlaps[at] = both / (areas[d] if crowd[g] else areas[d] + gt_areas[g] - both)
                at += 1
    return overlaps


@njit(cache=True, nogil=True)
def _sort(values: np.ndarray) -> None:
    """Shell sort, in place: outlines are a few rising and falling runs."""
    gap = 1
    while gap < values.size // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, values.size):
            value, j = values[i], i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


@njit(cache=True, nogil=True)
def polygons_to_text(
    numbers: np.ndarray, part_ends: np.ndarray, first: int, last: int, height: int, width: int
) -> np.ndarray:
    """The union of the polygons `first` to `last` (flat x, y) as COCO's text; nothing if one has under three points, an
    odd number of coordinates or one beyond 10^8.
    """
    nothing = np.empty(0, np.uint8)
    counts, bounds = np.empty(0, np.int32), np.zeros(last - first + 1, np.int64)
    toggles = np.empty(1024, np.int64)
    for part in range(first, last):
        points = numbers[(part_ends[part - 1] if part else 0) : part_ends[part]]
        if points.size < 6 or points.size % 2 or not np.abs(points).max() <= 1e8:
            return nothing
        pairs = np.ascontiguousarray(points).reshape(points.size // 2, 2)
        used = polygon_toggles(pairs, height, width, toggles)
        if used > toggles.size:
            toggles = np.empty(used, np.int64)
            polygon_toggles(pairs, height, width, toggles)
        _sort(toggles[:used])
        mine = toggles_to_counts(toggles[:used], height * width)
        counts = mine if part == first else np.concatenate((counts, mine))
        bounds[part + 1 - first] = counts.size
    return to_text(counts if last == first + 1 else merge(counts, bounds, False))


@njit(cache=True, nogil=True)
def polygons_to_texts(
    numbers: np.ndarray,
    part_ends: np.ndarray,
    entry_parts: np.ndarray,
    drawn: np.ndarray,
    sizes_hw: np.ndarray,
    first: int,
    last: int,
    lengths: np.ndarray,
) -> np.ndarray:
    """`polygons_to_text` of the entries `first` to `last` that are `drawn`, one after the other.

    Args:
        lengths: [N] written: characters of each entry's text, 0 for one that is not drawn or cannot be.
    """
    texts, used = np.empty(64 * (last - first) + 1024, np.uint8), 0
    for i in range(first, last):
        lengths[i] = 0
        if not drawn[i]:
            continue
        height, width = sizes_hw[i]
        text = polygons_to_text(numbers, part_ends, entry_parts[i], entry_parts[i + 1], height, width)
        if used + text.size > texts.size:
            longer = np.empty(2 * (used + text.size), np.uint8)
            longer[:used] = texts[:used]
            texts = longer
        texts[used : used + text.size] = text
        used, lengths[i] = used + text.size, text.size
    return texts[:used]


@njit(cache=True, nogil=True)
def gather(text: np.ndarray, starts: np.ndarray, rows: np.ndarray, out: np.ndarray, out_starts: np.ndarray) -> None:
    """The texts of `rows`, one after the other."""
    for i in range(rows.size):
        out[out_starts[i] : out_starts[i + 1]] = text[starts[rows[i]] : starts[rows[i] + 1]]
