"""The permutohedral lattice (Adams, Baek and Davis 2010): where points lie in it, its hash table, splat, blur, slice.

The hyperplane that sums to zero in d + 1 dimensions is tiled by simplices; a point of d dimensions is lifted into it
and lies in one simplex, whose d + 1 vertices share its value by barycentric weights. A vertex is known by its key, an
integer that is linear in its coordinates, so that a neighbour's key lies a constant away.
"""

import numpy as np
from jaxtyping import Float, Int32, Int64, UInt64
from numba import njit

Share = np.floating | Float[np.ndarray, ""]
"""One weight."""

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the top bits of its products are spread evenly (Knuth, vol. 3, section 6.4)."""


@njit(cache=True, nogil=True, error_model="numpy")
def locate(
    features: Float[np.ndarray, "N d"],
    lift: Float[np.ndarray, "d1 d"],
    strides: Int64[np.ndarray, " d1"],
    keys: Int64[np.ndarray, "N d1"],
    weights: Float[np.ndarray, "N d1"],
    start: int,
    stop: int,
) -> None:
    """Write the keys and barycentric weights of the vertices around points `start` to `stop`.

    Args:
        features: a row a point.
        lift: matrix into the hyperplane, float64.
        strides: of each coordinate in a key; 0 for the last, which the others imply.
        keys: written.
        weights: written; a row sums to one.
        start: first point.
        stop: one past the last.
    """
    corners = lift.shape[0]
    rank, at_rank = np.empty(corners, np.int64), np.empty(corners, np.int64)
    lifted, nearest = np.empty(corners), np.empty(corners, np.int64)
    barycentric = np.empty(corners + 1)
    all_strides = strides.sum()
    for p in range(start, stop):
        excess = 0
        for i in range(corners):
            value = 0.0
            for j in range(corners - 1):
                value += lift[i, j] * features[p, j]
            lifted[i] = value
            whole = np.int64(np.floor(value / corners + 0.5))
            nearest[i] = whole * corners
            excess += whole
        # Rank by distance to the nearest point of the sublattice, the furthest first.
        for i in range(corners):
            rank[i] = excess
        for i in range(corners):
            for j in range(i + 1, corners):
                if lifted[i] - nearest[i] < lifted[j] - nearest[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        barycentric[:] = 0.0
        key = 0
        for i in range(corners):
            if rank[i] < 0:
                rank[i] += corners
                nearest[i] += corners
            elif rank[i] >= corners:
                rank[i] -= corners
                nearest[i] -= corners
            at_rank[rank[i]] = i
            offset = (lifted[i] - nearest[i]) / corners
            barycentric[corners - 1 - rank[i]] += offset
            barycentric[corners - rank[i]] -= offset
            key += strides[i] * nearest[i]
        barycentric[0] += 1.0 + barycentric[corners]
        for k in range(corners):
            keys[p, k] = key
            weights[p, k] = barycentric[k]
            key += all_strides - corners * strides[at_rank[corners - 1 - k]]


@njit(cache=True, nogil=True, error_model="numpy")
def _slot(key: np.uint64, table: UInt64[np.ndarray, " S"], ids: Int32[np.ndarray, " S"], shift: np.uint64) -> np.int64:
    """Where the key is, or would be put, in a table that has room."""
    mask = table.size - 1
    slot = np.int64((key * _SPREAD) >> shift) & mask
    while ids[slot] >= 0 and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True, error_model="numpy")
def _grown(
    distinct: UInt64[np.ndarray, " V"], bits: int
) -> tuple[UInt64[np.ndarray, " S"], Int32[np.ndarray, " S"], UInt64[np.ndarray, " W"]]:
    """Table and numbers of twice the size, holding the same keys, and room for as many more."""
    table, ids = np.empty(1 << bits, np.uint64), np.full(1 << bits, -1, np.int32)
    keys = np.empty(2 * distinct.size, np.uint64)
    for v in range(distinct.size):
        slot = _slot(distinct[v], table, ids, np.uint64(64 - bits))
        table[slot], ids[slot], keys[v] = distinct[v], v, distinct[v]
    return table, ids, keys


@njit(cache=True, nogil=True, error_model="numpy")
def number_vertices(
    keys: UInt64[np.ndarray, "N d1"], steps: UInt64[np.ndarray, " d1"], vertices: Int32[np.ndarray, "N d1"]
) -> Int32[np.ndarray, "d1 2 M"]:
    """Number the distinct keys by first appearance, and find each vertex's neighbours.

    Args:
        keys: of all corners of all points.
        steps: difference between the key of a vertex and of the next one along each direction.
        vertices: written, the number of each corner.

    Returns:
        The next and the previous vertex along each direction; M, the number of vertices, where there is none.
    """
    bits = 12
    table, ids = np.empty(1 << bits, np.uint64), np.full(1 << bits, -1, np.int32)
    distinct = np.empty(1 << (bits - 1), np.uint64)
    count = 0
    shift = np.uint64(64 - bits)
    for p in range(keys.shape[0]):
        for k in range(keys.shape[1]):
            key = keys[p, k]
            # Neighbours in a picture mostly share their simplex: no look-up.
            if p and keys[p - 1, k] == key:
                vertices[p, k] = vertices[p - 1, k]
                continue
            slot = _slot(key, table, ids, shift)
            if ids[slot] < 0:
                if count == distinct.size:
                    bits += 1
                    shift = np.uint64(64 - bits)
                    table, ids, distinct = _grown(distinct, bits)
                    slot = _slot(key, table, ids, shift)
                table[slot], ids[slot], distinct[count] = key, count, key
                count += 1
            vertices[p, k] = ids[slot]
    neighbours = np.full((steps.size, 2, count), count, np.int32)
    for j in range(steps.size):
        for v in range(count):
            after = ids[_slot(distinct[v] + steps[j], table, ids, shift)]
            if after >= 0:
                neighbours[j, 0, v] = after
                neighbours[j, 1, after] = v
    return neighbours


@njit(cache=True, nogil=True, error_model="numpy")
def by_vertex(
    vertices: Int32[np.ndarray, "N d1"],
    weights: Float[np.ndarray, "N d1"],
    starts: Int64[np.ndarray, " M1"],
    points: Int32[np.ndarray, " T"],
    shares: Float[np.ndarray, " T"],
) -> None:
    """File the corners by vertex, each vertex's in the order of the points: what `splat` sums.

    Args:
        vertices: number of each corner.
        weights: barycentric.
        starts: [M + 1] written: where each vertex's corners begin.
        points: written: the point of each corner.
        shares: written: its weight.
    """
    starts[:] = 0
    for p in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            starts[vertices[p, k] + 1] += 1
    for v in range(1, starts.size):
        starts[v] += starts[v - 1]
    ends = starts.copy()
    for p in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            place = ends[vertices[p, k]]
            points[place], shares[place] = p, weights[p, k]
            ends[vertices[p, k]] = place + 1


@njit(inline="always")
def _add_one(row: Float[np.ndarray, " C"], a: Float[np.ndarray, " C"], of_a: Share) -> None:
    for i in range(row.size):
        row[i] += of_a * a[i]


@njit(inline="always")
def _add_three(
    row: Float[np.ndarray, " C"],
    a: Float[np.ndarray, " C"],
    of_a: Share,
    b: Float[np.ndarray, " C"],
    of_b: Share,
    c: Float[np.ndarray, " C"],
    of_c: Share,
) -> None:
    """Three terms of a weighted sum of rows at once: a third of the loads and stores of the sum itself."""
    for i in range(row.size):
        row[i] = row[i] + of_a * a[i] + of_b * b[i] + of_c * c[i]


@njit(cache=True, nogil=True, error_model="numpy")
def splat(
    values: Float[np.ndarray, "N C"],
    factors: Float[np.ndarray, " N"],
    starts: Int64[np.ndarray, " M1"],
    points: Int32[np.ndarray, " T"],
    shares: Float[np.ndarray, " T"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "M1 C"],
) -> None:
    """Sum at each vertex from `start` to `stop` its shares of the points' values, each times its point's factor."""
    for v in range(start, stop):
        row = out[v]
        row[:] = 0
        t, end = starts[v], starts[v + 1]
        while t + 3 <= end:
            p, q, r = points[t], points[t + 1], points[t + 2]
            of_p, of_q, of_r = shares[t] * factors[p], shares[t + 1] * factors[q], shares[t + 2] * factors[r]
            _add_three(row, values[p], of_p, values[q], of_q, values[r], of_r)
            t += 3
        while t < end:
            _add_one(row, values[points[t]], shares[t] * factors[points[t]])
            t += 1


@njit(cache=True, nogil=True, error_model="numpy")
def blur(
    values: Float[np.ndarray, "M1 C"],
    neighbours: Int32[np.ndarray, "2 M"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "M1 C"],
) -> None:
    """Weigh each vertex from `start` to `stop` and its two neighbours along one direction by 1/2, 1/4, 1/4."""
    half, quarter = values.dtype.type(0.5), values.dtype.type(0.25)
    for v in range(start, stop):
        row, here, after, before = out[v], values[v], values[neighbours[0, v]], values[neighbours[1, v]]
        for c in range(row.size):
            row[c] = half * here[c] + quarter * (after[c] + before[c])


@njit(cache=True, nogil=True, error_model="numpy")
def slice_points(
    values: Float[np.ndarray, "M1 C"],
    vertices: Int32[np.ndarray, "N d1"],
    weights: Float[np.ndarray, "N d1"],
    factors: Float[np.ndarray, " N"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "N C"],
) -> None:
    """Read the points from `start` to `stop` off the vertices around them, each times its factor."""
    corners = vertices.shape[1]
    for p in range(start, stop):
        row, factor = out[p], factors[p]
        row[:] = 0
        k = 0
        while k + 3 <= corners:
            a, b, c = values[vertices[p, k]], values[vertices[p, k + 1]], values[vertices[p, k + 2]]
            of_a, of_b, of_c = factor * weights[p, k], factor * weights[p, k + 1], factor * weights[p, k + 2]
            _add_three(row, a, of_a, b, of_b, c, of_c)
            k += 3
        while k < corners:
            _add_one(row, values[vertices[p, k]], factor * weights[p, k])
            k += 1
