"""Maps fitted to pairs of which some are wrong: random sample consensus (Fischler and Bolles, CACM 1981)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.fitting import fit_affine, fit_homography, fit_similarity, transfer_errors
from bestiary.records import require

_AT_ONCE = 64
"""Samples fitted and judged together."""

_PAIRS_AT_ONCE = 1 << 22
"""Judged pairs held at a time: 32 MB of distances."""


@dataclass(frozen=True)
class Model:
    """A kind of map.

    Attributes:
        sample_size: pairs that determine it.
        fit: points and targets `[*B N D]` to matrices.
        errors: matrices, points, targets to distances `[*B N]`.
    """

    sample_size: int
    fit: Callable[[Tensor, Tensor], Tensor]
    errors: Callable[[Tensor, Tensor, Tensor], Tensor] = transfer_errors


MODELS = {
    "similarity": Model(2, fit_similarity),
    "affine": Model(3, fit_affine),
    "homography": Model(4, fit_homography),
}
"""Maps of the plane by name."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """What most pairs agree on.

    Attributes:
        matrix: the map, fitted to all inliers.
        inliers: pairs that it takes to within the threshold.
        trials: samples that were drawn.
    """

    matrix: Float[Tensor, "_r _c"]
    inliers: Bool[Tensor, " N"]
    trials: int


def ransac_trials(confidence: float, inlier_share: float | int, sample_size: int) -> float:
    """Samples after which one without outliers was drawn with this confidence: `log(1 - p) / log(1 - w^s)`, rounded up.

    Args:
        confidence: p, above 0 and below 1.
        inlier_share: w, 0..1.
        sample_size: s.

    Returns:
        A whole number of at least 1, infinite if nothing is an inlier.
    """
    require(0 < confidence < 1, "confidence", confidence, "above 0 and below 1")
    good = float(inlier_share) ** sample_size
    if good <= 0:
        return math.inf
    return 1.0 if good >= 1 else float(max(1, math.ceil(math.log1p(-confidence) / math.log1p(-good))))


def ransac(
    points: Float[Tensor, "N D"],
    targets: Float[Tensor, "N D"],
    model: str | Model = "homography",
    threshold: float | int = 3.0,
    confidence: float = 0.99,
    max_trials: int = 10_000,
    seed: int = 0,
) -> Consensus:
    """The map that takes most points to within `threshold` of their targets, refitted to those.

    Samples are drawn until, at the share of inliers found so far, one of them was free of outliers with the given
    confidence. Among maps with equally many inliers the one with the smaller sum of distances wins. The map is then
    fitted to its inliers again and again while their number grows (Chum et al., 2003). The same seed gives the same
    answer.

    Args:
        points: at least as many as the model needs.
        targets: their partners.
        model: "similarity" (2 pairs), "affine" (3), "homography" (4), or a `Model` of your own.
        threshold: largest distance of an inlier, in the targets' unit; exactly at it is inside.
        confidence: that some sample was free of outliers.
        max_trials: samples that are drawn at most.
        seed: of the samples.

    Raises:
        UsageError: no such model.
        RecordError: shapes do not fit, too few pairs, or a number out of range.
    """
    kind = _model(model)
    count, size = len(points), kind.sample_size
    fits = points.shape == targets.shape
    require(fits, "ransac(targets)", f"shape {tuple(targets.shape)}", f"{tuple(points.shape)}, as the points")
    require(count >= size, "ransac(points)", f"{count} pairs", f"at least {size}")
    require(threshold >= 0, "ransac(threshold)", threshold, "0 or more")
    require(max_trials >= 1, "ransac(max_trials)", max_trials, "at least 1")
    generator = torch.Generator().manual_seed(seed)
    block = max(1, min(_AT_ONCE, _PAIRS_AT_ONCE // count))

    def best_of_block(drawn: int) -> tuple[int, float, Tensor]:
        samples = torch.rand(drawn, count, generator=generator).topk(size, dim=1).indices.to(points.device)
        return _best_of(kind, kind.fit(points[samples], targets[samples]), points, targets, float(threshold))

    trials = min(block, max_trials)
    best = best_of_block(trials)
    while trials < min(max_trials, ransac_trials(confidence, best[0] / count, size)):
        drawn = min(block, max_trials - trials)
        best = max(best, best_of_block(drawn), key=lambda found: found[:2])
        trials += drawn
    return _refined(kind, best, points, targets, float(threshold), trials)


def _model(model: str | Model) -> Model:
    if isinstance(model, Model):
        return model
    if model not in MODELS:
        raise UsageError(f"got {model!r}, wanted one of {', '.join(MODELS)}", where="ransac(model)")
    return MODELS[model]


def _best_of(
    kind: Model, matrices: Tensor, points: Tensor, targets: Tensor, threshold: float
) -> tuple[int, float, Tensor]:
    """Inliers, minus their sum of distances, and the matrix, of the best among several."""
    errors = kind.errors(matrices, points.expand(len(matrices), -1, -1), targets.expand(len(matrices), -1, -1))
    inside = errors <= threshold
    counts, sums = inside.sum(-1), torch.where(inside, errors, 0).sum(-1)
    most = counts == counts.max()
    winner = int(torch.where(most, sums, torch.inf).argmin())
    return int(counts[winner]), -float(sums[winner]), matrices[winner]


def _refined(
    kind: Model, best: tuple[int, float, Tensor], points: Tensor, targets: Tensor, threshold: float, trials: int
) -> Consensus:
    while best[0] >= kind.sample_size:
        inside = kind.errors(best[2], points, targets) <= threshold
        refit = _best_of(kind, kind.fit(points[inside], targets[inside])[None], points, targets, threshold)
        if refit[:2] <= best[:2]:
            # The least squares of the last inliers, if it keeps them all: it is the better estimate.
            best = refit if refit[0] == best[0] else best
            break
        best = refit
    return Consensus(best[2], kind.errors(best[2], points, targets) <= threshold, trials)
