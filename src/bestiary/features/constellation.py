"""One class as a constellation of parts: what it says of a picture's regions.

Weber, Welling, Perona, Unsupervised Learning of Models for Recognition, ECCV 2000; Fergus, Perona, Zisserman, Object
Class Recognition by Unsupervised Scale-Invariant Learning, CVPR 2003.

A picture is N regions: places (x, y, log radius) and appearances. A hypothesis says for each of P parts which region it
is, or that it was not found. The ratio of the class's likelihood to that of clutter alone is a sum over all hypotheses,

    exp(B - M) (M / B)^N  sum of  p(found parts)  product over found parts of [appearance ratio / M]
                                  (A R)^(found - 1)  p(places of the found parts relative to the first of them),

where clutter is a Poisson process of M regions (in pictures without the object: of B), uniform over the picture's area
A and the range R of log radii, and the object may be anywhere.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64

from bestiary.features._kernels.constellation import Observed, Rules, Sums, expectation
from bestiary.records import require

TOLERANCE = 1e-6
"""Share of the sum over hypotheses that may be left out."""

Vector = Float64[np.ndarray, " D"]
Matrix = Float64[np.ndarray, "D D"]


@dataclass(frozen=True)
class Background:
    """What clutter looks like: a Gaussian with independent dimensions, and how many regions there are.

    Attributes:
        means: of the appearance.
        variances: of the appearance.
        count: mean number of regions of a picture.
        log_radius_range: width of the range of log radii.
    """

    means: Float64[np.ndarray, " A"]
    variances: Float64[np.ndarray, " A"]
    count: float
    log_radius_range: float


@dataclass(frozen=True)
class Views:
    """The regions of I pictures, one picture's after the other's.

    Attributes:
        places: x, y in pixels and the log of the radius.
        appearances: A numbers a region.
        starts: where each picture's regions start, and the end.
        areas: of the pictures, square pixels.
    """

    places: Float64[np.ndarray, "T 3"]
    appearances: Float64[np.ndarray, "T A"]
    starts: Int64[np.ndarray, " I1"]
    areas: Float64[np.ndarray, " I"]

    def __post_init__(self) -> None:
        total, pictures = len(self.places), len(self.areas)
        require(len(self.appearances) == total, "Views.appearances", len(self.appearances), f"{total}, as in places")
        fits = len(self.starts) == pictures + 1 and self.starts[0] == 0 and self.starts[-1] == total
        require(bool(fits), "Views.starts", self.starts.tolist(), f"0 ... {total}, {pictures + 1} numbers")

    def __len__(self) -> int:
        return len(self.areas)

    def picked(self, pictures: Int64[np.ndarray, " J"]) -> "Views":
        """Only these pictures, in this order."""
        rows = [np.arange(int(self.starts[i]), int(self.starts[i + 1])) for i in pictures]
        chosen = np.concatenate([np.zeros(0, np.int64), *rows])
        starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        return Views(self.places[chosen], self.appearances[chosen], starts, self.areas[pictures])


@dataclass(frozen=True)
class PartModel:
    """One class.

    Attributes:
        means: places of parts 1 ... P - 1 relative to part 0: x, y (in units of the first found part's radius, or in
            pixels), log radius.
        covariance: of all of them jointly; positions and log radii are independent of one another.
        appearance_means: a row a part.
        appearance_variances: likewise; dimensions are independent.
        found: probability that exactly these parts are found; bit p of the index is part p.
        clutter: M, mean number of regions that are no part.
    """

    means: Float64[np.ndarray, " D"]
    covariance: Float64[np.ndarray, "D D"]
    appearance_means: Float64[np.ndarray, "P A"]
    appearance_variances: Float64[np.ndarray, "P A"]
    found: Float64[np.ndarray, " M"]
    clutter: float

    @property
    def parts(self) -> int:
        """P."""
        return len(self.appearance_means)


@dataclass(frozen=True)
class Explanation:
    """What a model says of I pictures.

    Attributes:
        log_ratios: of the class's likelihood to the background's.
        best: region of each part in the likeliest hypothesis, counted within the picture; -1 where it was not found.
        sums: expectations over all hypotheses; only of the best one if nothing else was asked for.
    """

    log_ratios: Float64[np.ndarray, " I"]
    best: Int64[np.ndarray, "I P"]
    sums: Sums


def explain(
    model: PartModel, background: Background, views: Views, is_scaled: bool, tolerance: float = TOLERANCE
) -> Explanation:
    """Sum over all hypotheses of each picture, shared over threads.

    Args:
        model: the class.
        background: clutter.
        views: the pictures.
        is_scaled: whether places are in units of the first found part's radius.
        tolerance: share of the sum that may be left out.
    """
    from bestiary.ops._kernels.threads import in_threads

    parts, regions, pictures = model.parts, len(views.places), len(views)
    looks = log_density(views.appearances, model.appearance_means, model.appearance_variances)
    looks -= log_density(views.appearances, background.means[None], background.variances[None])
    looks -= math.log(model.clutter)
    room = np.log(views.areas) + math.log(background.log_radius_range)
    # Stable: of regions that look alike the first goes first.
    order = np.concatenate(
        [np.argsort(-part, axis=1, kind="stable") for part in np.split(looks, views.starts[1:-1], 1)], 1
    )
    seen = Observed(views.places, looks, order, views.starts, room)
    sets, size = 1 << parts, 1 + 3 * parts
    sums = Sums(
        np.zeros(pictures),
        np.full((pictures, parts), -1, np.int64),
        np.zeros((parts, regions)),
        np.zeros((pictures, sets, size, size)),
    )
    rules = rules_of(model)
    in_threads(
        lambda a, b: expectation(a, b, seen, rules, is_scaled, tolerance, sums), pictures, torch.get_num_threads()
    )
    counts = np.diff(views.starts)
    fewer = counts * math.log(model.clutter / background.count) - (model.clutter - background.count)
    return Explanation(sums.logs + fewer, sums.best, sums)


def log_density(
    rows: Float64[np.ndarray, "T A"], means: Float64[np.ndarray, "P A"], variances: Float64[np.ndarray, "P A"]
) -> Float64[np.ndarray, "P T"]:
    """Log of each part's Gaussian at each row."""
    gaps = rows[None] - means[:, None]
    constants = np.log(2 * math.pi * variances).sum(1)
    return -0.5 * ((gaps * gaps / variances[:, None]).sum(2) + constants[:, None])


