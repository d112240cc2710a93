"""In which order the pictures of an epoch come: pure functions of (seed, epoch).

A sampler knows nothing of processes: its order is the same on every rank, and the loader deals it out. Because an
order can be computed again at any time, the position of a run is (epoch, batch) and nothing else has to be saved.

Samplers that repeat pictures draw *systematically*, not independently: a picture expected 2.3 times comes twice or
three times, never five times. Expectations are exact, the length of an epoch is the same every time, and a rare class
is never left out by luck.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from bestiary.errors import UsageError

Order = Int64[np.ndarray, " n"]
"""Indices into the data set, in the order in which they are seen; an index may come more than once."""


@runtime_checkable
class Sampler(Protocol):
    """Says which pictures an epoch holds and in which order."""

    def __len__(self) -> int:
        """Pictures in an epoch, the same for each."""
        ...

    def order(self, epoch: int) -> Order:
        """The pictures of `epoch` (from 0)."""
        ...


class Sequential:
    """Every picture once, as the data set has them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def order(self, epoch: int) -> Order:
        """0, 1, 2 ... whatever the epoch."""
        return np.arange(self.count, dtype=np.int64)


class Shuffled:
    """Every picture once, in a new order each epoch."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def order(self, epoch: int) -> Order:
        """A permutation that (seed, epoch) determines."""
        return _generator(self.seed, epoch).permutation(self.count)


class Repeating:
    """Each picture a given number of times on average; fractions are rounded up or down anew each epoch.

    Args:
        expected: how often each picture comes in an epoch, on average; its sum, rounded to the nearest whole number
            (the numbers are scaled by that little), is the length of an epoch.
        seed: determines, with the epoch, the rounding and the order.

    Raises:
        UsageError: a number is negative or not finite, or the epoch would be empty.
    """

    def __init__(self, expected: Sequence[float] | Float64[np.ndarray, " n"], seed: int = 0) -> None:
        numbers = np.asarray(expected, dtype=np.float64)
        if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers < 0).any():
            raise UsageError(
                "got a negative or infinite number of repeats, wanted finite ones", where="Repeating.expected"
            )
        self.length = round(float(numbers.sum()))
        if self.length < 1:
            raise UsageError(f"got {numbers.sum():g} pictures an epoch, wanted at least 1", where="Repeating.expected")
        self.expected, self.seed = numbers * (self.length / numbers.sum()), seed

    def __len__(self) -> int:
        return self.length

    def order(self, epoch: int) -> Order:
        """Pictures of one epoch: systematic sampling along a random arrangement of the pictures, then shuffled."""
        rng = _generator(self.seed, epoch)
        arrangement = rng.permutation(len(self.expected))
        edges = np.floor(np.cumsum(self.expected[arrangement]) + rng.random()).astype(np.int64)
        edges[-1] = self.length  # the sum is whole, but for rounding
        counts = np.diff(np.minimum(edges, self.length), prepend=0)
        return rng.permutation(np.repeat(arrangement, counts))


def class_balanced(labels: Sequence[int], seed: int = 0, power: float = 1.0, length: int | None = None) -> Repeating:
    """For classification: every class as often as every other, however many pictures it has.

    A picture of class c is drawn in proportion to `n_c ** -power`, where n_c is the number of pictures of its class:
    1 is inverse frequency (all classes equal), 0.5 the square root between the two, 0 the data as they are.

    Args:
        labels: class of each picture.
        seed: see `Repeating`.
        power: how far to balance, 0..1.
        length: pictures an epoch; as many as there are if not given.

    Raises:
        UsageError: no labels, a negative label, or `power` outside 0..1.
    """
    array = np.asarray(labels, dtype=np.int64)
    if not len(array) or array.min() < 0:
        got = "none" if not len(array) else f"label {array.min()}"
        raise UsageError(f"got {got}, wanted a label from 0 for every picture", where="class_balanced(labels)")
    if not 0 <= power <= 1:
        raise UsageError(f"got {power}, wanted 0..1", where="class_balanced(power)")
    weights = np.bincount(array)[array].astype(np.float64) ** -power
    return Repeating(weights * ((length or len(array)) / weights.sum()), seed)


def repeat_factors(categories: Sequence[Collection[int]], threshold: float = 1e-3) -> Float64[np.ndarray, " n"]:
    """How often each picture should come, from the rarest category in it (Gupta et al., LVIS, CVPR 2019, appendix).

    With f_c the fraction of pictures that hold category c, `r_c = max(1, sqrt(threshold / f_c))`, and a picture's
    factor is the largest r_c of the categories in it; 1 for a picture without objects.

    Args:
        categories: labels of the objects of each picture; repetitions within a picture do not count.
        threshold: fraction of pictures below which a category is oversampled.
    """
    sets = [set(found) for found in categories]
    flat = np.array([c for found in sets for c in found], dtype=np.int64)
    if not len(flat):
        return np.ones(len(sets))
    frequency = np.bincount(flat) / len(sets)
    with np.errstate(divide="ignore"):
        by_category = np.maximum(1.0, np.sqrt(threshold / frequency))
    return np.array([max((by_category[c] for c in found), default=1.0) for found in sets])


def repeat_factor(categories: Sequence[Collection[int]], seed: int = 0, threshold: float = 1e-3) -> Repeating:
    """For detection: pictures with rare categories come more often; see `repeat_factors`. Every picture comes at
    least once.
    """
    factors = repeat_factors(categories, threshold)
    total = float(factors.sum())
    return Repeating(factors * (np.ceil(total - 1e-9) / total), seed)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])
