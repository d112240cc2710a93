"""A constellation of parts learned from pictures by expectation maximisation (`bestiary.features.constellation`)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from bestiary.features.constellation import (
    Background,
    Explanation,
    Matrix,
    PartModel,
    Vector,
    Views,
    differences,
    explain,
    log_density,
    reordered,
)
from bestiary.records import require

APPEARANCE_FLOOR = 0.05
"""Variances of a part's appearance are at least this share of the background's."""

LOG_RADIUS_FLOOR = 0.1
"""Standard deviations of log radii are at least this."""

CLUTTER_FLOOR = 0.5
"""Regions of clutter are at least this many."""

PRIOR_COUNT = 1.0
"""Pictures in which every set of found parts is thought to have been seen equally often: no set is impossible."""

SHORT_RUN = 8
"""Steps after which the starts are compared."""


def improved(
    model: PartModel, background: Background, views: Views, explanation: Explanation, position_floor: float
) -> PartModel:
    """The maximisation step: the parameters under which the explained pictures are likeliest.

    Variances have floors; the best covariance under a floor has the eigenvalues of the unbounded one, raised to it, so
    that the likelihood still cannot fall.

    Args:
        model: gave the explanation.
        background: for the floors of appearance variances.
        views: the pictures.
        explanation: of them, by the model.
        position_floor: least standard deviation of positions, in their unit.
    """
    sums, pictures = explanation.sums, len(views)
    moments = sums.moments.sum(0)
    counts = moments[:, 0, 0]
    sets = np.arange(len(counts))
    found = (counts + PRIOR_COUNT / len(sets)) / (counts.sum() + PRIOR_COUNT)
    expected = sum(float(counts[sets >> p & 1 == 1].sum()) for p in range(model.parts))
    clutter = max((len(views.places) - expected) / pictures, CLUTTER_FLOOR)
    weights = sums.owners.sum(1)[:, None]
    held = weights > 1e-9  # a part that is never found stays what it was
    safe = np.where(held, weights, 1.0)
    means = np.where(held, sums.owners @ views.appearances / safe, model.appearance_means)
    gaps = views.appearances[None] - means[:, None]
    spread = np.einsum("pt,pta->pa", sums.owners, gaps * gaps) / safe
    variances = np.where(held, spread, model.appearance_variances)
    variances = np.maximum(variances, APPEARANCE_FLOOR * background.variances)
    place, covariance = _improved_places(model, moments, position_floor)
    return PartModel(place, covariance, means, variances, found, clutter)


def _improved_places(
    model: PartModel, moments: Float64[np.ndarray, "M Q Q"], position_floor: float
) -> tuple[Vector, Matrix]:
    """Mean and covariance from the expected moments; parts that were not found are filled in by the present model."""
    parts, size = model.parts, len(model.means)
    total, shift, square = 0.0, np.zeros(size), np.zeros((size, size))
    for mask in range(len(moments)):
        found = [p for p in range(parts) if mask >> p & 1]
        weight = moments[mask, 0, 0]
        if len(found) < 2 or weight <= 0:
            continue  # says nothing of places
        matrix = differences(parts, found)
        mean, covariance = matrix @ model.means, matrix @ model.covariance @ matrix.T
        rows = [1 + 3 * p + a for p in found[1:] for a in range(3)]
        first = moments[mask, rows, 0]
        lower = np.tril(moments[mask][np.ix_(rows, rows)])
        second = lower + lower.T - np.diag(np.diag(lower))
        gap = first - weight * mean
        gaps = second - np.outer(first, mean) - np.outer(mean, first) + weight * np.outer(mean, mean)
        gain = np.linalg.solve(covariance, matrix @ model.covariance).T
        shift += gain @ gap
        square += gain @ gaps @ gain.T + weight * (model.covariance - gain @ covariance @ gain.T)
        total += weight
    if total < 1e-9:
        return model.means, model.covariance
    step = shift / total
    return model.means + step, _floored(square / total - np.outer(step, step), position_floor)


def _floored(covariance: Matrix, position_floor: float) -> Matrix:
    """Positions and log radii made independent, and each's eigenvalues raised to its floor."""
    out = np.zeros_like(covariance)
    is_radius = np.arange(len(covariance)) % 3 == 2
    for kind, floor in ((~is_radius, position_floor), (is_radius, LOG_RADIUS_FLOOR)):
        block = covariance[np.ix_(kind, kind)]
        values, vectors = np.linalg.eigh(0.5 * (block + block.T))
        out[np.ix_(kind, kind)] = (vectors * np.maximum(values, floor * floor)) @ vectors.T
    return out


