"""Which of the matched points lie as one view of a rigid thing lies in another.

A matched pair of oriented, scaled points alone says how one picture would have to be turned, scaled and shifted onto
the other. Every pair makes its proposal, the one that most pairs agree with wins, and the map is fitted anew to those
(Lowe, IJCV 2004, section 7; Philbin et al., CVPR 2007, section 4). Nothing is drawn at random.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from bestiary.features.keypoints import Keypoints
from bestiary.geometry.fitting import fit_affine, fit_similarity, transfer_errors
from bestiary.records import require

TURN = math.pi / 6
"""Radians by which a pair's turn may differ from the map's: Lowe's bins are 30 degrees wide."""

ZOOM = 2.0
"""Factor by which its change of scale may differ."""

_PAIRS_AT_ONCE = 1 << 22

_FLATTEST = 0.1
"""Least ratio of the singular values of an affine map: flatter ones squeeze the picture onto a line."""


@dataclass(frozen=True, eq=False)
class Verified:
    """What matched points agree on.

    Attributes:
        matrix: takes points of the first picture to the second; the identity where nothing agrees.
        inliers: pairs that it takes to within the threshold, at about the right turn and scale; no point of the second
            picture counts for two.
    """

    matrix: Float64[Tensor, "2 3"]
    inliers: Bool[Tensor, " N"]


def proposals(first: Keypoints, second: Keypoints) -> Float64[Tensor, "N 2 3"]:
    """The similarity `[s R | t]` that takes each point, with its scale and angle, to its partner.

    Args:
        first: of matched pairs, row by row.
        second: their partners.
    """
    zoom, turn = second.scale.double() / first.scale.double(), second.angle.double() - first.angle.double()
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    x, y = first.xy.double().unbind(1)
    shift_x, shift_y = second.xy[:, 0] - (cos * x - sin * y), second.xy[:, 1] - (sin * x + cos * y)
    return torch.stack([cos, -sin, shift_x, sin, cos, shift_y], dim=1).unflatten(1, (2, 3))


def verify(first: Keypoints, second: Keypoints, threshold: float | int) -> Verified:
    """The map that most matched pairs agree with, affine where three or more do.

    Args:
        first: of matched pairs, row by row.
        second: their partners.
        threshold: largest distance, in pixels of the second picture, between a mapped point and its partner.

    Raises:
        RecordError: not as many partners as points, or a negative threshold.
    """
    require(len(first) == len(second), "verify(second)", f"{len(second)} points", f"{len(first)}, one a pair")
    require(threshold >= 0, "verify(threshold)", threshold, "0 or more")
    points, targets = first.xy.double(), second.xy.double()
    maps = proposals(first, second)
    if not len(maps):
        return Verified(torch.eye(2, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    zooms, turns = (second.scale.double() / first.scale).log2(), second.angle.double() - first.angle
    pairs = _Pairs(points, targets, zooms, turns, float(threshold))
    block = max(1, _PAIRS_AT_ONCE // len(maps))
    counts = torch.cat([pairs.agreeing(part).sum(1) for part in maps.split(block)])
    matrix = maps[int(counts.argmax())]
    best = _one_to_one(pairs, matrix)
    # One pair alone says all that it can: a fit to it would forget its scale and angle.
    while best.sum() > 1:
        refit = _fit(points[best], targets[best])
        inliers = _one_to_one(pairs, refit)
        if inliers.sum() < best.sum():
            break
        settled, matrix, best = bool(inliers.sum() == best.sum()), refit, inliers
        if settled:
            break
    return Verified(matrix, best)


@dataclass(frozen=True, eq=False)
class _Pairs:
    points: Float64[Tensor, "N 2"]
    targets: Float64[Tensor, "N 2"]
    zooms: Float64[Tensor, " N"]
    turns: Float64[Tensor, " N"]
    threshold: float

    def errors(self, maps: Float64[Tensor, "P 2 3"]) -> Float64[Tensor, "P N"]:
        """Distances of mapped points and partners; infinite for pairs of another turn or scale."""
        count = len(maps)
        errors = transfer_errors(maps, self.points.expand(count, -1, -1), self.targets.expand(count, -1, -1))
        zoom = torch.linalg.det(maps[:, :, :2]).abs().clamp(min=1e-12).log2()[:, None] / 2
        # An affine map turns by the rotation nearest to it.
        turn = torch.atan2(maps[:, 1, 0] - maps[:, 0, 1], maps[:, 0, 0] + maps[:, 1, 1])[:, None]
        aside = torch.remainder(self.turns - turn + math.pi, 2 * math.pi) - math.pi
        alike = (aside.abs() <= TURN) & ((self.zooms - zoom).abs() <= math.log2(ZOOM))
        return torch.where(alike, errors, torch.inf)

    def agreeing(self, maps: Float64[Tensor, "P 2 3"]) -> Bool[Tensor, "P N"]:
        """Which pairs each map explains."""
        return self.errors(maps) <= self.threshold


def _one_to_one(pairs: _Pairs, matrix: Float64[Tensor, "2 3"]) -> Bool[Tensor, " N"]:
    """The pairs that a map explains; of several with one and the same place in a picture, the nearest."""
    errors = pairs.errors(matrix[None])[0]
    inside = errors <= pairs.threshold
    for places in (pairs.points, pairs.targets):
        order = torch.where(inside, errors, torch.inf).argsort(stable=True)
        nearest = np.unique(places[order].numpy(), axis=0, return_index=True)[1]
        chosen = torch.zeros_like(inside)
        chosen[order[torch.from_numpy(nearest)]] = True
        inside = inside & chosen
    return inside


def _fit(points: Float64[Tensor, "N 2"], targets: Float64[Tensor, "N 2"]) -> Float64[Tensor, "2 3"]:
    if len(points) >= 3:
        matrix = fit_affine(points, targets)
        values = torch.linalg.svdvals(matrix[:, :2])
        if values[1] > _FLATTEST * values[0] and torch.linalg.det(matrix[:, :2]) > 0:
            return matrix
    return fit_similarity(points, targets)
