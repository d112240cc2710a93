"""Greedy non-maximum suppression: sorting by score, filing kept boxes in a grid, comparing in blocks."""

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, UInt64
from numba import njit

_BLOCK = 32
"""Kept boxes compared at once: a loop of constant length without a branch, which fills vector registers."""

_PER_CELL, _MOST_CELLS = 96, 1024
"""Boxes a cell should hold before any is dropped; beyond so many cells, visiting them costs more than it spares."""

_LEAST_THRESHOLD = 0.05
"""With hardly any threshold a box reaches nearly all others, and a grid spares nothing."""


@njit(cache=True, nogil=True)
def descending_order(bits: Int32[np.ndarray, " N"], order: Int64[np.ndarray, " N"]) -> None:
    """Stable order of float32 numbers, greatest first, NaN before all, -0 equal to 0: torch.sort's, by radix.

    Args:
        bits: [N] the numbers' bits.
        order: [N] written.
    """
    count = bits.size
    # The word holds the key, ascending, above the index; four passes over the key's bytes, lowest first.
    words, others = np.empty(count, np.uint64), np.empty(count, np.uint64)
    tallies = np.zeros((4, 256), np.int64)
    for i in range(count):
        b = np.int64(bits[i]) & 0xFFFFFFFF
        magnitude = b & 0x7FFFFFFF
        if magnitude > 0x7F800000:
            key = np.int64(0)
        elif b >= 0x80000000 and magnitude > 0:
            key = b
        else:
            key = 0x7FFFFFFF - magnitude
        words[i] = np.uint64((key << 32) | i)
        for p in range(4):
            tallies[p, (key >> (8 * p)) & 255] += 1
    for p in range(4):
        shift = np.uint64(32 + 8 * p)
        tally = tallies[p]
        place = 0
        for v in range(256):
            place, tally[v] = place + tally[v], place
        for i in range(count):
            word = words[i]
            byte = np.int64((word >> shift) & np.uint64(255))
            others[tally[byte]] = word
            tally[byte] += 1
        words, others = others, words
    _low_halves(words, order)


@njit(cache=True, nogil=True)
def _low_halves(words: UInt64[np.ndarray, " N"], out: Int64[np.ndarray, " N"]) -> None:
    for i in range(out.size):
        out[i] = np.int64(words[i] & np.uint64(0xFFFFFFFF))


@njit(cache=True, nogil=True)
def group_bounds(groups: Int64[np.ndarray, " N"]) -> tuple[int, int]:
    """Least and greatest group; (0, -1) for none."""
    if groups.size == 0:
        return 0, -1
    low = high = groups[0]
    for i in range(groups.size):
        low, high = min(low, groups[i]), max(high, groups[i])
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def suppress(
    boxes: Float[np.ndarray, "N 4"], order: Int64[np.ndarray, " N"], threshold: np.floating
) -> Int64[np.ndarray, " K"]:
    """The survivors among `order`, in that order.

    Args:
        boxes: [N, 4] xyxy, contiguous.
        order: [N] from the best box down.
        threshold: of the boxes' type, 0 or more; IoU above it suppresses.
    """
    count = order.size
    keep = np.empty(count, np.bool_)
    places = np.arange(count)
    _suppress_group(boxes, order, places, threshold, keep, *_room(boxes, count))
    return _kept(order, keep)


@njit(cache=True, nogil=True, error_model="numpy")
def suppress_groups(
    boxes: Float[np.ndarray, "N 4"],
    order: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    low: int,
    num_groups: int,
    threshold: np.floating,
) -> Int64[np.ndarray, " K"]:
    """`suppress`, within each group: `groups` [N] of each box, from `low` to `low + num_groups - 1`."""
    count = order.size
    starts = np.zeros(num_groups + 1, np.int64)
    for i in range(count):
        starts[groups[i] - low + 1] += 1
    most = 0
    for g in range(num_groups):
        most = max(most, starts[g + 1])
        starts[g + 1] += starts[g]
    ends = starts[:-1].copy()
    places = np.empty(count, np.int64)
    for i in range(count):
        g = groups[order[i]] - low
        places[ends[g]] = i
        ends[g] += 1
    keep = np.empty(count, np.bool_)
    columns, store, following, firsts, lasts = _room(boxes, most)
    for g in range(num_groups):
        members = places[starts[g] : starts[g + 1]]
        if members.size:
            _suppress_group(boxes, order, members, threshold, keep, columns, store, following, firsts, lasts)
    return _kept(order, keep)


@njit(cache=True, nogil=True)
def _room(boxes: Float[np.ndarray, "N 4"], most: int) -> tuple[np.ndarray, ...]:
    """Working memory for groups of at most so many boxes: columns, blocks, their chains."""
    blocks = most // _BLOCK + 1 + _cells_for(most)
    chains = np.empty(blocks, np.int64), np.empty(_MOST_CELLS, np.int64), np.empty(_MOST_CELLS, np.int64)
    return (np.empty((5, most), boxes.dtype), np.empty((blocks, 5, _BLOCK), boxes.dtype), *chains)


