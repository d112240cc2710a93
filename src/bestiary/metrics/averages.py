"""Sums and means of named numbers, one number a picture, added up as the pictures come.

Sums are exact (every finite float64 is a whole multiple of 2^-1074) and rounded once, when read: a score does not
depend on the order of the pictures nor on how many processes shared them.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bestiary.errors import UsageError

_UNIT = 1074
"""Bits behind the binary point: the smallest positive float64 is 2^-1074."""


class Averages:
    """Exact sum and count of each name; memory is one long integer a name, whatever the number of pictures.

    Convention: NaN is a picture with nothing to measure and counts nowhere; an infinite number makes sum and mean
    infinite; the mean of no number is NaN.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._beyond: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, numbers: Mapping[str, Float[Tensor, " _pictures"]]) -> None:
        """Count one number of each name for every picture."""
        for name, column in numbers.items():
            for number in column.detach().double().cpu().tolist():
                if math.isnan(number):
                    continue
                self._counts[name] = self._counts.get(name, 0) + 1
                if math.isinf(number):
                    self._beyond[name] = self._beyond.get(name, 0.0) + number
                    continue
                numerator, denominator = number.as_integer_ratio()
                shift = _UNIT + 1 - denominator.bit_length()
                self._sums[name] = self._sums.get(name, 0) + (numerator << shift)

    def merge(self, other: "Averages") -> None:
        """Add what another has counted."""
        for name, number in other._sums.items():
            self._sums[name] = self._sums.get(name, 0) + number
        for name, infinity in other._beyond.items():
            self._beyond[name] = self._beyond.get(name, 0.0) + infinity
        for name, count in other._counts.items():
            self._counts[name] = self._counts.get(name, 0) + count

    def count(self, name: str) -> int:
        """How many pictures had a number of this name."""
        return self._counts.get(name, 0)

    def total(self, name: str) -> float:
        """The sum, correctly rounded; 0 of no number."""
        return self._divided(name, 1)

    def mean(self, name: str) -> float:
        """The mean, correctly rounded; NaN of no number."""
        return self._divided(name, self._counts[name]) if name in self._counts else math.nan

    def _divided(self, name: str, count: int) -> float:
        return self._beyond.get(name, 0.0) + self._sums.get(name, 0) / (count << _UNIT)


def require_same_rules(first: object, second: object, names: Sequence[str]) -> None:
    """Raise `UsageError` unless two accumulators that are to be merged agree in all these attributes."""
    for name in names:
        mine, theirs = getattr(first, name), getattr(second, name)
        if mine != theirs:
            raise UsageError(f"got {theirs}, wanted {mine}", where=f"merge(other).{name}")


def precise(tensor: Tensor) -> Float64[Tensor, "..."]:
    """In float64, where scores are taken; on the CPU if the tensor's own device has no such numbers."""
    tensor = tensor.detach()
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def at_least_single(tensor: Tensor) -> Float[Tensor, "..."]:
    """Half precision and integers as float32; float32 and float64 as they are."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