@dataclass(frozen=True)
class LearnSettings:
    """How one class is learned.

    Attributes:
        parts: P, at least 2.
        is_scaled: whether places are measured in units of the first found part's radius.
        restarts: constellations of random regions that learning starts from; the best after a few steps goes on.
        swaps: times that a part of it is replaced by a random region, which stays if that is better; every second time
            it is the weakest part.
        steps: of expectation maximisation at most.
        gain: learning ends when the log likelihood of a picture rises by less than this.
    """

    parts: int = 4
    is_scaled: bool = True
    restarts: int = 12
    swaps: int = 96
    steps: int = 60
    gain: float = 0.001

    @property
    def position_floor(self) -> float:
        """Least standard deviation of positions: a quarter of a radius, or one pixel."""
        return 0.25 if self.is_scaled else 1.0


def learn(
    views: Views,
    background: Background,
    settings: LearnSettings,
    rng: np.random.Generator,
    told: Callable[[float], None] = lambda _: None,
) -> PartModel:
    """The constellation of a class, from pictures that hold it and clutter.

    Args:
        views: at least one picture that has as many regions as there are parts.
        background: clutter.
        settings: see there.
        rng: picks the constellations to start from.
        told: the objective after each step of the run that is kept: log likelihood ratio and log prior.

    Raises:
        RecordError: no picture has regions enough.
    """
    enough = np.flatnonzero(np.diff(views.starts) >= settings.parts)
    require(len(enough) > 0, "learn(views)", "too few regions in every picture", f"{settings.parts} or more in one")
    few = views.picked(np.sort(rng.permutation(len(views))[:20]))
    starts = [_start(views, int(rng.choice(enough)), background, settings, rng) for _ in range(settings.restarts)]
    runs = [_climb(start, few, background, settings, SHORT_RUN)[:2] for start in starts]
    model, height = max(runs, key=lambda run: run[1])
    weakest = _weakest(model, few, background, settings)
    for turn in range(settings.swaps):
        gone = weakest if turn % 2 else int(rng.integers(model.parts))
        other = _swapped(model, gone, few, background, settings, rng)
        if other is None:
            continue
        tried, reached, _ = _climb(other, few, background, settings, SHORT_RUN)
        if reached > height:
            model, height = tried, reached
            weakest = _weakest(model, few, background, settings)
    model, _, history = _climb(model, views, background, settings, settings.steps)
    for value in history:
        told(value)
    return model


def objective(model: PartModel, explanation: Explanation) -> float:
    """What learning raises: log likelihood ratio of all pictures, and the log prior of the table of found parts."""
    return float(explanation.log_ratios.sum() + PRIOR_COUNT * np.log(model.found).mean())


def _climb(
    model: PartModel, views: Views, background: Background, settings: LearnSettings, steps: int
) -> tuple[PartModel, float, list[float]]:
    history: list[float] = []
    explanation = explain(model, background, views, settings.is_scaled)
    for _ in range(steps):
        model = improved(model, background, views, explanation, settings.position_floor)
        explanation = explain(model, background, views, settings.is_scaled)
        history.append(objective(model, explanation))
        if len(history) > 1 and history[-1] - history[-2] < settings.gain * len(views):
            break
    return model, history[-1], history


def _start(
    views: Views, picture: int, background: Background, settings: LearnSettings, rng: np.random.Generator
) -> PartModel:
    """Regions of one picture as parts, each found four times of five, with broad places and appearances.

    They are a random choice of the 2 P regions that, as models of a single part, the other pictures bear out best.
    """
    parts, first, last = settings.parts, views.starts[picture], views.starts[picture + 1]
    variances = np.repeat(0.5 * background.variances[None], parts, 0)
    borne_out = _recurrence(views.appearances[first:last], views, background, variances[:1])
    common = np.argsort(-borne_out, kind="stable")[: 2 * parts]
    chosen = first + rng.permutation(common)[:parts]
    origin = views.places[chosen[0]]
    relative = views.places[chosen[1:]] - origin
    unit = math.exp(-origin[2]) if settings.is_scaled else 1.0
    relative[:, :2] *= unit
    covariance = np.kron(np.eye(parts - 1), _broad(views.places[first:last], origin, unit, settings))
    sets = np.arange(1 << parts)
    here = np.array([bin(int(s)).count("1") for s in sets])
    clutter = max(background.count - 0.8 * parts, CLUTTER_FLOOR)
    found = 0.8**here * 0.2 ** (parts - here)
    return PartModel(relative.reshape(-1), covariance, views.appearances[chosen], variances, found, clutter)


