"""Sums that do not depend on order."""

import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import UsageError
from bestiary.metrics.averages import Averages, at_least_single, precise, require_same_rules

NUMBERS = st.floats(-1e300, 1e300, allow_nan=False)


def of(numbers: list[float]) -> Averages:
    averages = Averages()
    averages.add({"x": torch.tensor(numbers, dtype=torch.float64)})
    return averages


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=20), st.randoms())
def test_sum_and_mean_are_correctly_rounded_in_any_order_and_sharing(
    numbers: list[float], order: random.Random
) -> None:
    exact = sum((Fraction(x) for x in numbers), Fraction(0))
    whole = of(numbers)
    assert whole.total("x") == float(exact) == math.fsum(numbers)
    assert whole.mean("x") == float(exact / len(numbers))
    shuffled = numbers.copy()
    order.shuffle(shuffled)
    cut = order.randint(0, len(numbers))
    first, second = of(shuffled[:cut]), of(shuffled[cut:])
    first.merge(second)
    assert first.mean("x") == whole.mean("x")
    assert first.count("x") == len(numbers)


def test_the_smallest_and_largest_numbers_are_kept_whole() -> None:
    assert of([1e300, 5e-324, -1e300]).total("x") == 5e-324


def test_nan_counts_nowhere_and_infinity_carries() -> None:
    averages = of([1.0, math.nan, 2.0])
    assert averages.count("x") == 2
    assert averages.mean("x") == 1.5
    assert of([1.0, math.inf]).mean("x") == math.inf
    averages.merge(of([math.inf]))
    assert averages.total("x") == math.inf
    assert math.isnan(of([]).mean("x"))
    assert math.isnan(of([math.nan]).mean("x"))
    assert of([]).total("x") == 0


def test_rules_that_differ_are_named() -> None:
    with pytest.raises(UsageError, match=r"merge\(other\)\.denominator: got 3, wanted 2"):
        require_same_rules(Fraction(1, 2), Fraction(1, 3), ("numerator", "denominator"))


def test_precision() -> None:
    assert precise(torch.tensor([1], dtype=torch.uint8)).dtype == torch.float64
    kept = torch.zeros(1, dtype=torch.float64)
    assert at_least_single(kept) is kept
    assert at_least_single(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
