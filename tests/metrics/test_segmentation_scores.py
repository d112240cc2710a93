import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.segmentation import (
    SegmentationScores,
    accuracy_per_class,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    mean_dice,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
    precision_per_class,
)
from bestiary.predictions import Segmentation
from bestiary.records import Target

HAND = np.array([[4, 1, 0], [2, 3, 0], [0, 0, 0]])
"""Class 0: 5 true, 6 predicted; class 1: 5 true, 4 predicted; class 2 nowhere."""


def said(labels: np.ndarray, name: str = "") -> Segmentation:
    return Segmentation(torch.from_numpy(labels), tuple(labels.shape), name=name)


def truth(labels: np.ndarray) -> Target:
    return Target(label_map=torch.from_numpy(labels))


def test_scores_of_a_matrix_worked_by_hand() -> None:
    assert pixel_accuracy(HAND) == 0.7
    assert np.allclose(accuracy_per_class(HAND), [0.8, 0.6, np.nan], equal_nan=True)
    assert np.allclose(precision_per_class(HAND), [4 / 6, 3 / 4, np.nan], equal_nan=True)
    assert np.allclose(iou_per_class(HAND), [4 / 7, 3 / 6, np.nan], equal_nan=True)
    assert np.allclose(dice_per_class(HAND), [8 / 11, 6 / 9, np.nan], equal_nan=True)
    assert math.isclose(mean_pixel_accuracy(HAND), 0.7)
    assert math.isclose(mean_iou(HAND), (4 / 7 + 1 / 2) / 2)
    assert math.isclose(mean_iou(HAND, absent="zero"), (4 / 7 + 1 / 2) / 3)
    assert math.isclose(frequency_weighted_iou(HAND), 0.5 * 4 / 7 + 0.5 / 2)


def test_a_class_predicted_but_never_true_counts_in_iou_and_not_in_accuracy() -> None:
    counts = np.array([[3, 1], [0, 0]])
    assert math.isclose(mean_iou(counts), (3 / 4 + 0) / 2)
    assert math.isclose(mean_pixel_accuracy(counts), 3 / 4)


def test_dice_is_a_function_of_iou() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (7, 7))
    iou = iou_per_class(counts)
    assert np.allclose(dice_per_class(counts), 2 * iou / (1 + iou), atol=1e-12)


def test_nothing_scored_is_nan_everywhere() -> None:
    nothing = np.zeros((3, 3), dtype=np.int64)
    for score in (pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou, mean_dice):
        assert math.isnan(score(nothing))


def test_confusion_counts_truth_in_rows_and_leaves_out_what_is_unknown() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 255], dtype=np.uint8), np.array([0, 1, 1, 200], dtype=np.uint8), 2)
    assert counts.tolist() == [[1, 1], [0, 1]]
    assert counts.dtype == np.int64


