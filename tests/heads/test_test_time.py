"""Views of one picture merged into one answer."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.test_time import DetectionViews, best_first, joined, mirrored, weighted_boxes
from bestiary.predictions import Detections


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Detections(table[:, :4], table[:, 4].long(), table[:, 5], size_hw=(50, 80), categories=("a", "b"))


def test_views_are_every_scale_each_way_round() -> None:
    assert DetectionViews().each == ((1.0, False),)
    assert DetectionViews((0.5, 2)).each == ((0.5, False), (2.0, False))
    assert DetectionViews(flip=True).each == ((1.0, False), (1.0, True))
    assert len(DetectionViews((0.5, 1, 2), flip=True).each) == 6


def test_one_view_stays_as_it_is() -> None:
    one = found((0, 0, 9, 9, 0, 0.5), (0, 0, 9, 9, 0, 0.4))
    assert DetectionViews(merge="nms").merged([one]) is one


def test_mirroring_twice_is_nothing_and_once_is_by_width() -> None:
    one = found((10, 5, 30, 25, 1, 0.5))
    assert mirrored(one).boxes_xyxy.tolist() == [[50, 5, 70, 25]]
    assert torch.equal(mirrored(mirrored(one)).boxes_xyxy, one.boxes_xyxy)


def test_nms_keeps_the_best_of_two_views() -> None:
    merged = DetectionViews(flip=True).merged(
        [
            found((10, 10, 20, 20, 0, 0.6), (40, 10, 50, 20, 0, 0.3)),
            found((11, 10, 20, 20, 0, 0.8), (10, 10, 20, 20, 1, 0.2)),
        ]
    )
    assert merged.scores.tolist() == pytest.approx([0.8, 0.3, 0.2])
    assert merged.boxes_xyxy[0].tolist() == [11, 10, 20, 20]


def test_weighted_boxes_by_hand() -> None:
    boxes = torch.tensor([[10.0, 10, 20, 20], [12, 10, 20, 20], [60, 0, 70, 9], [10, 10, 20, 20]])
    scores, labels = torch.tensor([0.6, 0.2, 0.5, 0.9]), torch.tensor([0, 0, 0, 1])
    fused, means, kinds = weighted_boxes(boxes, scores, labels, 2, 0.5)
    # two views saw the first object, one the others: these count half
    assert means.tolist() == pytest.approx([0.45, 0.4, 0.25])
    assert kinds.tolist() == [1, 0, 0]
    assert fused[1].tolist() == pytest.approx([(0.6 * 10 + 0.2 * 12) / 0.8, 10, 20, 20])
    assert fused[2].tolist() == [60, 0, 70, 9]


def test_a_box_of_many_members_is_not_counted_beyond_the_views() -> None:
    boxes = torch.tensor([[10.0, 10, 20, 20]]).repeat(5, 1)
    _, means, _ = weighted_boxes(boxes, torch.full((5,), 0.5), torch.zeros(5, dtype=torch.int64), 2, 0.5)
    assert means.tolist() == pytest.approx([0.5])


def test_no_box_and_boxes_of_score_zero() -> None:
    nothing = weighted_boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 2, 0.5)
    assert [len(part) for part in nothing] == [0, 0, 0]
    boxes, means, _ = weighted_boxes(torch.ones(1, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 1, 0.5)
    assert boxes.tolist() == [[1, 1, 1, 1]]
    assert float(means[0]) == pytest.approx(0, abs=1e-9)


def test_the_best_come_first_and_equal_ones_in_their_order() -> None:
    best = best_first(found((0, 0, 1, 1, 0, 0.2), (0, 0, 2, 2, 0, 0.5), (0, 0, 3, 3, 0, 0.5)), 2)
    assert best.boxes_xyxy[:, 2].tolist() == [2, 3]


def test_masks_are_not_merged() -> None:
    one = found((0, 0, 9, 9, 0, 0.5))
    masked = Detections(one.boxes_xyxy, one.labels, one.scores, masks=torch.zeros(1, 50, 80, dtype=torch.bool))
    with pytest.raises(UsageError, match="boxes alone"):
        joined([one, masked])
