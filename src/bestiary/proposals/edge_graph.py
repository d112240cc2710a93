"""Edges strung to groups, and how much each group carries on another (EdgeBoxes, sections 3.1 to 3.3)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Shaped

from bestiary.features.soft_edges import SoftEdges

REACH = 2
"""Groups further apart than so many pixels have no affinity."""

LEAST_AFFINITY = 0.05
"""Smaller ones count as none (section 3.2)."""


class EdgeGraph(NamedTuple):
    """G groups of edges and where they lie; of columns everything is transposed.

    Attributes:
        row_places: of each pixel, its place in `row_groups`.
        row_groups: the groups met along the rows, one entry each time that it changes; -1 where there is none.
        column_places: of each pixel, its place in `column_groups`.
        column_groups: the groups met along the columns.
        starts: where each group's neighbours begin, and the end.
        neighbours: groups akin to each.
        affinities: how much.
        mass: sum of each group's strengths.
        centres_xy: the pixel that stands for each group.
        group_sums: mass of the groups whose pixel lies above and to the left.
        pixel_sums: strength above and to the left.
        shares: what a sum is multiplied with, by half the length of the box's outline.
    """

    row_places: Int32[np.ndarray, "H W"]
    row_groups: Int32[np.ndarray, " _rows"]
    column_places: Int32[np.ndarray, "W H"]
    column_groups: Int32[np.ndarray, " _columns"]
    starts: Int32[np.ndarray, " _G1"]
    neighbours: Int32[np.ndarray, " _pairs"]
    affinities: Float32[np.ndarray, " _pairs"]
    mass: Float32[np.ndarray, " G"]
    centres_xy: Int32[np.ndarray, "G 2"]
    group_sums: Float64[np.ndarray, "_H1 _W1"]
    pixel_sums: Float64[np.ndarray, "_H1 _W1"]
    shares: Float32[np.ndarray, " _outline"]


def edge_groups(
    edges: SoftEdges, min_strength: int | float = 0.1, max_turn: int | float = math.pi / 2, min_mass: int | float = 0.5
) -> Int32[np.ndarray, "H W"]:
    """Number of the group of each edge pixel, -1 off the edges (section 3.1).

    Args:
        edges: thinned.
        min_strength: weaker pixels, and those as strong, are no edges.
        max_turn: sum of the differences in direction within a group, radians.
        min_mass: groups whose strengths sum to no more go to their neighbours.
    """
    from bestiary.proposals._kernels.edge_boxes import adopt_loose, string_edges

    strength, tangents = edges.strength.contiguous().numpy(), edges.tangent.contiguous().numpy()
    groups = np.empty(strength.shape, np.int32)
    total = string_edges(strength, tangents, float(min_strength), float(max_turn), groups)
    if not total:
        return groups
    held = groups >= 0
    mass = np.bincount(groups[held], strength[held], total)
    light = held & (mass[groups] <= min_mass)
    groups[light] = -2
    adopt_loose(groups, tangents, np.flatnonzero(light).astype(np.int32))
    held = groups >= 0
    groups[held] = np.unique(groups[held], return_inverse=True)[1].astype(np.int32)
    return groups


def edge_graph(
    edges: SoftEdges, groups: Int32[np.ndarray, "H W"], gamma: int | float = 2.0, kappa: int | float = 1.5
) -> EdgeGraph:
    """Affinities of the groups (equation 1), and where they lie (section 3.3)."""
    strength, tangents = edges.strength.numpy(), edges.tangent.numpy()
    height, width = groups.shape
    y, x = np.nonzero(groups >= 0)
    of, weight, angle = groups[y, x], strength[y, x].astype(np.float64), 2 * tangents[y, x].astype(np.float64)
    total = int(of.max()) + 1 if len(of) else 0

    def sums(values: Shaped[np.ndarray, " E"]) -> Shaped[np.ndarray, " G"]:
        return np.bincount(of, values, total)

    mass = sums(weight)
    across, down = sums(weight * x) / mass, sums(weight * y) / mass
    lines = 0.5 * np.arctan2(sums(weight * np.sin(angle)), sums(weight * np.cos(angle)))
    one, two = _near(groups, total)
    between = np.arctan2(down[two] - down[one], across[two] - across[one])
    affinities = np.abs(np.cos(lines[one] - between) * np.cos(lines[two] - between)) ** gamma
    akin = affinities > LEAST_AFFINITY
    one, two, affinities = np.r_[one[akin], two[akin]], np.r_[two[akin], one[akin]], np.tile(affinities[akin], 2)
    order = np.argsort(one, kind="stable")
    centres = np.stack([np.rint(across), np.rint(down)], 1).astype(np.int32)
    at_centres = np.zeros((height, width))
    np.add.at(at_centres, (centres[:, 1], centres[:, 0]), mass)
    outlines = np.maximum(np.arange(height + width + 1), 1.0)
    return EdgeGraph(
        *_runs(groups),
        *_runs(groups.T),
        np.searchsorted(one[order], np.arange(total + 1)).astype(np.int32),
        two[order].astype(np.int32),
        affinities[order].astype(np.float32),
        mass.astype(np.float32),
        centres,
        _integral(at_centres),
        _integral(np.where(groups >= 0, strength, 0)),
        (0.5 * outlines**-kappa).astype(np.float32),
    )


def _near(groups: Int32[np.ndarray, "H W"], total: int) -> tuple[Shaped[np.ndarray, " P"], Shaped[np.ndarray, " P"]]:
    """The two groups of each pair with pixels at most `REACH` apart."""
    from bestiary.proposals._kernels.edge_boxes import near_pairs

    pairs = np.empty(16 * total, np.int64)
    found = near_pairs(groups, total, REACH, pairs)
    if found > len(pairs):
        pairs = np.empty(found, np.int64)
        near_pairs(groups, total, REACH, pairs)
    codes = np.unique(pairs[:found])
    return codes // max(total, 1), codes % max(total, 1)


def _runs(groups: Int32[np.ndarray, "H W"]) -> tuple[Int32[np.ndarray, "H W"], Int32[np.ndarray, " _runs"]]:
    """The groups met along the rows, one entry each time that it changes, and each pixel's place among them."""
    starts = np.ones(groups.shape, bool)
    starts[:, 1:] = groups[:, 1:] != groups[:, :-1]
    places = np.cumsum(starts.ravel(), dtype=np.int32).reshape(groups.shape) - np.int32(1)
    return places, np.ascontiguousarray(groups[starts])


def _integral(values: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "_H1 _W1"]:
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
    return sums