@njit(cache=True, nogil=True)
def _cells_for(count: int) -> int:
    return max(1, min(_MOST_CELLS, count // _PER_CELL))


@njit(cache=True, nogil=True)
def _kept(order: Int64[np.ndarray, " N"], keep: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " K"]:
    count = 0
    for i in range(keep.size):
        count += keep[i]
    out = np.empty(count, np.int64)
    count = 0
    for i in range(keep.size):
        if keep[i]:
            out[count] = order[i]
            count += 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _suppress_group(
    boxes: Float[np.ndarray, "N 4"],
    order: Int64[np.ndarray, " N"],
    places: Int64[np.ndarray, " M"],
    threshold: np.floating,
    keep: Bool[np.ndarray, " N"],
    columns: Float[np.ndarray, "5 most"],
    store: Float[np.ndarray, "blocks 5 block"],
    following: Int64[np.ndarray, " blocks"],
    firsts: Int64[np.ndarray, " cells"],
    lasts: Int64[np.ndarray, " cells"],
) -> None:
    """Mark in `keep` which of the boxes at `places` of the order survive.

    A box is compared with those already kept, block by block, and dropped after the first block that holds one
    overlapping it too much. Kept boxes are filed in the cells of a grid by their centres: the union is at least as high
    as the intersection and as wide as both boxes together, so

        IoU > t   implies   |c - c'| < w (1 - t) / (2 t)

    for the centres c, c' across and the width w of either box, likewise down, and all cells further away are left out.
    """
    count = places.size
    _gather(boxes, order, places, columns)
    limit = _cells_for(count) if threshold > _LEAST_THRESHOLD else 1
    across, down, left, top, per_x, per_y = _grid(columns[:, :count], limit)
    firsts[: across * down] = -1
    # A little more than the bound: the overlap itself is rounded.
    bound = threshold * (1 - 1e-4)
    reach = (1 - bound) / (2 * bound) if across * down > 1 else 0.0
    # Of the boxes' type: numba's mixed arithmetic is in float64, and slow.
    lenient = columns.dtype.type(_a_little_below(threshold))
    used = np.zeros(across * down, np.int64)
    num_blocks = 0
    x_first = x_last = y_first = y_last = x_cell = y_cell = 0
    for j in range(count):
        x1, y1, x2, y2 = columns[0, j], columns[1, j], columns[2, j], columns[3, j]
        if across * down > 1:
            x, y = (np.float64(x1) + x2) / 2, (np.float64(y1) + y2) / 2
            far_x, far_y = (np.float64(x2) - x1) * reach, (np.float64(y2) - y1) * reach
            x_first, x_last = _cell(x - far_x, left, per_x, across), _cell(x + far_x, left, per_x, across)
            y_first, y_last = _cell(y - far_y, top, per_y, down), _cell(y + far_y, top, per_y, down)
            x_cell, y_cell = _cell(x, left, per_x, across), _cell(y, top, per_y, down)
        alive = True
        for row in range(y_first, y_last + 1):
            cells = firsts[row * across + x_first : row * across + x_last + 1]
            if _overlaps_in_cells(store, following, cells, columns[:, j], lenient, threshold):
                alive = False
                break
        keep[places[j]] = alive
        if alive:
            cell = y_cell * across + x_cell
            slot = used[cell] % _BLOCK
            if slot == 0:
                _open(store[num_blocks])
                following[num_blocks] = -1
                if firsts[cell] < 0:
                    firsts[cell] = num_blocks
                else:
                    following[lasts[cell]] = num_blocks
                lasts[cell] = num_blocks
                num_blocks += 1
            home = store[lasts[cell]]
            home[:, slot] = columns[:, j]
            used[cell] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _overlaps_in_cells(
    store: Float[np.ndarray, "blocks 5 block"],
    following: Int64[np.ndarray, " blocks"],
    cells: Int64[np.ndarray, " cells"],
    box: Float[np.ndarray, " 5"],
    lenient: np.floating,
    threshold: np.floating,
) -> bool:
    """Whether a box kept in any of these cells, each given by its first block, has an IoU above the threshold."""
    x1, y1, x2, y2, area = box[0], box[1], box[2], box[3], box[4]
    for block in cells:
        while block >= 0:
            if _overlaps(store[block], x1, y1, x2, y2, area, lenient, threshold):
                return True
            block = following[block]
    return False


@njit(cache=True, nogil=True)
def _gather(
    boxes: Float[np.ndarray, "N 4"],
    order: Int64[np.ndarray, " N"],
    places: Int64[np.ndarray, " M"],
    columns: Float[np.ndarray, "5 most"],
) -> None:
    for j in range(places.size):
        i = order[places[j]]
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        columns[0, j], columns[1, j], columns[2, j], columns[3, j] = x1, y1, x2, y2
        columns[4, j] = (x2 - x1) * (y2 - y1)


@njit(cache=True, nogil=True)
def _a_little_below(threshold: np.floating) -> float:
    """A factor f with: q > threshold, q = inter / union rounded, only if inter > f * union rounded, for union > 0.

    q > t of rounded numbers means inter > t union exactly; one rounding of f * union cannot make up for the step from
    t down to f.
    """
    return float(threshold) * (1 - 8 * float(np.finfo(threshold).eps))


@njit(cache=True, nogil=True, error_model="numpy")
def _overlaps(
    kept: Float[np.ndarray, "5 block"],
    x1: np.floating,
    y1: np.floating,
    x2: np.floating,
    y2: np.floating,
    area: np.floating,
    lenient: np.floating,
    threshold: np.floating,
) -> bool:
    """Whether any of the kept boxes (x1, y1, x2, y2, area) has an IoU above the threshold with this one.

    A product finds the candidates, and only where there is one, the quotients decide: a division costs as much as all
    the rest.
    """
    zero = kept.dtype.type(0)
    kx1, ky1, kx2, ky2, kept_area = kept[0], kept[1], kept[2], kept[3], kept[4]
    hit = False
    for k in range(_BLOCK):
        width = (x2 if x2 < kx2[k] else kx2[k]) - (x1 if x1 > kx1[k] else kx1[k])
        height = (y2 if y2 < ky2[k] else ky2[k]) - (y1 if y1 > ky1[k] else ky1[k])
        inter = (width if width > zero else zero) * (height if height > zero else zero)
        # | of truth values, not of numbers: those would widen the loop to 64 bits.
        hit = hit | (inter > lenient * (kept_area[k] + area - inter))
    if not hit:
        return False
    sure = False
    for k in range(_BLOCK):
        width = (x2 if x2 < kx2[k] else kx2[k]) - (x1 if x1 > kx1[k] else kx1[k])
        height = (y2 if y2 < ky2[k] else ky2[k]) - (y1 if y1 > ky1[k] else ky1[k])
        inter = (width if width > zero else zero) * (height if height > zero else zero)
        sure = sure | (inter / (kept_area[k] + area - inter) > threshold)
    return sure


@njit(cache=True, nogil=True)
def _open(block: Float[np.ndarray, "5 block"]) -> None:
    """Fill a block with boxes that overlap nothing: their intersection is zero, and so is their area."""
    block[0], block[1], block[2], block[3], block[4] = np.inf, np.inf, -np.inf, -np.inf, 0


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(centre: float, low: float, per_pixel: float, num_cells: int) -> int:
    """Index of the cell at `centre`, the nearest one outside; 0 for NaN, whose boxes neither suppress nor go."""
    place = (centre - low) * per_pixel
    if not place > 0:
        return 0
    return int(place) if place < num_cells else num_cells - 1


@njit(cache=True, nogil=True, error_model="numpy")
def _grid(columns: Float[np.ndarray, "5 M"], limit: int) -> tuple[int, int, float, float, float, float]:
    """At most `limit` cells: how many across and down, the least centres, cells a pixel across and down."""
    if limit <= 1:
        return 1, 1, 0.0, 0.0, 0.0, 0.0
    across, left, per_x = _axis(columns[0], columns[2])
    down, top, per_y = _axis(columns[1], columns[3])
    if across * down <= limit:
        return across, down, left, top, per_x, per_y
    shrink = np.sqrt(limit / (across * down))
    fewer_across = min(limit, max(1, int(across * shrink)))
    fewer_down = min(limit // fewer_across, max(1, int(down * shrink)))
    return fewer_across, fewer_down, left, top, per_x * fewer_across / across, per_y * fewer_down / down


@njit(cache=True, nogil=True, error_model="numpy")
def _axis(begins: Float[np.ndarray, " M"], ends: Float[np.ndarray, " M"]) -> tuple[int, float, float]:
    """Cells along one axis, each about as long as the mean box; the least centre; cells a pixel."""
    low, high, total, counted = np.inf, -np.inf, 0.0, 0
    for j in range(begins.size):
        centre, length = (np.float64(begins[j]) + ends[j]) / 2, np.float64(ends[j]) - begins[j]
        if np.isfinite(centre) and np.isfinite(length):
            low, high = min(low, centre), max(high, centre)
            total += max(length, 0.0)
            counted += 1
    if not (high > low and total > 0):
        return 1, 0.0, 0.0
    num_cells = max(1, int(min(float(_MOST_CELLS), (high - low) * counted / total)))
    return num_cells, low, num_cells / (high - low)
