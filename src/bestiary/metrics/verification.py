"""Are two pictures of the same thing? Area under the ROC, equal error rate, TAR at FAR, and LFW's ten-fold accuracy.

Convention: as in `metrics.roc`: higher scores are liker, and pairs that score at least the threshold are accepted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.metrics.averages import at_least_single, require_same_rules
from bestiary.metrics.roc import Roc
from bestiary.metrics.scores import Scores
from bestiary.records import require

FARS = (1e-1, 1e-2, 1e-3, 1e-4)


def cosine_scores(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Cosine of each pair of embeddings, -1..1; 0 where one of them is zero. Half precision is computed in float32."""
    return torch.nn.functional.cosine_similarity(at_least_single(first), at_least_single(second), dim=1)


@dataclass(frozen=True, eq=False)
class FoldAccuracy:
    """Accuracy of F folds, each judged by a threshold that the others chose.

    Attributes:
        accuracies: one a fold.
        thresholds: what each was judged by.
    """

    accuracies: Float64[np.ndarray, " F"]
    thresholds: Float64[np.ndarray, " F"]

    @property
    def mean(self) -> float:
        """Mean over folds."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """LFW's: sample deviation (F - 1 in the denominator) over the square root of F."""
        return float(self.accuracies.std(ddof=1) / math.sqrt(len(self.accuracies)))

    @property
    def deviation(self) -> float:
        """Deviation with F in the denominator: the "+-" of most papers on faces."""
        return float(self.accuracies.std())


def cross_validated_accuracy(
    scores: Float[np.ndarray, " N"], same: Bool[np.ndarray, " N"], folds: Int64[np.ndarray, " N"]
) -> FoldAccuracy:
    """LFW's accuracy (Huang et al., 2007): every fold is judged by `Roc.best_threshold` of all the others.

    Raises:
        UsageError: less than two folds.
        RecordError: NaN among the scores.
    """
    names = np.unique(folds)
    if len(names) < 2:
        raise UsageError(f"got {len(names)} fold, wanted at least 2", where="folds")
    accuracies, thresholds = [], []
    for fold in names:
        held = folds == fold
        threshold, _ = Roc.of(scores[~held], same[~held]).best_threshold()
        accuracies.append(float(((scores[held] >= threshold) == same[held]).mean()))
        thresholds.append(threshold)
    return FoldAccuracy(np.array(accuracies), np.array(thresholds))


