import math

import numpy as np
import pytest
from skimage import metrics as foreign

from bestiary.errors import RecordError
from bestiary.metrics.divisions import components, info_scores, overlap_table, rand_scores, thinned


def parts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(np.kron(rng.integers(0, 5, (4, 4)), np.ones((3, 3))).astype(np.int32) for _ in range(2))


@pytest.mark.parametrize("seed", range(8))
def test_rand_equals_skimage(seed: int) -> None:
    truth, said = parts(seed)
    # Zero as a part of its own is the foreign rule, and pairs of two different pixels.
    found = rand_scores(overlap_table(truth, said), self_pairs=False, membrane="part")
    error, precision, recall = foreign.adapted_rand_error(truth, said)
    assert found.f == pytest.approx(1 - error, abs=1e-12)
    assert sorted((found.split, found.merge)) == pytest.approx(sorted((precision, recall)), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_information_equals_skimage(seed: int) -> None:
    truth, said = parts(seed)
    table = overlap_table(truth, said)
    found = info_scores(table, membrane="part")
    split, merge = foreign.variation_of_information(truth, said, ignore_labels=(0,))
    # I = H(T) - H(T|S); from f, split and merge: H(S) = I / split, H(T) = I / merge.
    inside = truth > 0
    shares = np.bincount(truth[inside]) / inside.sum()
    true = -sum(p * math.log2(p) for p in shares if p)
    shared = found.merge * true
    assert shared / found.split + shared / found.merge - 2 * shared == pytest.approx(split + merge, abs=1e-9)
    assert found.f == pytest.approx(2 / (1 / found.split + 1 / found.merge))


def naive(truth: np.ndarray, said: np.ndarray) -> tuple[float, float, float]:
    """All pairs of true pixels, every predicted 0 being a part of its own."""
    inside = np.flatnonzero(truth.ravel() > 0)
    t, s = truth.ravel()[inside], said.ravel()[inside].astype(np.int64)
    s = np.where(s == 0, -np.arange(1, len(s) + 1), s)
    same_t, same_s = t[:, None] == t[None], s[:, None] == s[None]
    both = (same_t & same_s).sum()
    return 2 * both / (same_t.sum() + same_s.sum()), both / same_t.sum(), both / same_s.sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_challenges_rule_equals_all_pairs(seed: int) -> None:
    truth, said = parts(seed)
    found = rand_scores(overlap_table(truth, said))
    assert (found.f, found.split, found.merge) == pytest.approx(naive(truth, said), abs=1e-12)


def test_splits_and_merges_worked_by_hand() -> None:
    one, two = np.array([[1, 1, 1, 1]], np.int32), np.array([[1, 1, 2, 2]], np.int32)
    cut = rand_scores(overlap_table(one, two))
    assert (cut.split, cut.merge, cut.f) == (0.5, 1, pytest.approx(2 / 3))
    joined = rand_scores(overlap_table(two, one))
    assert (joined.split, joined.merge) == (1, 0.5)
    # The truth is one part: nothing is to be known, and what the prediction says is noise.
    assert (info_scores(overlap_table(one, two)).split, info_scores(overlap_table(one, two)).merge) == (0, 1)
    assert info_scores(overlap_table(two, one)).merge == 0
    same = info_scores(overlap_table(two, two))
    assert (same.f, same.split, same.merge) == pytest.approx((1, 1, 1))
    assert info_scores(overlap_table(one, one)).f == 1


def test_numbers_of_parts_do_not_matter() -> None:
    truth, said = parts(1)
    again = np.array([0, 9, 3, 7, 40], np.int32)[said]
    assert rand_scores(overlap_table(truth, said)) == rand_scores(overlap_table(truth, again))


def test_nothing_to_measure_is_nan() -> None:
    nothing = overlap_table(np.zeros((3, 3), np.int32), np.ones((3, 3), np.int32))
    assert math.isnan(rand_scores(nothing).f)
    assert math.isnan(info_scores(nothing).f)
    with pytest.raises(RecordError, match="size"):
        overlap_table(np.zeros((3, 3), np.int32), np.ones((3, 2), np.int32))
    with pytest.raises(RecordError, match="number -1"):
        overlap_table(np.full((3, 3), -1, np.int32), np.ones((3, 3), np.int32))


def test_parts_touch_by_sides_or_by_corners_and_grow_until_they_meet() -> None:
    corner = np.eye(3, dtype=bool)
    assert components(corner, 4).max() == 3
    assert components(corner, 8).max() == 1
    line = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
    assert thinned(line).tolist() == [[1, 1, 1, 2, 2, 2]]
    assert not thinned(np.zeros((2, 2), np.int32)).any()
