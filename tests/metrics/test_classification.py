"""Classification scores: equal to scikit-learn, to hand-worked cases, and honest about ties."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.classification import (
    ClassificationScores,
    calibration_error,
    confusion_matrix,
    per_class_numbers,
    ranks_of_truth,
    topk_accuracy,
)
from bestiary.predictions import Classification
from bestiary.records import Target


def random_answers(seed: int, count: int = 200, categories: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, categories - 1, (count,), generator=generator)  # the last never occurs
    logits = torch.randn(count, categories, generator=generator)
    logits[torch.arange(count), labels] += 1.0
    return logits.softmax(1), labels


def scored(probs: torch.Tensor, labels: torch.Tensor, topk: tuple[int, ...] = (1, 5)) -> ClassificationScores:
    scores = ClassificationScores([f"c{k}" for k in range(probs.shape[1])], topk)
    scores.update([Classification(p, (4, 4)) for p in probs], [Target(label=int(k)) for k in labels])
    return scores


def test_equal_to_scikit_learn() -> None:
    probs, labels = random_answers(0)
    said = probs.argmax(1).numpy()
    result = scored(probs, labels).compute()
    truth, k = labels.numpy(), np.arange(7)
    assert result.value == pytest.approx(oracle.accuracy_score(truth, said), abs=1e-12)
    assert result.values["top5"] == pytest.approx(
        oracle.top_k_accuracy_score(truth, probs.numpy(), k=5, labels=k), abs=1e-12
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = oracle.balanced_accuracy_score(truth, said)
        precision, recall, f1, support = oracle.precision_recall_fscore_support(
            truth, said, labels=k, zero_division=np.nan
        )
    assert result.values["mean_recall"] == pytest.approx(balanced, abs=1e-12)
    doubles = probs.double().numpy()
    loss = oracle.log_loss(truth, doubles / doubles.sum(1, keepdims=True), labels=k)
    assert result.values["log_loss"] == pytest.approx(loss, abs=1e-6)
    np.testing.assert_array_equal(result.details["confusion"], oracle.confusion_matrix(truth, said, labels=k))
    for i in range(7):
        row = result.per_class[f"c{i}"]
        assert row["count"] == support[i]
        assert row["precision"] == pytest.approx(precision[i], abs=1e-12, nan_ok=True)
        assert row["recall"] == pytest.approx(recall[i], abs=1e-12, nan_ok=True)
        if support[i]:
            assert row["f1"] == pytest.approx(f1[i], abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_topk_equals_scikit_learn(k: int) -> None:
    probs, labels = random_answers(k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = oracle.top_k_accuracy_score(labels.numpy(), probs.numpy(), k=k, labels=np.arange(7))
    assert topk_accuracy(probs, labels, k) == pytest.approx(wanted, abs=1e-12)


def test_saying_the_same_of_everything_is_not_right() -> None:
    probs, labels = torch.full((10, 10), 0.1), torch.arange(10)
    assert topk_accuracy(probs, labels, 1) == 0.1
    assert topk_accuracy(probs, labels, 5) == 0.5
    result = scored(probs, labels).compute()
    assert (result.value, result.values["top5"]) == (0.1, 0.5)


def test_ties_rank_by_index_as_the_label_does() -> None:
    probs = torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4]])
    assert ranks_of_truth(probs, torch.tensor([1, 1, 2])).tolist() == [1, 0, 1]
    for row in probs:
        label = Classification(row, (1, 1)).label
        assert ranks_of_truth(row[None], torch.tensor([label])).item() == 0


def test_ranks_equal_a_naive_twin() -> None:
    generator = torch.Generator().manual_seed(5)
    probs = torch.randint(0, 4, (60, 6), generator=generator).float() / 4
    labels = torch.randint(0, 6, (60,), generator=generator)
    naive = [
        sorted(range(6), key=lambda k: (-row[k], k)).index(label)
        for row, label in zip(probs.tolist(), labels.tolist(), strict=True)
    ]
    assert ranks_of_truth(probs, labels).tolist() == naive


def test_confusion_matrix_by_hand() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    numbers = per_class_numbers(counts)
    assert numbers["recall"].tolist() == [0.5, 1, 0.5]
    assert numbers["precision"].tolist() == [0.5, 0.5, 1]
    np.testing.assert_allclose(numbers["f1"], [0.5, 2 / 3, 2 / 3])
    absent = per_class_numbers(np.array([[2, 0], [0, 0]]))
    assert all(math.isnan(absent[name][1]) for name in ("recall", "precision", "f1"))


def test_calibration_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    error, bins = calibration_error(confidence, right, bins=10)
    assert error == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.05)
    assert [b["count"] for b in bins] == [2, 4]
    assert calibration_error(np.ones(3), np.ones(3, bool))[0] == 0
    assert math.isnan(calibration_error(np.zeros(0), np.zeros(0, bool))[0])
    edge, rows = calibration_error(np.array([0.5]), np.array([True]), bins=2)
    assert (edge, rows[0]["confidence"]) == (0.5, 0.5)


def test_shares_merge_to_the_whole() -> None:
    probs, labels = random_answers(3)
    first, second = scored(probs[:71], labels[:71]), scored(probs[71:], labels[71:])
    first.merge(second)
    merged, whole = first.compute(), scored(probs, labels).compute()
    assert merged.values == pytest.approx(whole.values, abs=1e-12)
    assert merged.to_dict()["per_class"] == whole.to_dict()["per_class"]
    assert merged.to_dict()["details"] == whole.to_dict()["details"]
    json.dumps(merged.to_dict(), allow_nan=False)
    for other in (scored(probs[:0, :6], labels[:0]), scored(probs, labels, (1, 3))):
        with pytest.raises(RecordError):
            first.merge(other)


def test_trust_thresholds_keep_what_they_promise() -> None:
    probs, labels = random_answers(11, count=500)
    point = scored(probs, labels).compute().details["thresholds"]["trust"]["precision_90"]
    confidence, said = probs.double().max(1)
    kept = confidence >= point["threshold"]
    assert (said[kept] == labels[kept]).double().mean() >= 0.9
    assert int(kept.sum()) == point["hits"] + point["false_alarms"]


def test_k_that_everything_passes_is_left_out() -> None:
    probs, labels = random_answers(1, categories=4)
    assert [n for n in scored(probs, labels).compute().values if n.startswith("top")] == ["top1"]
    one = scored(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)).compute()
    assert one.value == 1


def test_nothing_seen_is_nothing_measured() -> None:
    scores = ClassificationScores(["a", "b"])
    scores.update([], [])
    assert all(math.isnan(v) for v in scores.compute().values.values())
    assert math.isnan(topk_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))


def test_input_that_does_not_fit_is_refused() -> None:
    scores = ClassificationScores(["a", "b"])
    half = Classification(torch.tensor([0.5, 0.5]), (1, 1), name="x.png")
    cases = [
        ([half], [Target()], "without a class"),
        ([half], [], "as many"),
        ([half], [Target(label=2)], "0 to 1"),
        ([half], [Target(label=-1)], "0 to 1"),
        ([Classification(torch.ones(3), (1, 1))], [Target(label=0)], "3 probabilities"),
        ([Classification(torch.tensor([math.nan, 1.0]), (1, 1))], [Target(label=0)], "NaN"),
    ]
    for predictions, targets, message in cases:
        with pytest.raises(RecordError, match=message):
            scores.update(predictions, targets)
    assert scores.counts.sum() == 0
    with pytest.raises(UsageError):
        ClassificationScores([])
    with pytest.raises(UsageError):
        topk_accuracy(torch.ones(1, 2), torch.tensor([0]), 0)
