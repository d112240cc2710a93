"""Boxes that look at no pixel: as many as asked for, evenly spread, and in an order that is fair at every number."""

import numpy as np
import pytest
import torch

from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.proposals.sliding_windows import RandomBoxes, SlidingWindows

BLANK = torch.zeros(3, 240, 320, dtype=torch.uint8)


@pytest.mark.parametrize("count", [1, 30, 500, 2000, 20000])
def test_about_as_many_windows_as_asked_for(count: int) -> None:
    found = SlidingWindows(count=count).find(BLANK)
    assert 0.8 * count <= len(found) <= count


def test_windows_cover_what_is_there() -> None:
    boxes = SlidingWindows(count=2000).find(BLANK).boxes_xyxy
    sides = boxes[:, 2:] - boxes[:, :2]
    assert float(sides.prod(1).sqrt().min()) == pytest.approx(16, abs=0.1)
    assert torch.tensor([0.0, 0, 320, 240]) in boxes
    ratios = torch.unique((sides[:, 0] / sides[:, 1] * 100).round())
    assert {50.0, 100.0, 200.0} <= set(ratios.tolist())
    for corner in ([0.0, 0.0], [320.0, 240.0]):
        reach = boxes[:, :2] if corner[0] == 0 else boxes[:, 2:]
        assert ((reach - torch.tensor(corner)).abs() < 1e-3).all(1).any()


def test_any_object_of_a_covered_size_is_met() -> None:
    boxes = SlidingWindows(count=5000).find(BLANK).boxes_xyxy
    rng = np.random.default_rng(0)
    side, aspect = np.exp(rng.uniform(np.log(40), np.log(150), 300)), np.exp(rng.uniform(-0.6, 0.6, 300))
    size = np.stack([side * np.sqrt(aspect), side / np.sqrt(aspect)], 1)
    low = rng.uniform(0, 1, (300, 2)) * ([320, 240] - size)
    overlaps = pairwise_iou(torch.from_numpy(np.concatenate([low, low + size], 1)).float(), boxes).amax(1)
    assert float((overlaps >= 0.5).float().mean()) > 0.97


def test_the_first_windows_are_spread_like_all_of_them() -> None:
    boxes = SlidingWindows(count=3000).find(BLANK).boxes_xyxy
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).log()
    for values in (centres / torch.tensor([320, 240]), sides):
        assert (values[:300].mean(0) - values.mean(0)).abs().max() < 0.1
        assert (values[:300].std(0) / values.std(0) - 1).abs().max() < 0.1


def test_random_boxes_are_drawn_as_said() -> None:
    found = RandomBoxes(count=20000, least_side=40).find(torch.zeros(3, 1000, 1000, dtype=torch.uint8))
    assert len(found) > 19900
    boxes = found.boxes_xyxy
    whole = boxes[((boxes > 0) & (boxes < 1000)).all(1)]
    aspects = (whole[:, 2:] - whole[:, :2]).log()
    assert float((aspects[:, 0] - aspects[:, 1]).abs().exp().max()) <= 3 + 1e-3
    assert 0.3 < float((aspects[:, 0] - aspects[:, 1]).abs().exp().median()) / np.sqrt(3) < 1.1
    assert float(aspects.mean(1).exp().min()) == pytest.approx(40, abs=2)


def test_seeds_and_sizes_draw_other_boxes() -> None:
    first, other = RandomBoxes(seed=1).find(BLANK), RandomBoxes(seed=2).find(BLANK)
    assert not torch.equal(first.boxes_xyxy[:5], other.boxes_xyxy[:5])
    assert RandomBoxes(seed=1).identity() != RandomBoxes(seed=2).identity()
    order = SlidingWindows(seed=1).find(BLANK).boxes_xyxy
    assert not torch.equal(order, SlidingWindows(seed=2).find(BLANK).boxes_xyxy)
    assert torch.equal(torch.unique(order, dim=0), torch.unique(SlidingWindows(seed=2).find(BLANK).boxes_xyxy, dim=0))


def test_settings_out_of_range_are_named() -> None:
    for bad in ({"count": 0}, {"least_side": 0}, {"scales": 0}, {"aspects": ()}, {"aspects": (1.0, -1.0)}):
        with pytest.raises(UsageError, match="sliding_windows"):
            SlidingWindows(**bad)  # type: ignore[arg-type]
    for bad in ({"count": 0}, {"least_side": -1}, {"largest_aspect": 0.5}):
        with pytest.raises(UsageError, match="random_boxes"):
            RandomBoxes(**bad)  # type: ignore[arg-type]
