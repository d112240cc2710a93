"""Precision and recall at any threshold: by hand, against a naive count, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from bestiary.errors import RecordError
from bestiary.metrics.curves import PrecisionRecall, advice


def test_by_hand() -> None:
    curve = PrecisionRecall.of(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]), 3)
    assert curve.precision.tolist() == [1, 0.5, 2 / 3, 0.5]
    assert curve.recall.tolist() == [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    best = curve.best_f1()
    assert best is not None
    assert (best.threshold, best.hits, best.false_alarms, best.missed) == (0.7, 2, 1, 1)
    assert best.f1 == pytest.approx(2 / 3)
    assert curve.f1.max() == pytest.approx(best.f1)


def test_equal_scores_are_one_point() -> None:
    curve = PrecisionRecall.of(np.array([0.5, 0.5, 0.5]), np.array([True, False, True]), 2)
    assert (curve.thresholds.tolist(), curve.hits.tolist(), curve.false_alarms.tolist()) == ([0.5], [2], [1])


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn_and_to_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = np.round(rng.random(300), 2), rng.random(300) < 0.4
    curve = PrecisionRecall.of(scores, right, int(right.sum()))
    precision, recall, thresholds = precision_recall_curve(right, scores)
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
    for threshold in [-1.0, 0.0, 0.3, 0.305, 0.99, 2.0, float(thresholds[3])]:
        point, kept = curve.at(threshold), scores >= threshold
        assert (point.hits, point.false_alarms) == (int((kept & right).sum()), int((kept & ~right).sum()))
        assert point.hits + point.missed == right.sum()


def test_advice_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(9)
    scores = rng.random(200)
    right = rng.random(200) < scores**2
    curve = PrecisionRecall.of(scores, right, int(right.sum()) + 7)
    points = [curve.at(float(t)) for t in scores]
    best, careful, thorough = curve.best_f1(), curve.for_precision(0.8), curve.for_recall(0.5)
    assert best is not None
    assert careful is not None
    assert thorough is not None
    assert best.f1 == max(p.f1 for p in points)
    assert careful.recall == max(p.recall for p in points if p.precision >= 0.8)
    assert thorough.threshold == max(p.threshold for p in points if p.recall >= 0.5)
    assert advice(curve)["best_f1"]["threshold"] == best.threshold
    assert curve.for_recall(0.999) is None


def test_nothing_to_say() -> None:
    empty = PrecisionRecall.of(np.zeros(0), np.zeros(0, bool), 3)
    assert set(advice(empty).values()) == {None}
    point = empty.at(0.5)
    assert math.isnan(point.precision)
    assert (point.recall, point.missed, point.f1) == (0, 3, 0)
    nothing = PrecisionRecall.of(np.array([0.5]), np.array([False]), 0)
    assert nothing.best_f1() is None
    assert nothing.for_precision(0.0) is None
    assert math.isnan(nothing.at(0.9).f1)
    with pytest.raises(RecordError, match="at most 1"):
        PrecisionRecall.of(np.array([0.5, 0.4]), np.array([True, True]), 1)


def test_pooled_is_the_curve_of_all_answers() -> None:
    rng = np.random.default_rng(3)
    scores, right = np.round(rng.random(200), 2), rng.random(200) < 0.5
    parts = [slice(0, 50), slice(50, 50), slice(50, 200)]
    curves = [PrecisionRecall.of(scores[part], right[part], int(right[part].sum()) + 1) for part in parts]
    pooled, whole = PrecisionRecall.pooled(curves), PrecisionRecall.of(scores, right, int(right.sum()) + 3)
    np.testing.assert_array_equal(pooled.thresholds, whole.thresholds)
    np.testing.assert_array_equal(pooled.hits, whole.hits)
    np.testing.assert_array_equal(pooled.false_alarms, whole.false_alarms)
    assert pooled.positives == whole.positives
    assert len(PrecisionRecall.pooled([]).hits) == 0