def _weakest(model: PartModel, views: Views, background: Background, settings: LearnSettings) -> int:
    """The part without which the pictures are the least less likely."""
    sets, losses = np.arange(len(model.found)), []
    for p in range(model.parts):
        has = sets >> p & 1 == 1
        found = np.where(has, 1e-12, 0.0)
        np.add.at(found, sets & ~(1 << p), model.found)
        without = explain(replace(model, found=found), background, views, settings.is_scaled, tolerance=1e-3)
        losses.append(-float(without.log_ratios.sum()))
    return int(np.argmin(losses))


def _swapped(
    model: PartModel,
    gone: int,
    views: Views,
    background: Background,
    settings: LearnSettings,
    rng: np.random.Generator,
) -> PartModel | None:
    """The model with part `gone` forgotten, and a region that was no part, of a random picture, in its place.

    Starts hold regions of clutter, or two of one part, and expectation maximisation alone does not get rid of them.
    None where no picture offers such a region.
    """
    model = reordered(model, [*(p for p in range(model.parts) if p != gone), gone])
    best = explain(model, background, views, settings.is_scaled, tolerance=0.0).best
    free = np.flatnonzero((best[:, 0] >= 0) & (np.diff(views.starts) > (best >= 0).sum(1)))
    if not len(free):
        return None
    picture = int(rng.choice(free))
    first, last = views.starts[picture], views.starts[picture + 1]
    others = np.setdiff1d(np.arange(last - first), best[picture, :-1])
    variances = 0.5 * background.variances
    borne_out = _recurrence(views.appearances[first + others], views, background, variances[None])
    region = first + others[rng.choice(np.argsort(-borne_out, kind="stable")[: 2 * model.parts])]
    origin, here = views.places[first + best[picture, 0]], views.places[first:last]
    unit = math.exp(-origin[2]) if settings.is_scaled else 1.0
    means, covariance = model.means.copy(), model.covariance.copy()
    means[-3:] = (views.places[region] - origin) * (unit, unit, 1.0)
    covariance[-3:], covariance[:, -3:] = 0.0, 0.0
    covariance[-3:, -3:] = _broad(here, origin, unit, settings)
    appearances, spread = model.appearance_means.copy(), model.appearance_variances.copy()
    appearances[-1], spread[-1] = views.appearances[region], variances
    without = model.found.reshape(2, -1).sum(0)
    found = np.concatenate([0.2 * without, 0.8 * without])
    return PartModel(means, covariance, appearances, spread, found, model.clutter)


def _broad(
    here: Float64[np.ndarray, "N 3"], origin: Float64[np.ndarray, " 3"], unit: float, settings: LearnSettings
) -> Float64[np.ndarray, "3 3"]:
    """Covariance of a part that may be almost anywhere: a quarter of how far the picture's regions lie."""
    reach = 0.25 * unit * float(np.sqrt(((here[:, :2] - origin[:2]) ** 2).mean()))
    deviation = max(reach, settings.position_floor)
    return np.diag([deviation**2, deviation**2, 0.3**2])


def _recurrence(
    appearances: Float64[np.ndarray, "N A"],
    views: Views,
    background: Background,
    variances: Float64[np.ndarray, "1 A"],
) -> Float64[np.ndarray, " N"]:
    """Log likelihood ratio of the pictures under each appearance as the only part."""
    clutter = log_density(views.appearances, background.means[None], background.variances[None])
    looks = log_density(views.appearances, appearances, np.repeat(variances, len(appearances), 0)) - clutter
    ratios = np.exp(np.minimum(looks, 700.0)) / background.count
    sums = np.add.reduceat(np.concatenate([ratios, np.zeros((len(ratios), 1))], 1), views.starts[:-1], axis=1)
    sums[:, np.diff(views.starts) == 0] = 0
    return np.log(0.2 + 0.8 * sums).sum(1)
