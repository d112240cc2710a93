from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import UsageError
from bestiary.training.sampling import (
    Repeating,
    Sequential,
    Shuffled,
    class_balanced,
    repeat_factor,
    repeat_factors,
)


def test_sequential_is_the_data_sets_order_in_every_epoch() -> None:
    assert Sequential(4).order(0).tolist() == Sequential(4).order(7).tolist() == [0, 1, 2, 3]
    assert len(Sequential(0)) == 0
    assert Sequential(0).order(0).tolist() == []


def test_shuffled_is_a_permutation_of_seed_and_epoch() -> None:
    sampler = Shuffled(100, seed=3)
    assert sorted(sampler.order(0).tolist()) == list(range(100))
    assert sampler.order(5).tolist() == Shuffled(100, seed=3).order(5).tolist()
    assert sampler.order(0).tolist() != sampler.order(1).tolist()
    assert sampler.order(0).tolist() != Shuffled(100, seed=4).order(0).tolist()
    assert len(sampler) == 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_repeating_rounds_each_expectation_up_or_down(expected: list[float], epoch: int) -> None:
    if round(sum(expected)) < 1:
        return
    sampler = Repeating(expected, seed=1)
    order = sampler.order(epoch)
    assert len(order) == len(sampler) == round(sum(expected))
    counts = np.bincount(order, minlength=len(expected))
    assert (counts >= np.floor(sampler.expected - 1e-9)).all()
    assert (counts <= np.ceil(sampler.expected + 1e-9)).all()


def test_repeating_keeps_its_expectations_over_many_epochs() -> None:
    sampler = Repeating([0.25, 1.0, 1.75, 3.0])
    counts = sum(np.bincount(sampler.order(epoch), minlength=4) for epoch in range(2000)) / 2000
    np.testing.assert_allclose(counts, [0.25, 1.0, 1.75, 3.0], atol=0.04)  # 4 standard deviations of a coin's mean


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [float("nan")], [float("inf")], [0.0], []])
def test_repeating_refuses_what_it_cannot_count(bad: list[float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        Repeating(bad)


def test_class_balanced_shows_each_class_equally_often() -> None:
    labels = [0] * 90 + [1] * 9 + [2]
    seen = Counter(labels[i] for i in class_balanced(labels, length=300).order(0))
    assert seen == {0: 100, 1: 100, 2: 100}
    assert len(class_balanced(labels)) == 100


def test_class_balanced_power_goes_from_the_data_to_equality() -> None:
    labels = [0] * 16 + [1] * 4
    assert Counter(class_balanced(labels, power=0.0).order(3)) == dict.fromkeys(range(20), 1)
    root = Counter(labels[i] for i in class_balanced(labels, power=0.5, length=60).order(0))
    assert root == {0: 40, 1: 20}  # 16 ** 0.5 : 4 ** 0.5 = 4 : 2


@pytest.mark.parametrize(("labels", "power"), [([], 1.0), ([0, -1], 1.0), ([0, 1], 1.5), ([0, 1], -0.1)])
def test_class_balanced_names_what_is_wrong(labels: list[int], power: float) -> None:
    with pytest.raises(UsageError, match="class_balanced"):
        class_balanced(labels, power=power)


def naive_repeat_factors(categories: list[list[int]], threshold: float) -> list[float]:
    factors = []
    for found in categories:
        best = 1.0
        for c in found:
            frequency = sum(c in other for other in categories) / len(categories)
            best = max(best, (threshold / frequency) ** 0.5)
        factors.append(best)
    return factors


def test_repeat_factors_by_hand() -> None:
    # category 0 in all four pictures, category 1 in one: sqrt(0.64 / 0.25) = 1.6; the empty picture has 1
    categories = [[0, 0, 0], [0], [0, 1], []]
    assert repeat_factors(categories, 0.64).tolist() == pytest.approx([1, 1, 1.6, 1])
    assert repeat_factors([[], []], 0.5).tolist() == [1, 1]
    assert repeat_factors([[3], [3]], 1.0).tolist() == [1, 1]  # exactly at the threshold


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=20),
    st.floats(1e-3, 1),
)
def test_repeat_factors_equal_the_naive_twin(categories: list[list[int]], threshold: float) -> None:
    np.testing.assert_allclose(repeat_factors(categories, threshold), naive_repeat_factors(categories, threshold))


def test_repeat_factor_shows_every_picture_at_least_once() -> None:
    categories = [[0]] * 50 + [[1]]
    sampler = repeat_factor(categories, threshold=0.5)
    assert len(sampler) == 50 + 6  # sqrt(0.5 * 51) = 5.05, the sum rounded up
    for epoch in range(20):
        counts = np.bincount(sampler.order(epoch), minlength=51)
        assert counts.min() >= 1
        assert counts[50] in (5, 6)
