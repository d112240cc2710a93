"""AdaBoost: the chosen split is the best there is, errors stay below a half, the training error below its bound."""

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.boosting import EDGES, AdaBoost


def examples(features: int = 40, positives: int = 60, negatives: int = 140, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(features, positives + negatives)).astype(np.float32)
    values[: features // 4, :positives] += rng.uniform(-0.8, 0.8, (features // 4, 1)).astype(np.float32)
    return values


def best_by_brute_force(values: np.ndarray, weights: np.ndarray, positives: int) -> float:
    is_positive = np.arange(values.shape[1]) < positives
    least = np.inf
    for row in values:
        for threshold in [-np.inf, *row]:
            wrong = weights[(row <= threshold) != is_positive].sum()
            least = min(least, wrong, weights.sum() - wrong)
    return float(least)


def test_every_round_takes_the_least_error_of_all_stumps() -> None:
    """200 examples have fewer quantiles than there are bins: every threshold is tried."""
    values = examples()
    boosting = AdaBoost(values, 60)
    for _ in range(6):
        weights = boosting.weights / boosting.weights.sum()
        stump = boosting.add()
        assert stump.error == pytest.approx(best_by_brute_force(values, weights, 60), abs=1e-12)
        assert stump.error < 0.5
        takes = (values[stump.row] <= stump.threshold) == (stump.polarity > 0)
        wrong = weights[takes != (np.arange(200) < 60)].sum()
        assert wrong == pytest.approx(stump.error, abs=1e-12)
        assert stump.alpha == pytest.approx(np.log((1 - stump.error) / stump.error))


def test_after_a_round_its_stump_is_no_better_than_chance() -> None:
    boosting = AdaBoost(examples(), 60)
    stump = boosting.add()
    takes = (boosting.codes[stump.row] <= np.searchsorted(boosting.edges[stump.row], stump.threshold)) == (
        stump.polarity > 0
    )
    wrong = takes != (np.arange(200) < 60)
    assert boosting.weights[wrong].sum() / boosting.weights.sum() == pytest.approx(0.5)


def test_the_training_error_stays_below_its_bound() -> None:
    boosting = AdaBoost(examples(), 60)
    start = boosting.weights / boosting.weights.sum()
    for _ in range(25):
        boosting.add()
        wrong = (boosting.votes >= boosting.reach / 2) != (np.arange(200) < 60)
        assert start[wrong].sum() <= boosting.bound + 1e-12
    assert boosting.bound < 0.5


def test_many_examples_are_split_between_quantiles() -> None:
    values = examples(features=3, positives=3000, negatives=2000)
    boosting = AdaBoost(values, 3000)
    counts = np.stack([np.bincount(row, minlength=EDGES + 1) for row in boosting.codes])
    assert counts.min() >= 18
    assert counts.max() <= 21
    for row, codes, edges in zip(values, boosting.codes, boosting.edges, strict=True):
        assert np.array_equal(codes, np.searchsorted(edges, row, side="left"))


def test_a_stump_that_is_never_wrong_has_a_finite_vote() -> None:
    values = np.concatenate([np.zeros((1, 5)), np.ones((1, 5))], axis=1).astype(np.float32)
    boosting = AdaBoost(values, 5)
    first, second = boosting.add(), boosting.add()
    assert first.error == 0
    assert np.isfinite([first.alpha, second.alpha]).all()
    assert (boosting.votes[:5] > boosting.votes[5:]).all()


def test_threads_do_not_change_the_answer() -> None:
    before, values = torch.get_num_threads(), examples(features=700)
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            boosting = AdaBoost(values, 60)
            found.append([boosting.add() for _ in range(3)])
        assert found[0] == found[1]
    finally:
        torch.set_num_threads(before)


def test_both_classes_are_needed() -> None:
    for positives in (0, 200):
        with pytest.raises(RecordError, match="positives"):
            AdaBoost(examples(), positives)
