"""VOC's average precision: closed forms, a naive twin of the kit, and what sets it apart from COCO's."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from tests.metrics.detection_cases import Picture, found, random_pictures, truth

from bestiary.errors import UsageError
from bestiary.metrics.voc import VocScores, all_point_ap, eleven_point_ap
from bestiary.predictions import Detections
from bestiary.records import Objects, Target


def ours(
    pictures: list[Picture], categories: int = 1, points: Literal["11", "all"] = "all", legacy: bool = False
) -> VocScores:
    scores = VocScores([f"c{k}" for k in range(categories)], points, legacy_plus_one=legacy)
    scores.update([p for p, _ in pictures], [t for _, t in pictures])
    return scores


@pytest.mark.parametrize(
    ("said", "of", "eleven", "every"),
    [("101", 2, 0.8485, 0.8333), ("1010", 3, 0.5455, 0.5556), ("1101001", 5, 0.6786, 0.6643)],
)
def test_closed_forms(said: str, of: int, eleven: float, every: float) -> None:
    boxes = [[40.0 * i, 0, 40.0 * i + 20, 20] for i in range(of)]
    hits = iter(boxes)
    guesses = [next(hits) if c == "1" else [0, 300 + 40.0 * i, 20, 320 + 40.0 * i] for i, c in enumerate(said)]
    scores = [0.9 - 0.1 * i for i in range(len(said))]
    values = ours([(found(guesses, [0] * len(said), scores), truth(boxes, [0] * of))]).compute().values
    assert values["mAP_11_point"] == pytest.approx(eleven, abs=5e-5)
    assert values["mAP_all_points"] == pytest.approx(every, abs=5e-5)
    assert values["mAP"] == values["mAP_all_points"]


def test_recall_of_exactly_three_tenths_does_not_reach_the_fourth_point() -> None:
    """The fourth of the eleven is 0.30000000000000004; 3 of 10 found at precision 1 fills three points only."""
    assert eleven_point_ap(np.array([0.1, 0.2, 3 / 10]), np.ones(3)) == pytest.approx(3 / 11)
    assert eleven_point_ap(np.array([0.1, 0.2, 0.31]), np.ones(3)) == pytest.approx(4 / 11)


def test_all_points_is_the_area_under_the_envelope() -> None:
    assert all_point_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert all_point_ap(np.zeros(0), np.zeros(0)) == 0
    assert eleven_point_ap(np.zeros(0), np.zeros(0)) == 0


def kit_ap(pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], eleven: bool) -> float:
    """One category as the kit does it, written naively: inclusive integer boxes, scores, truths, difficult flags."""
    rows = [
        (s, i, box) for i, (boxes, scores, _, _) in enumerate(pictures) for s, box in zip(scores, boxes, strict=True)
    ]
    rows.sort(key=lambda row: -row[0])
    claimed: set[tuple[int, int]] = set()
    right, wrong = [], []
    for _, i, (x1, y1, x2, y2) in rows:
        best, index = -1.0, -1
        for j, (a1, b1, a2, b2) in enumerate(pictures[i][2]):
            w, h = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
            if w > 0 and h > 0:
                share = w * h / ((x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - w * h)
                if share > best:
                    best, index = share, j
        tp = fp = 0
        if best > 0.5:
            if not pictures[i][3][index]:
                tp, fp = ((1, 0), (0, 1))[(i, index) in claimed]
                claimed.add((i, index))
        else:
            fp = 1
        right.append(tp)
        wrong.append(fp)
    positives = sum(int((~difficult).sum()) for *_, difficult in pictures)
    recall = np.cumsum(right) / positives
    precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), np.finfo(np.float64).eps)
    if eleven:
        return sum(max(precision[recall >= t], default=0.0) / 11 for t in np.arange(0.0, 1.1, 0.1))
    ends, tops = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(tops) - 1, 0, -1):
        tops[i - 1] = max(tops[i - 1], tops[i])
    return sum((ends[i] - ends[i - 1]) * tops[i] for i in range(1, len(ends)))


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_naive_kit_on_integer_boxes_in_both_conventions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw, legacy, ours_xyxy = [], [], []
    for _ in range(20):
        n, d = int(rng.integers(0, 5)), int(rng.integers(0, 9))
        corner = rng.integers(1, 200, (n, 2))
        true = np.concatenate([corner, corner + rng.integers(3, 60, (n, 2))], 1)
        near = true[rng.integers(0, n, d)] + rng.integers(-6, 7, (d, 4)) if n else rng.integers(1, 200, (d, 4))
        said = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], 1)
        scores, difficult = rng.permutation(d) / 10 + 0.01 * rng.random(d), rng.random(n) < 0.25
        scores = scores.astype(np.float32)
        raw.append((said, scores, true, difficult))
        for boxes, shift in ((legacy, 0), (ours_xyxy, 1)):
            said_boxes, true_boxes = said - np.array([shift, shift, 0, 0]), true - np.array([shift, shift, 0, 0])
            prediction = Detections(
                torch.tensor(said_boxes).float(),
                torch.zeros(d, dtype=torch.int64),
                torch.tensor(scores),
                size_hw=(300, 300),
            )
            objects = Objects(
                torch.tensor(true_boxes).float(), torch.zeros(n, dtype=torch.int64), difficult=torch.tensor(difficult)
            )
            boxes.append((prediction, Target(objects=objects)))
    for points, name in (("11", "mAP_11_point"), ("all", "mAP_all_points")):
        wanted = kit_ap(raw, points == "11")
        assert 0.05 < wanted < 0.95
        assert ours(legacy, legacy=True).compute().values[name] == pytest.approx(wanted, abs=1e-12)
        assert ours(ours_xyxy).compute().values[name] == pytest.approx(wanted, abs=1e-12)
    assert ours(legacy).compute().value != pytest.approx(ours(legacy, legacy=True).compute().value, abs=1e-12) or seed


def test_half_is_not_enough() -> None:
    half = [(found([[0, 0, 10, 5]], [0], [0.9]), truth([[0, 0, 10, 10]], [0]))]
    assert ours(half).compute().value == 0
    more = [(found([[0, 0, 10, 5.01]], [0], [0.9]), truth([[0, 0, 10, 10]], [0]))]
    assert ours(more).compute().value == 1


def test_a_detection_goes_to_the_truth_it_overlaps_most_though_it_is_taken() -> None:
    """Both detections overlap the first truth most; the second truth, which COCO would give, stays missed."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 14]]
    picture = (found([[0, 0, 10, 10], [0, 0, 10, 10.5]], [0, 0], [0.9, 0.8]), truth(boxes, [0, 0]))
    assert ours([picture]).compute().value == pytest.approx(0.5)