class VerificationScores:
    """ROC numbers of pairs as they come, and the accuracy over folds if pairs come with one.

    Kept: a float32 score, kind and fold, 7 bytes a pair; with `bins`, two histograms, whatever the number of pairs.

    Args:
        fars: rates at which TAR is told.
        bins: count scores in so many equal bins of `score_range` instead: scores of a bin then count as equal.
        score_range: lowest and highest score; used with `bins` only.

    Raises:
        UsageError: a rate outside 0..1, or no bin.
    """

    def __init__(
        self,
        fars: Sequence[int | float] = FARS,
        bins: int | None = None,
        score_range: tuple[int | float, int | float] = (-1.0, 1.0),
    ) -> None:
        if not all(0 < far <= 1 for far in fars):
            raise UsageError(f"got {list(fars)}, wanted rates above 0 and at most 1", where="fars")
        if bins is not None and (bins < 1 or not score_range[0] < score_range[1]):
            raise UsageError(f"got {bins} bins of {score_range}, wanted at least 1 of a range", where="bins")
        self.fars, self.bins, self.score_range = tuple(fars), bins, score_range
        self._scores: list[np.ndarray] = []
        self._same: list[np.ndarray] = []
        self._folds: list[np.ndarray] = []
        self._counts: Int64[np.ndarray, "2 K"] = np.zeros((2, bins or 0), np.int64)

    def update(
        self, scores: Float[Tensor, " N"], same: Bool[Tensor, " N"], folds: Int64[Tensor, " N"] | None = None
    ) -> None:
        """Count N pairs.

        Raises:
            RecordError: NaN among the scores, or one outside `score_range` where they are binned.
            UsageError: folds with binned scores, a fold outside 0..32767, or folds with some pairs and not with others.
        """
        values = at_least_single(scores.detach()).cpu().numpy()
        kinds = same.cpu().numpy()
        require(not bool(np.isnan(values).any()), "update(scores)", "NaN", "numbers")
        if self.bins is not None:
            if folds is not None:
                raise UsageError("got folds with binned scores, wanted one or the other", where="update(folds)")
            self._count(values.astype(np.float64), kinds, self.bins)
            return
        if self._scores and bool(self._folds) != (folds is not None):
            raise UsageError("got folds with some pairs and not with others", where="update(folds)")
        if folds is not None:
            numbers = folds.cpu().numpy()
            if ((numbers < 0) | (numbers > 32767)).any():
                raise UsageError("got a fold outside 0..32767, wanted running numbers", where="update(folds)")
            self._folds.append(numbers.astype(np.int16))
        self._scores.append(values.astype(np.float32))
        self._same.append(kinds)

    def _count(self, scores: Float64[np.ndarray, " N"], same: Bool[np.ndarray, " N"], bins: int) -> None:
        low, high = self.score_range
        outside = scores[(scores < low) | (scores > high)]
        require(not outside.size, "update(scores)", outside[:1].tolist(), f"{low:g} to {high:g}, the binned range")
        number = np.minimum(((scores - low) / (high - low) * bins).astype(np.int64), bins - 1)
        for kind in (0, 1):
            self._counts[kind] += np.bincount(number[same == bool(kind)], minlength=bins)

    def merge(self, other: "VerificationScores") -> None:
        """Add what another accumulator of the same rates and bins has counted.

        Raises:
            UsageError: they differ, or one has folds and the other has not.
        """
        require_same_rules(self, other, ("fars", "bins", "score_range"))
        if self._scores and other._scores and bool(self._folds) != bool(other._folds):
            raise UsageError("got pairs with folds and pairs without", where="merge(other)")
        self._scores += other._scores
        self._same += other._same
        self._folds += other._folds
        self._counts += other._counts

    def roc(self) -> Roc:
        """The curve of all pairs so far."""
        if self.bins is None:
            scores = np.concatenate([np.zeros(0, np.float32), *self._scores])
            return Roc.of(scores, np.concatenate([np.zeros(0, bool), *self._same]))
        low, high = self.score_range
        filled = np.flatnonzero(self._counts.sum(0))[::-1]
        accepts = np.cumsum(self._counts[:, filled], axis=1)
        edges = low + (high - low) * filled / self.bins
        return Roc(edges, accepts[1], accepts[0], int(self._counts[1].sum()), int(self._counts[0].sum()))

    def compute(self) -> Scores:
        """AUC (leading where there are no folds), EER, TAR at each FAR, the best accuracy of any one threshold, and
        with folds the cross-validated accuracy (leading then)."""
        roc = self.roc()
        eer, (threshold, best) = roc.eer(), roc.best_threshold()
        points = {f"TAR@FAR={far:g}": roc.at_far(far) for far in self.fars}
        values = {"AUC": roc.auc(), "EER": eer.far, **{name: point.tar for name, point in points.items()}}
        values["best_accuracy"] = best
        thresholds = {"EER": eer.threshold, "best_accuracy": threshold}
        thresholds |= {name: point.threshold for name, point in points.items()}
        protocol = f"{roc.same} same and {roc.different} different pairs; accepted at or above the threshold; "
        protocol += "TAR at the lowest threshold whose FAR is not above, not interpolated; best accuracy: threshold "
        protocol += "chosen on these very pairs"
        if self.bins is not None:
            protocol += f"; scores in {self.bins} bins of {self.score_range[0]:g} to {self.score_range[1]:g}"
        headline, details = "AUC", dict[str, Any](thresholds=thresholds)
        if self._folds:
            folds = np.concatenate(self._folds).astype(np.int64)
            fold = cross_validated_accuracy(np.concatenate(self._scores), np.concatenate(self._same), folds)
            values = {"accuracy": fold.mean, "accuracy_standard_error": fold.standard_error, **values}
            headline, details["folds"] = "accuracy", {"accuracy": fold.accuracies, "threshold": fold.thresholds}
            protocol += f"; accuracy over {len(fold.accuracies)} folds, each threshold chosen on the other folds"
        return Scores(headline, values, protocol, details=details)
