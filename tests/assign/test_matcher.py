import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.assign import IGNORE, NEGATIVE, POSITIVE, Assignment, ThresholdMatcher
from bestiary.assign.matcher import _match_in_chunks
from bestiary.errors import RecordError
from bestiary.geometry.boxes import pairwise_iou


def naive_match(quality: list[list[float]], positive: float, negative: float, keep: bool) -> list[tuple[int, int]]:
    anchors = len(quality[0]) if quality else 0
    found = []
    for a in range(anchors):
        column = [row[a] for row in quality]
        best = max(column)
        kind = POSITIVE if best >= positive else NEGATIVE if best < negative else IGNORE
        if keep and any(row[a] == max(row) > 0 for row in quality):
            kind = POSITIVE
        found.append((column.index(best), kind))
    return found


def listed(assignment: Assignment) -> list[tuple[int, int]]:
    return list(zip(assignment.object.tolist(), assignment.kind.tolist(), strict=True))


def test_hand_worked_case_with_boundaries_and_ties() -> None:
    quality = torch.tensor(
        [
            #  0    1     2    3     4     5    6
            [0.70, 0.69, 0.3, 0.29, 0.0, 0.60, 0.0],
            [0.10, 0.20, 0.1, 0.10, 0.4, 0.70, 0.0],
            [0.00, 0.00, 0.0, 0.25, 0.4, 0.10, 0.25],  # best 0.4, at anchor 4, which also ties object 1's overlap there
            [0.00, 0.00, 0.2, 0.00, 0.0, 0.20, 0.2],  # best 0.2, at anchors 2, 5 and 6, of which 2 prefers object 0
        ]
    )
    plain = ThresholdMatcher(0.7, 0.3).match(quality)
    kinds = [POSITIVE, IGNORE, IGNORE, NEGATIVE, IGNORE, POSITIVE, NEGATIVE]
    assert listed(plain) == list(zip([0, 0, 0, 0, 1, 1, 2], kinds, strict=True))
    kept = ThresholdMatcher(0.7, 0.3, keep_best_for_each_object=True).match(quality)
    kinds = [POSITIVE, IGNORE, POSITIVE, NEGATIVE, POSITIVE, POSITIVE, POSITIVE]
    assert listed(kept) == list(zip([0, 0, 0, 0, 1, 1, 2], kinds, strict=True)), "each keeps its own best object"
    assert kept.positive.sum() == 5
    assert kept.negative.tolist() == [False] * 3 + [True] + [False] * 3


def test_an_object_that_nothing_touches_makes_no_positive() -> None:
    quality = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.8]])
    got = ThresholdMatcher(0.7, 0.3, keep_best_for_each_object=True).match(quality)
    assert got.kind.tolist() == [IGNORE, NEGATIVE, POSITIVE]


def grid_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes on a coarse grid: many equal overlaps, some empty boxes."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 12, (count, 2), generator=g)
    return torch.cat([corner, corner + torch.randint(0, 8, (count, 2), generator=g)], dim=1).float()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 60), st.booleans(), st.integers(0, 1000))
def test_matrix_boxes_and_chunks_equal_the_loop(objects: int, anchors: int, keep: bool, seed: int) -> None:
    truth, boxes = grid_boxes(objects, seed), grid_boxes(anchors, seed + 1)
    quality = pairwise_iou(truth, boxes).nan_to_num(nan=0.0)
    matcher = ThresholdMatcher(0.5, 0.25, keep)
    wanted = naive_match(quality.tolist(), 0.5, 0.25, keep)
    assert listed(matcher.match(quality)) == wanted
    assert listed(matcher.match_boxes(truth, boxes)) == wanted
    chunks = _match_in_chunks(truth, boxes, keep, budget=7 * 4 * objects)
    assert listed(matcher._kinds(*chunks)) == wanted


def test_many_anchors_in_any_number_of_threads() -> None:
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(70_000, 2, generator=g) * 400
    anchors = torch.cat([corner, corner + torch.rand(70_000, 2, generator=g) * 90], dim=1)
    matcher = ThresholdMatcher(0.7, 0.3, keep_best_for_each_object=True)
    wanted = matcher.match(pairwise_iou(anchors[:9] + 3, anchors))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            got = matcher.match_boxes(anchors[:9] + 3, anchors)
            assert torch.equal(got.kind, wanted.kind)
            assert torch.equal(got.object, wanted.object)
    finally:
        torch.set_num_threads(before)


def test_double_precision_goes_through_chunks() -> None:
    truth, boxes = grid_boxes(4, 3), grid_boxes(50, 4)
    matcher = ThresholdMatcher(0.5, 0.5, keep_best_for_each_object=True)
    assert listed(matcher.match_boxes(truth.double(), boxes.double())) == listed(matcher.match_boxes(truth, boxes))


def test_thresholds_are_met_exactly() -> None:
    # 10 x 10 objects against halves and a 7 x 10: overlaps of exactly 1/2 and (in float32) 0.7.
    truth = torch.tensor([[0.0, 0, 10, 10]])
    anchors = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 7, 10]])
    assert ThresholdMatcher(0.5, 0.5).match_boxes(truth, anchors).kind.tolist() == [POSITIVE, NEGATIVE, POSITIVE]
    assert ThresholdMatcher(0.7, 0.5).match_boxes(truth, anchors).kind.tolist() == [IGNORE, NEGATIVE, POSITIVE]


def test_no_objects_make_all_negative_and_no_anchors_make_nothing() -> None:
    matcher = ThresholdMatcher(0.7, 0.3, keep_best_for_each_object=True)
    for got in (matcher.match(torch.zeros(0, 5)), matcher.match_boxes(torch.zeros(0, 4), grid_boxes(5, 0))):
        assert listed(got) == [(0, NEGATIVE)] * 5
    assert len(matcher.match(torch.zeros(3, 0))) == 0
    assert len(matcher.match_boxes(grid_boxes(3, 0), torch.zeros(0, 4))) == 0


def test_thresholds_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(RecordError, match="negative <= positive"):
        ThresholdMatcher(0.3, 0.7)
    with pytest.raises(Exception, match=r"rows|shape|type"):
        Assignment(torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int8))