def test_difficult_neither_counts_nor_harms_and_is_never_used_up() -> None:
    target = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0], difficult=[True, False])
    prediction = found([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], [0, 0, 0], [0.9, 0.8, 0.7])
    result = ours([(prediction, target)]).compute()
    assert result.value == 1
    assert result.per_class["c0"]["count"] == 1


def test_a_category_without_truths_is_not_part_of_the_mean() -> None:
    pictures = random_pictures(1, categories=3)
    result = ours(pictures, 3, "11").compute()
    assert math.isnan(result.per_class["c2"]["AP"])
    assert result.value == pytest.approx(np.mean([result.per_class[f"c{k}"]["AP"] for k in range(2)]))
    assert "11-point" in result.protocol


def test_merged_shares_equal_the_whole_and_empty_input_is_fine() -> None:
    pictures = random_pictures(2)
    first, second = ours(pictures[:9], 4), ours(pictures[9:], 4)
    first.merge(second)
    assert first.compute().to_dict() == ours(pictures, 4).compute().to_dict()
    assert math.isnan(ours([(found([], [], []), truth([], []))]).compute().value)
    assert ours([(found([], [], []), truth([[0, 0, 5, 5]], [0]))]).compute().value == 0
    with pytest.raises(UsageError, match="threshold"):
        VocScores(["a"], iou_threshold=1.5)
