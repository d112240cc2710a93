"""What counts as the same answer, on hand-made answers."""

import math

import pytest
import torch

from bestiary.deploy.agreement import Agreement, Tolerances, compare_boxes, compare_predictions, compare_values, join
from bestiary.predictions import Classification, Detections, Segmentation

TOLERANCES = Tolerances()


def boxes(*rows: tuple[float, int, float]) -> Detections:
    """Boxes of 10 pixels at x, with label and score."""
    corners = [[x, 0.0, x + 10, 10.0] for x, _, _ in rows]
    return Detections(
        torch.tensor(corners).view(-1, 4),
        torch.tensor([k for _, k, _ in rows], dtype=torch.int64),
        torch.tensor([s for _, _, s in rows]),
    )


def test_numbers_are_judged_by_difference_or_by_share_of_the_largest() -> None:
    wanted, got = torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.5])
    assert not compare_values(wanted, got, 0.01, relative=False).passed
    share = compare_values(wanted, got, 0.01, relative=True)
    assert share.passed
    assert (share.max_abs, share.max_rel, share.compared) == (0.5, pytest.approx(0.005), 2)


def test_a_difference_exactly_at_the_limit_passes() -> None:
    one, other = torch.tensor([1.0]), torch.tensor([1.5])
    assert compare_values(one, other, 0.5, relative=False).passed
    assert not compare_values(one, other, 0.4999, relative=False).passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(value: float) -> None:
    assert not compare_values(torch.tensor([0.5]), torch.tensor([value]), 1e9, relative=False).passed


def test_shapes_must_agree_and_nothing_agrees_with_nothing() -> None:
    assert "shape (2,), wanted (3,)" in compare_values(torch.zeros(3), torch.zeros(2), 1.0, relative=False).why
    empty = compare_values(torch.zeros(0), torch.zeros(0), 0.0, relative=False)
    assert empty.passed
    assert empty.compared == 0


def test_boxes_find_their_partners_in_any_order() -> None:
    a = boxes((0, 0, 0.9), (50, 1, 0.8))
    b = boxes((50.05, 1, 0.8005), (0, 0, 0.9))
    found = compare_boxes(a, b, TOLERANCES, cut=0.05, most=100)
    assert found.passed
    assert (found.compared, found.unmatched, found.boxes) == (2, 0, (2, 2))
    assert found.max_abs == pytest.approx(0.05, abs=1e-4)
    assert found.max_score == pytest.approx(0.0005, abs=1e-6)


@pytest.mark.parametrize("other", [(0.2, 0, 0.9), (0, 1, 0.9), (0, 0, 0.89)])
def test_another_place_label_or_score_is_no_partner(other: tuple[float, int, float]) -> None:
    found = compare_boxes(boxes((0, 0, 0.9)), boxes(other), TOLERANCES, cut=0.05, most=100)
    assert not found.passed
    assert (found.unmatched, found.compared) == (2, 0)


def test_a_missing_box_fails_unless_it_stood_at_the_cut() -> None:
    one, none = boxes((0, 0, 0.9)), boxes()
    assert not compare_boxes(one, none, TOLERANCES, cut=0.05, most=100).passed
    assert not compare_boxes(none, one, TOLERANCES, cut=0.05, most=100).passed
    assert compare_boxes(boxes((0, 0, 0.0505)), none, TOLERANCES, cut=0.05, most=100).passed
    assert not compare_boxes(boxes((0, 0, 0.0525)), none, TOLERANCES, cut=0.05, most=100).passed


def test_where_the_places_are_full_the_last_scores_may_differ_in_whom_they_keep() -> None:
    a, b = boxes((0, 0, 0.9), (50, 0, 0.5)), boxes((0, 0, 0.9), (90, 0, 0.5002))
    assert compare_boxes(a, b, TOLERANCES, cut=0.05, most=2).passed
    assert not compare_boxes(a, b, TOLERANCES, cut=0.05, most=3).passed


def test_one_partner_serves_once() -> None:
    twice = boxes((0, 0, 0.9), (0, 0, 0.9))
    assert compare_boxes(twice, boxes((0, 0, 0.9)), TOLERANCES, cut=0.05, most=100).unmatched == 1


def test_two_of_a_hundred_boxes_may_be_turned_around_not_three() -> None:
    hundred = boxes(*[(20.0 * i, 0, 0.9) for i in range(100)])
    assert compare_boxes(hundred, hundred[2:], TOLERANCES, cut=0.05, most=200).passed
    assert not compare_boxes(hundred, hundred[3:], TOLERANCES, cut=0.05, most=200).passed


def test_on_a_flat_picture_scores_and_numbers_count_not_places() -> None:
    a, b = boxes((0, 0, 0.9), (50, 0, 0.9)), boxes((20, 0, 0.9), (70, 0, 0.9))
    assert compare_boxes(a, b, TOLERANCES, 0.05, 100, tied=True).passed
    assert not compare_boxes(a, b[:1], TOLERANCES, 0.05, 100, tied=True).passed
    assert not compare_boxes(a, boxes((0, 0, 0.9), (50, 0, 0.8)), TOLERANCES, 0.05, 100, tied=True).passed
    assert compare_boxes(boxes(), boxes(), TOLERANCES, 0.05, 100, tied=True).compared == 0


def test_on_a_flat_picture_each_score_must_be_the_others_too_however_often() -> None:
    often, seldom = [
        boxes(*((10.0 * i, 0, s) for i, s in enumerate(scores))) for scores in ([0.9, 0.9, 0.7], [0.9, 0.7, 0.7])
    ]
    assert compare_boxes(often, seldom, TOLERANCES, 0.05, 100, tied=True).passed
    other = boxes((0, 0, 0.9), (10, 0, 0.8), (20, 0, 0.7))
    for pair in ((often, other), (other, often)):
        answer = compare_boxes(*pair, TOLERANCES, 0.05, 100, tied=True)
        assert not answer.passed
        assert "0.1" in answer.why
    cut_off = boxes((0, 0, 0.9), (10, 0, 0.9))
    assert compare_boxes(cut_off, often[:2], TOLERANCES, 0.05, 2, tied=True).passed
    assert compare_boxes(cut_off, boxes((0, 0, 0.9), (10, 0, 0.7)), TOLERANCES, 0.05, 2, tied=True).passed


def test_label_maps_may_differ_in_a_pixel_of_a_thousand() -> None:
    plane = torch.zeros(40, 50, dtype=torch.uint8)
    other = plane.clone()
    other[0, :2] = 1
    wanted = Segmentation(plane, (40, 50))
    assert compare_predictions(wanted, Segmentation(other, (40, 50)), TOLERANCES).passed
    other[0, 2] = 1
    assert not compare_predictions(wanted, Segmentation(other, (40, 50)), TOLERANCES).passed


def test_another_kind_of_prediction_fails() -> None:
    answer = compare_predictions(Classification(torch.ones(1), (4, 4)), boxes(), TOLERANCES)
    assert not answer.passed
    assert answer.why == "a Detections, wanted a Classification"


def test_joined_pictures_keep_the_worst() -> None:
    parts = [
        Agreement(True, 0.1, 0.2, 0.01, (3, 3), 0, 3),
        Agreement(False, math.nan, 0.1, 0.02, (1, 2), 1, 1, "why"),
    ]
    whole = join(parts)
    assert not whole.passed
    assert math.isnan(whole.max_abs)
    assert (whole.max_rel, whole.max_score, whole.boxes, whole.unmatched) == (0.2, 0.02, (4, 5), 1)
    assert (whole.compared, whole.why) == (4, "why")
    assert join([]).compared == 0