def rules_of(model: PartModel) -> Rules:
    """The joint Gaussian as a chain: each part's place given those of any set of parts before it.

    The place of part 0 is the origin of the means, but any part may be the first that was found: the places that count
    are differences to it, which are Gaussian too.
    """
    parts = model.parts
    sets = 1 << parts
    rules = Rules(
        np.log(model.found),
        np.zeros((sets, parts)),
        np.zeros((sets, parts, 3)),
        np.zeros((sets, parts, 3, 3 * parts)),
        np.zeros((sets, parts, 3, 3)),
    )
    for p in range(1, parts):
        for mask in range(1, 1 << p):
            before = [q for q in range(p) if mask >> q & 1]
            mean, covariance = _relative(model, [*before, p])
            own, rest = slice(len(mean) - 3, None), slice(0, len(mean) - 3)
            slope = np.linalg.solve(covariance[rest, rest], covariance[rest, own]).T
            left = covariance[own, own] - slope @ covariance[rest, own]
            root = np.linalg.cholesky(0.5 * (left + left.T))
            rules.means[mask, p] = mean[own] - slope @ mean[rest]
            for k, q in enumerate(before[1:]):
                rules.slopes[mask, p, :, 3 * q : 3 * q + 3] = slope[:, 3 * k : 3 * k + 3]
            rules.caps[mask, p] = -1.5 * math.log(2 * math.pi) - np.log(np.diag(root)).sum()
            rules.roots[mask, p] = np.linalg.inv(root)
    return rules


def differences(parts: int, found: list[int]) -> Float64[np.ndarray, "Z D"]:
    """The matrix that takes places relative to part 0 to those of `found[1:]` relative to `found[0]`."""
    matrix = np.zeros((3 * (len(found) - 1), 3 * (parts - 1)))
    for row, part in enumerate(found[1:]):
        if part > 0:
            matrix[3 * row : 3 * row + 3, 3 * part - 3 : 3 * part] = np.eye(3)
        if found[0] > 0:
            matrix[3 * row : 3 * row + 3, 3 * found[0] - 3 : 3 * found[0]] = -np.eye(3)
    return matrix


def _relative(model: PartModel, found: list[int]) -> tuple[Vector, Matrix]:
    matrix = differences(model.parts, found)
    return matrix @ model.means, matrix @ model.covariance @ matrix.T


def reordered(model: PartModel, order: list[int]) -> PartModel:
    """The same model with its parts in another order."""
    matrix = differences(model.parts, order)
    sets = np.arange(len(model.found))
    moved = sum((sets >> new & 1) << old for new, old in enumerate(order))
    return replace(
        model,
        means=matrix @ model.means,
        covariance=matrix @ model.covariance @ matrix.T,
        appearance_means=model.appearance_means[order],
        appearance_variances=model.appearance_variances[order],
        found=model.found[moved],
    )
