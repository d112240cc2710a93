"""ROC, its readings, and LFW's ten folds: by hand, by loops, by scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import mannwhitneyu
from sklearn import metrics as sk

from bestiary.errors import DataError, RecordError, UsageError
from bestiary.metrics.lfw_pairs import read_lfw_pairs
from bestiary.metrics.roc import Roc
from bestiary.metrics.verification import VerificationScores, cosine_scores, cross_validated_accuracy


def pairs(count: int, seed: int = 0, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores, rounded to `levels` so that many are equal, and kinds; both kinds occur."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.4
    same[:2] = True, False
    scores = rng.normal(size=count) + 1.2 * same
    return (scores if levels is None else np.round(scores * levels) / levels), same


def of(scores: list[float], same: list[int]) -> Roc:
    return Roc.of(np.array(scores), np.array(same, dtype=bool))


HAND = ([0.9, 0.8, 0.8, 0.6, 0.4, 0.3], [1, 1, 0, 1, 0, 0])
"""Distinct scores 0.9, 0.8, 0.6, 0.4, 0.3: accepted same 1 2 3 3 3, different 0 1 1 2 3."""


def test_a_curve_worked_by_hand() -> None:
    roc = of(*HAND)
    assert roc.tar.tolist() == [0, 1 / 3, 2 / 3, 1, 1, 1]
    assert roc.far.tolist() == [0, 0, 1 / 3, 1 / 3, 2 / 3, 1]
    # of nine comparisons same > different: 0.9 wins 3, 0.8 wins 2 and ties 1, 0.6 wins 2
    assert roc.auc() == 7.5 / 9
    assert roc.at_far(0.34).tar == 1
    assert roc.at_far(0.34).threshold == 0.6
    assert roc.at_far(1 / 3).tar == 1, "a FAR of exactly the asked one is allowed"
    assert math.isnan(roc.at_far(0.33).tar), "three pairs cannot show so low a rate"
    # FAR 1/3 = FRR 1/3 at threshold 0.8
    assert roc.eer().far == pytest.approx(1 / 3)
    assert roc.eer().threshold == 0.8
    threshold, accuracy = roc.best_threshold()
    assert accuracy == 5 / 6
    assert threshold == 0.5, "midway between 0.6 and 0.4"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 80), st.sampled_from([None, 1, 4]))
def test_the_curve_is_sklearns(seed: int, count: int, levels: int | None) -> None:
    scores, same = pairs(count, seed, levels)
    roc = Roc.of(scores, same)
    fpr, tpr, thresholds = sk.roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.far, fpr, atol=1e-12)
    np.testing.assert_allclose(roc.tar, tpr, atol=1e-12)
    assert np.array_equal(roc.thresholds, thresholds[1:])
    assert roc.auc() == pytest.approx(sk.roc_auc_score(same, scores), abs=1e-12)
    u = mannwhitneyu(scores[same], scores[~same]).statistic
    assert roc.auc() == pytest.approx(u / (same.sum() * (~same).sum()), abs=1e-12)
    for far in (0.5, 0.2, 0.1):
        allowed = fpr <= far
        wanted = tpr[allowed].max() if far * (~same).sum() >= 1 else math.nan
        assert roc.at_far(far).tar == pytest.approx(wanted, nan_ok=True)
    if len(np.unique(fpr)) == len(fpr):
        crossing = brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1)
        assert roc.eer().far == pytest.approx(crossing, abs=1e-9)
    best = max(((scores >= t) == same).mean() for t in [*scores, math.inf])
    threshold, accuracy = roc.best_threshold()
    assert accuracy == pytest.approx(best)
    assert ((scores >= threshold) == same).mean() == accuracy


def test_scores_turned_round_swap_the_rates() -> None:
    scores, same = pairs(300, 5, 6)
    roc, turned = Roc.of(scores, same), Roc.of(-scores, ~same)
    assert roc.auc() == pytest.approx(turned.auc(), abs=1e-12)
    assert roc.eer().far == pytest.approx(turned.eer().far, abs=1e-12)


def test_no_threshold_parts_equal_scores() -> None:
    roc = of([1.0] * 20, [1] * 10 + [0] * 10)
    assert roc.auc() == 0.5
    assert roc.eer().far == 0.5
    point = roc.at_far(0.1)
    assert (point.tar, point.far, point.threshold) == (0, 0, math.inf)


def test_perfect_and_missing_pairs() -> None:
    roc = of([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    assert (roc.auc(), roc.eer().far, roc.best_threshold()) == (1, 0, (1.5, 1))
    lonely = of([1.0, 2.0], [1, 1])
    assert math.isnan(lonely.auc())
    assert math.isnan(lonely.eer().far)
    assert math.isnan(lonely.at_far(1.0).tar)
    assert lonely.best_threshold() == (-math.inf, 1), "accept all"
    assert of([1.0, 2.0], [0, 0]).best_threshold() == (math.inf, 1), "accept none"
    assert all(math.isnan(x) for x in of([], []).best_threshold())


def test_a_rate_that_rounds_below_a_whole_number_allows_it() -> None:
    different = 3000
    scores = np.arange(different + 1, dtype=np.float64)[::-1]
    same = np.zeros(different + 1, bool)
    same[3] = True
    assert 0.001 * different == 3.0
    for far, allowed in ((0.001, 3), (1 / 3000, 1), (0.1 * 0.03, 9), (0.7 / 1000, 2)):
        assert Roc.of(scores, same).at_far(far).far == allowed / different
    with pytest.raises(UsageError, match="rate above 0"):
        Roc.of(scores, same).at_far(0)


def test_a_threshold_between_neighbouring_floats_still_parts_them() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2))
    threshold, accuracy = of([high, low], [1, 0]).best_threshold()
    assert accuracy == 1
    assert low < threshold <= high


def test_ten_folds_equal_the_loops_and_never_look_at_their_own() -> None:
    scores, same = pairs(200, 1)
    folds = np.arange(200) % 10
    result = cross_validated_accuracy(scores, same, folds)
    for fold in range(10):
        others, own = folds != fold, folds == fold
        best = max(((scores[others] >= t) == same[others]).sum() for t in scores)
        assert ((scores[others] >= result.thresholds[fold]) == same[others]).sum() == best
        assert result.accuracies[fold] == ((scores[own] >= result.thresholds[fold]) == same[own]).mean()
    assert result.mean == result.accuracies.mean()
    assert result.standard_error == pytest.approx(np.std(result.accuracies, ddof=1) / math.sqrt(10))
    assert result.deviation == pytest.approx(np.std(result.accuracies))
    turned = same.copy()
    turned[folds == 3] = ~turned[folds == 3]
    assert cross_validated_accuracy(scores, turned, folds).thresholds[3] == result.thresholds[3]
    with pytest.raises(UsageError, match="got 1 fold"):
        cross_validated_accuracy(scores, same, np.zeros(200, np.int64))


def test_scores_in_any_sharing() -> None:
    scores, same = pairs(400, 2)
    tensors = torch.from_numpy(scores).float(), torch.from_numpy(same), torch.arange(400) % 10
    whole = VerificationScores()
    whole.update(*tensors)
    computed = whole.compute()
    assert computed.headline == "accuracy"
    single = scores.astype(np.float32)
    wanted = cross_validated_accuracy(single, same, tensors[2].numpy())
    assert computed.value == wanted.mean
    assert computed.values["AUC"] == pytest.approx(sk.roc_auc_score(same, single), abs=1e-12)
    assert computed.values["best_accuracy"] >= computed.value
    assert math.isnan(computed.values["TAR@FAR=0.0001"])
    assert not math.isnan(computed.values["TAR@FAR=0.01"])
    first, second = VerificationScores(), VerificationScores()
    first.update(*(t[:150] for t in tensors))
    second.update(*(t[150:] for t in tensors))
    second.merge(first)
    assert second.compute().to_dict() == computed.to_dict()


def test_bins_are_exact_for_scores_on_their_edges_and_near_otherwise() -> None:
    scores, same = pairs(3000, 3)
    scores = np.clip(scores / 8, -1, 1)
    coarse = np.floor(scores * 64) / 64
    exact, binned = VerificationScores(), VerificationScores(bins=128)
    for accumulator in (exact, binned):
        accumulator.update(torch.from_numpy(coarse), torch.from_numpy(same))
    got, wanted = binned.compute().values, exact.compute().values
    assert got["best_accuracy"] == wanted["best_accuracy"]
    assert got == pytest.approx(wanted, nan_ok=True)
    other = VerificationScores(bins=20000)
    other.update(torch.from_numpy(scores[:1000]), torch.from_numpy(same[:1000]))
    rest = VerificationScores(bins=20000)
    rest.update(torch.from_numpy(scores[1000:]), torch.from_numpy(same[1000:]))
    other.merge(rest)
    assert other.compute().values["AUC"] == pytest.approx(sk.roc_auc_score(same, scores), abs=1e-4)
    assert "128 bins of -1 to 1" in binned.compute().protocol
    edge = VerificationScores(bins=4)
    edge.update(torch.tensor([1.0, -1.0]), torch.tensor([True, False]))
    assert edge.compute().value == 1


def test_nothing_is_nan() -> None:
    for accumulator in (VerificationScores(), VerificationScores(bins=8)):
        assert all(math.isnan(value) for value in accumulator.compute().values.values())


def test_bad_input_is_named() -> None:
    scores = VerificationScores()
    one, yes, fold = torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(RecordError, match="NaN"):
        scores.update(one * math.nan, yes)
    scores.update(one, yes)
    with pytest.raises(UsageError, match="some pairs and not with others"):
        scores.update(one, yes, fold)
    with pytest.raises(UsageError, match="outside 0"):
        VerificationScores().update(one, yes, fold - 1)
    folded = VerificationScores()
    folded.update(one, yes, fold)
    with pytest.raises(UsageError, match="pairs with folds"):
        scores.merge(folded)
    with pytest.raises(UsageError, match="folds with binned"):
        VerificationScores(bins=3).update(one, yes, fold)
    with pytest.raises(RecordError, match=r"got \[2.0\], wanted -1 to 1"):
        VerificationScores(bins=3).update(one + 2, yes)
    with pytest.raises(UsageError, match="fars"):
        VerificationScores(fars=(0.0,))
    with pytest.raises(UsageError, match="bins"):
        VerificationScores(bins=0)
    with pytest.raises(UsageError, match="bins"):
        scores.merge(VerificationScores(bins=4))
    with pytest.raises(RecordError, match="NaN"):
        Roc.of(np.array([math.nan]), np.array([True]))


def test_cosines() -> None:
    first = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[6.0, 8.0], [1.0, 0.0], [-2.0, 0.0]])
    torch.testing.assert_close(cosine_scores(first, second), torch.tensor([1.0, 0.0, -1.0]))
    assert cosine_scores(first.half(), second.half()).dtype == torch.float32


PAIRS = "2\t2\nAnn_Lee\t1\t3\nBo\t2\t10\nAnn_Lee\t1\tBo\t2\nCy\t1\tBo\t1\nA\t1\t2\nB\t1\t2\nA\t1\tB\t1\nB\t3\tA\t4\n"


def test_pairs_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(PAIRS)
    found = read_lfw_pairs(path)
    assert found.first[:2] == ("Ann_Lee/Ann_Lee_0001.jpg", "Bo/Bo_0002.jpg")
    assert found.second[:3] == ("Ann_Lee/Ann_Lee_0003.jpg", "Bo/Bo_0010.jpg", "Bo/Bo_0002.jpg")
    assert found.same.tolist() == [True, True, False, False] * 2
    assert found.folds.tolist() == [0] * 4 + [1] * 4
    path.write_text("1\nA 1 2\nA 1 B 1\n\n")
    assert read_lfw_pairs(path, ".png").second == ("A/A_0002.png", "B/B_0001.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs\.txt:1: got '', wanted the numbers"),
        ("ten 2\n", r":1: got 'ten 2'"),
        ("1 1\nA 1 2\n", "got 1 pairs, wanted 2, 1 same and 1 different pairs in each of 1 folds"),
        ("1 1\nA 1 B 2\nA 1 B 2\n", r":2: got 'A 1 B 2', wanted `name number number`"),
        ("1 1\nA 1 2\nA 1 2\n", r":3: got 'A 1 2', wanted `name number name number`"),
        ("1 1\nA 1 x\nA 1 B 2\n", ":2: got"),
    ],
)
def test_broken_pairs_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_lfw_pairs(path)


def test_a_missing_pairs_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_lfw_pairs(tmp_path / "pairs.txt")
