"""AdaBoost of decision stumps (Freund, Schapire, 1995), as Viola and Jones choose features by it (CVPR 2001, table 1).

Every round takes the one feature whose best threshold has the least weighted error, and then weighs up the examples
that it judges wrongly.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64

from bestiary.ops._kernels.threads import in_threads
from bestiary.records import require

EDGES = 255
"""Thresholds that are tried of a feature: between its values' quantiles, so that a value is kept as one byte."""

LEAST_ERROR = 1e-6
"""A stump that is never wrong would have an infinite vote."""


@dataclass(frozen=True)
class Stump:
    """One weak classifier.

    Attributes:
        row: of its feature.
        threshold: between two values of it.
        polarity: 1 where objects have the smaller values, -1 where they have the larger.
        alpha: its vote, log((1 - e) / e).
        error: e, weighted, before its round's weights change.
    """

    row: int
    threshold: float
    polarity: int
    alpha: float
    error: float


class AdaBoost:
    """Boosting over features whose values are known.

    Args:
        values: of every feature and example, the positives first; not kept.
        positives: how many.

    Attributes:
        votes: of every example, the sum of alpha over the stumps that take it for an object.
        reach: sum of all alphas.
        bound: the product of 2 sqrt(e (1 - e)): the share of examples that half of `reach` as threshold judges wrongly
            is never above it (weighed as at the start: both classes alike).

    Raises:
        RecordError: no positive or no negative.
    """

    def __init__(self, values: Float32[np.ndarray, "F N"], positives: int) -> None:
        from bestiary.features._kernels.haar import bin_values

        count = values.shape[1]
        require(0 < positives < count, "AdaBoost(positives)", positives, f"1 to {count - 1}")
        self.positives = positives
        self.edges = np.empty((len(values), EDGES), np.float32)
        self.codes = np.empty(values.shape, np.uint8)
        places = (np.arange(1, EDGES + 1) * count) // (EDGES + 1)
        places = np.clip(places, 1, count - 1)

        def work(start: int, stop: int) -> None:
            ordered = np.sort(values[start:stop], axis=1)
            self.edges[start:stop] = (ordered[:, places - 1] + ordered[:, places]) / 2
            bin_values(values, self.edges, start, stop, self.codes)

        in_threads(work, len(values), torch.get_num_threads(), grain=64)
        self.weights = np.full(count, 0.5 / (count - positives))
        self.weights[:positives] = 0.5 / positives
        self.votes: Float64[np.ndarray, " N"] = np.zeros(count)
        self.reach, self.bound = 0.0, 1.0

    def add(self) -> Stump:
        """The next stump; of equally good ones that of the first feature."""
        from bestiary.features._kernels.haar import best_splits

        total = len(self.codes)
        self.weights /= self.weights.sum()
        signed = self.weights.copy()
        signed[self.positives :] *= -1
        positive = float(self.weights[: self.positives].sum())
        errors = np.empty(total)
        splits, polarities = np.empty(total, np.int32), np.empty(total, np.int32)

        def work(start: int, stop: int) -> None:
            best_splits(self.codes, signed, positive, 1 - positive, start, stop, errors, splits, polarities)

        in_threads(work, total, torch.get_num_threads(), grain=64)
        row = int(errors.argmin())
        error = min(max(float(errors[row]), LEAST_ERROR), 1 - LEAST_ERROR)
        polarity, split = int(polarities[row]), int(splits[row])
        alpha = math.log((1 - error) / error)
        takes = (self.codes[row] <= split) == (polarity > 0)
        right = takes.copy()
        right[self.positives :] = ~takes[self.positives :]
        self.weights[right] *= error / (1 - error)
        self.votes[takes] += alpha
        self.reach += alpha
        self.bound *= 2 * math.sqrt(error * (1 - error))
        return Stump(row, float(self.edges[row, split]), polarity, alpha, float(errors[row]))
