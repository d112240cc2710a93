"""Priors by overlap: planted sizes are found, more priors fit better, and boxes of all scales count alike."""

import pytest
import torch
from torch import Tensor

from bestiary.assign.box_priors import box_priors, mean_best_iou, size_iou
from bestiary.errors import UsageError


def boxes_of(centres: list[tuple[float, float]], each: int, spread: float = 0.05) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.cat([torch.tensor([c]) * torch.exp(spread * torch.randn(each, 2, generator=rng)) for c in centres])


def test_overlap_of_sizes_by_hand() -> None:
    one, other = torch.tensor([[2.0, 4.0], [1.0, 1.0]]), torch.tensor([4.0, 2.0])
    assert size_iou(one, other).tolist() == pytest.approx([4 / 12, 1 / 8])
    assert mean_best_iou(one, torch.tensor([[4.0, 2.0], [1.0, 1.0]])) == pytest.approx((1 / 3 + 1) / 2)


def test_planted_sizes_are_found_smallest_first() -> None:
    planted = [(1.0, 1.0), (1.0, 4.0), (10.0, 3.0), (12.0, 12.0)]
    found = box_priors(boxes_of(planted, 60), 4)
    torch.testing.assert_close(found.sizes_wh, torch.tensor(planted), rtol=0.03, atol=0)
    assert 0.9 < found.mean_iou < 1


def test_more_priors_fit_better_and_better_than_hand_picked_ones() -> None:
    rng = torch.Generator().manual_seed(1)
    boxes = torch.exp(torch.randn(400, 2, generator=rng)) + 0.3
    overlaps = [box_priors(boxes, k).mean_iou for k in range(1, 8)]
    assert overlaps == sorted(overlaps)
    assert overlaps[-1] > overlaps[0] + 0.2
    hand_picked = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [1.0, 2.0], [2.0, 1.0]])
    assert overlaps[4] > mean_best_iou(boxes, hand_picked) + 0.02


def test_small_boxes_count_as_much_as_large_ones() -> None:
    boxes = torch.cat([boxes_of([(1.0, 1.0), (3.0, 3.0)], 50), boxes_of([(100.0, 100.0)], 50, 0.2)])
    found = box_priors(boxes, 3).sizes_wh
    torch.testing.assert_close(found[:2], torch.tensor([[1.0, 1.0], [3.0, 3.0]]), rtol=0.03, atol=0)


def test_scale_changes_nothing_but_the_scale_and_the_seed_decides() -> None:
    boxes = boxes_of([(1.0, 2.0), (5.0, 4.0)], 40, 0.5)
    one, other = box_priors(boxes, 3, seed=4), box_priors(32 * boxes, 3, seed=4)
    torch.testing.assert_close(32 * one.sizes_wh, other.sizes_wh)
    assert one.mean_iou == pytest.approx(other.mean_iou)


def test_fewer_sizes_than_priors() -> None:
    found = box_priors(torch.tensor([[2.0, 3.0]]).repeat(4, 1), 3)
    assert found.sizes_wh.tolist() == [[2.0, 3.0]] * 3
    assert found.mean_iou == pytest.approx(1)


@pytest.mark.parametrize(("number", "count"), [(0, 5), (5, 0)])
def test_nothing_to_do_is_refused(number: int, count: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        box_priors(torch.ones(number, 2), count)