def test_a_label_that_is_no_class_is_named() -> None:
    fine, bad = np.array([0, 1], dtype=np.uint8), np.array([0, 2], dtype=np.uint8)
    with pytest.raises(RecordError, match=r"label 2 in the truth, wanted 0\.\.1 or 255"):
        confusion_matrix(bad, fine, 2)
    with pytest.raises(RecordError, match=r"label 2 in the prediction, wanted 0\.\.1"):
        confusion_matrix(fine, bad, 2)
    with pytest.raises(RecordError, match="label 255 in the truth"):
        confusion_matrix(np.array([255], dtype=np.uint8), np.array([0], dtype=np.uint8), 2, ignore_label=7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_every_score_is_sklearns(seed: int, pixels: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, pixels).astype(np.uint8)
    predicted = rng.integers(0, classes, pixels).astype(np.uint8)
    labels = list(range(classes))
    counts = confusion_matrix(true, predicted, classes)
    assert np.array_equal(counts, sk.confusion_matrix(true, predicted, labels=labels))
    present = np.isin(labels, np.union1d(true, predicted))
    jaccard = sk.jaccard_score(true, predicted, labels=labels, average=None, zero_division=0)
    f1 = sk.f1_score(true, predicted, labels=labels, average=None, zero_division=0)
    assert np.allclose(iou_per_class(counts)[present], jaccard[present], atol=1e-9)
    assert np.isnan(iou_per_class(counts)[~present]).all()
    assert math.isclose(mean_iou(counts), jaccard[present].mean(), abs_tol=1e-9)
    assert math.isclose(mean_iou(counts, "zero"), jaccard.mean(), abs_tol=1e-9)
    assert math.isclose(mean_dice(counts), f1[present].mean(), abs_tol=1e-9)
    assert math.isclose(pixel_accuracy(counts), sk.accuracy_score(true, predicted), abs_tol=1e-9)
    weighted = sk.jaccard_score(true, predicted, labels=labels, average="weighted", zero_division=0)
    assert math.isclose(frequency_weighted_iou(counts), weighted, abs_tol=1e-9)
    recall = sk.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert math.isclose(mean_pixel_accuracy(counts), recall, abs_tol=1e-9)


def test_pictures_are_pooled_not_averaged() -> None:
    scores = SegmentationScores(("a", "b"))
    # one pixel all wrong, and 99 all right
    scores.update([said(np.ones((1, 1), np.uint8))], [truth(np.zeros((1, 1), np.uint8))])
    scores.update([said(np.zeros((9, 11), np.uint8))], [truth(np.zeros((9, 11), np.uint8))])
    computed = scores.compute()
    assert computed.values["pixel_accuracy"] == 0.99
    assert computed.headline == "mean_iou"
    assert math.isclose(computed.value, (0.99 + 0) / 2)
    assert math.isclose(computed.per_class["a"]["iou"], 0.99)
    assert computed.details["confusion"] == [[99, 1], [0, 0]]
    assert "2 pictures" in computed.protocol
    assert "255 ignored" in computed.protocol


def test_ignored_pixels_change_nothing_whatever_was_said_there() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, (6, 7)).astype(np.uint8)
    true[2:4] = 255
    one, other = rng.integers(0, 3, (2, 6, 7)).astype(np.uint8)
    other[true != 255] = one[true != 255]
    other[2, 0] = 77
    results = []
    for predicted in (one, other):
        scores = SegmentationScores(("a", "b", "c"))
        scores.update([said(predicted)], [truth(true)])
        results.append(scores.compute().values)
    assert results[0] == results[1]


def test_merged_halves_equal_the_whole() -> None:
    rng = np.random.default_rng(2)
    maps = rng.integers(0, 4, (6, 2, 5, 5)).astype(np.uint8)
    whole, left, right = (SegmentationScores(("a", "b", "c", "d")) for _ in range(3))
    for i, (true, predicted) in enumerate(maps):
        for scores in (whole, left if i < 2 else right):
            scores.update([said(predicted)], [truth(true)])
    left.merge(right)
    assert left.compute().to_dict() == whole.compute().to_dict()


def test_only_equal_rules_merge() -> None:
    scores = SegmentationScores(("a", "b"))
    for other, field in (
        (SegmentationScores(("a", "c")), "categories"),
        (SegmentationScores(("a", "b"), ignore_label=0), "ignore_label"),
        (SegmentationScores(("a", "b"), absent="zero"), "absent"),
    ):
        with pytest.raises(UsageError, match=rf"merge\(other\).{field}"):
            scores.merge(other)


def test_bad_input_is_named_with_its_picture() -> None:
    scores = SegmentationScores(("a", "b"))
    square = np.zeros((2, 2), np.uint8)
    with pytest.raises(RecordError, match="1 predictions and 0 targets"):
        scores.update([said(square)], [])
    with pytest.raises(RecordError, match=r"cat\.png: got a target without label_map"):
        scores.update([said(square, "cat.png")], [Target()])
    with pytest.raises(RecordError, match=r"cat.png: got label maps of \(2, 2\) predicted and \(2, 3\) true"):
        scores.update([said(square, "cat.png")], [truth(np.zeros((2, 3), np.uint8))])
    with pytest.raises(RecordError, match="picture 0, label_map: got label 9 in the truth"):
        scores.update([said(square)], [truth(square + np.uint8(9))])
    assert scores.counts.sum() == 0
    with pytest.raises(UsageError, match="0 categories"):
        SegmentationScores(())


def test_empty_evaluation_says_nan() -> None:
    computed = SegmentationScores(("a", "b")).compute()
    assert all(math.isnan(value) for value in computed.values.values())
    assert computed.to_dict()["values"]["mean_iou"] is None


def test_a_large_map_is_counted_exactly() -> None:
    true = np.zeros((3000, 3000), np.uint8)
    true[:, 1500:] = 254
    scores = SegmentationScores([str(k) for k in range(255)])
    scores.update([said(true)], [truth(true)])
    assert scores.counts[254, 254] == scores.counts[0, 0] == 4_500_000
    assert scores.compute().value == 1
