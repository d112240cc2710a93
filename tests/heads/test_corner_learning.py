"""What corners learn: bumps, cells, offsets, and the terms of the loss."""

import math

import pytest
import torch
from torch import Tensor

from bestiary.geometry.boxes import pairwise_iou, scale_boxes
from bestiary.heads.corner_learning import (
    CornerTargets,
    CornerWeights,
    bumps,
    corner_losses,
    corner_targets,
    gaussian_radius,
    heat_loss,
    offset_loss,
    tag_losses,
)
from bestiary.heads.corners import CornerMaps, PairSettings, best_corners, pair_corners
from bestiary.heads.truth import Truth


def truth(*rows: tuple[float, float, float, float, int], crowds: Tensor | None = None) -> Truth:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Truth(table[:, :4].contiguous(), table[:, 4].long(), torch.zeros(0, 4) if crowds is None else crowds)


def perfect(targets: list[tuple[CornerTargets, CornerTargets]]) -> tuple[CornerMaps, CornerMaps]:
    """Maps of a network that knows all: sure heat, a tag of its own for each object, exact offsets."""
    found = []
    for each in zip(*targets, strict=True):
        heat = torch.stack([torch.where(t.heat == 1, 12.0, -12.0) for t in each])
        tag, offset = torch.zeros(len(each), 1, *heat.shape[2:]), torch.zeros(len(each), 2, *heat.shape[2:])
        for picture, target in enumerate(each):
            tag[picture].flatten(1)[0, target.cells] = 3.0 * torch.arange(len(target.cells))
            offset[picture].flatten(1)[:, target.cells] = target.offsets.T
        found.append(CornerMaps(heat, tag, offset))
    return found[0], found[1]


# -- the radius --------------------------------------------------------------------------------------------------------


def test_the_radius_of_the_shared_example() -> None:
    assert float(gaussian_radius(torch.tensor([[20.0, 20.0]]))) == pytest.approx(4.5228, abs=1e-3)


@pytest.mark.parametrize("size", [(20.0, 20.0), (7.0, 40.0), (33.0, 5.0), (1.0, 1.0), (100.0, 90.0)])
@pytest.mark.parametrize("min_iou", [0.3, 0.7])
def test_the_radius_is_the_largest_that_keeps_the_overlap(size: tuple[float, float], min_iou: float) -> None:
    height, width = size
    box = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)

    def least_overlap(r: float) -> float:
        moves = [[r, r, -r, -r], [-r, -r, r, r], [r, r, r, r]]
        return float(pairwise_iou(box, box + torch.tensor(moves, dtype=torch.float64)).min())

    radius = float(gaussian_radius(torch.tensor([size], dtype=torch.float64), min_iou))
    assert least_overlap(radius) == pytest.approx(min_iou, abs=1e-6)
    assert least_overlap(radius * 1.01) < min_iou


# -- the heat ----------------------------------------------------------------------------------------------------------


def test_a_bump_by_hand() -> None:
    bump = bumps(torch.tensor([[4, 2]]), torch.tensor([2]), (6, 8))[0]
    sigma = 5 / 6
    for y in range(6):
        for x in range(8):
            near = abs(y - 2) <= 2 and abs(x - 4) <= 2
            wanted = math.exp(-((y - 2) ** 2 + (x - 4) ** 2) / (2 * sigma**2)) if near else 0.0
            assert float(bump[y, x]) == pytest.approx(wanted, abs=1e-6)
    assert bump[2, 4] == 1


def test_where_bumps_of_a_category_meet_the_greater_counts_and_no_peak_is_lost() -> None:
    objects = truth((8, 8, 120, 120, 0), (16, 8, 130, 124, 0), (8, 8, 100, 100, 1))
    heat = corner_targets(objects, (48, 48), (191, 191), 2)[0].heat
    assert heat.max() == 1
    assert (heat[0] == 1).nonzero().tolist() == [[2, 2], [2, 4]]
    assert (heat[1] == 1).nonzero().tolist() == [[2, 2]]
    assert 0 < heat[0, 2, 3] < 1


def test_many_objects_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from bestiary.heads import corner_learning

    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(30, 2, generator=rng) * 100
    boxes = torch.cat([corners, corners + 5 + torch.rand(30, 2, generator=rng) * 80], 1)
    many = Truth(boxes, torch.arange(30) % 2, torch.zeros(0, 4))
    whole = corner_targets(many, (48, 48), (191, 191), 2)[1].heat
    monkeypatch.setattr(corner_learning, "AT_ONCE", 4)
    assert torch.equal(corner_targets(many, (48, 48), (191, 191), 2)[1].heat, whole)


# -- cells and offsets -------------------------------------------------------------------------------------------------


def test_a_corner_on_the_far_border_is_in_the_last_cell() -> None:
    _, far = corner_targets(truth((0, 0, 511, 511, 0)), (128, 128), (511, 511), 1)
    assert far.cells.tolist() == [127 * 128 + 127]
    assert far.offsets.tolist() == [[1.0, 1.0]]


def test_perfect_maps_give_the_boxes_back_exactly() -> None:
    boxes = truth((3.7, 10.2, 88.1, 60.9, 1), (100.0, 4.5, 190.9, 191.0, 0), (100.3, 5.0, 120.5, 44.0, 0))
    targets = [corner_targets(boxes, (48, 48), (191, 191), 2)]
    maps = perfect(targets)
    first, second = (best_corners(m, 20) for m in maps)
    found, scores, labels = pair_corners(first, second, PairSettings())
    sure = scores[0] > 0.9
    found = scale_boxes(found[0, sure], (48, 48), (191, 191))
    # the two top-left corners of category 0 share a cell: its tag and offset are the last object's
    whole = int((boxes.boxes_xyxy[0] - found).abs().amax(1).argmin())
    torch.testing.assert_close(found[whole], boxes.boxes_xyxy[0], atol=1e-4, rtol=0)
    assert labels[0, sure][whole] == 1
    assert (boxes.boxes_xyxy[2] - found).abs().amax(1).min() < 1e-4


def test_perfect_maps_cost_nothing() -> None:
    targets = [
        corner_targets(truth((3, 10, 88, 60, 1), (100, 4, 190, 191, 0)), (48, 48), (191, 191), 2),
        corner_targets(truth(), (48, 48), (191, 191), 2),
    ]
    losses = corner_losses(perfect(targets), targets, CornerWeights())
    assert list(losses) == ["corners", "pull", "push", "offsets"]
    assert sum(float(v) for v in losses.values()) < 1e-6


# -- each term alone ---------------------------------------------------------------------------------------------------


def scene() -> tuple[list[tuple[CornerTargets, CornerTargets]], tuple[CornerMaps, CornerMaps]]:
    targets = [
        corner_targets(truth((3, 10, 88, 60, 1), (100, 4, 190, 191, 0)), (48, 48), (191, 191), 2),
        corner_targets(truth((20, 20, 80, 90, 0)), (48, 48), (191, 191), 2),
    ]
    return targets, perfect(targets)


def test_a_missed_corner_costs_its_share_and_its_category_s_weight() -> None:
    targets, (first, _) = scene()
    heat = first.heat.clone()
    heat[1, 0].flatten()[targets[1][0].cells[0]] = 0.0
    ours = [t[0] for t in targets]
    wanted = 0.25 * math.log(2) / 3
    assert float(heat_loss(heat, ours)) == pytest.approx(wanted, rel=1e-4)
    weights = torch.tensor([4.0, 1.0])
    assert float(heat_loss(heat, ours, weights)) == pytest.approx(4 * wanted, rel=1e-4)


def test_an_offset_that_is_wrong_by_half_costs_an_eighth_of_its_share() -> None:
    targets, (first, _) = scene()
    offset = first.offset.clone()
    offset[0, 1].flatten()[targets[0][0].cells[1]] += 0.5
    assert float(offset_loss(offset, [t[0] for t in targets])) == pytest.approx(0.125 / 3)


def test_tags_of_each_picture_count_alike() -> None:
    targets, (first, second) = scene()
    tags = second.tag.clone()
    tags[0, 0].flatten()[targets[0][1].cells[0]] += 2.0
    pull, push = tag_losses(first.tag, tags, targets)
    # means are 1 and 3 then
    assert (float(pull), float(push)) == pytest.approx((2.0 / 2 / 2, 0.0))
    tags[0, 0].flatten()[targets[0][1].cells[0]] += 3.0
    pull, push = tag_losses(first.tag, tags, targets)  # means 2.5 and 3, pushed both ways
    assert (float(pull), float(push)) == pytest.approx((12.5 / 2 / 2, 0.5 / 2))


def test_within_a_crowd_nothing_is_background() -> None:
    crowd = torch.tensor([[96.0, 0.0, 191.0, 191.0]])
    targets = corner_targets(truth((3, 10, 88, 60, 0), crowds=crowd), (48, 48), (191, 191), 1)
    heat = torch.where(targets[0].heat == 1, 12.0, -12.0)[None]
    heat[..., 30:] = 5.0
    assert float(heat_loss(heat, [targets[0]])) < 1e-6
    heat[..., 20] = 5.0
    assert float(heat_loss(heat, [targets[0]])) > 1


def test_pictures_without_objects_teach_background_alone() -> None:
    targets = [corner_targets(truth(), (8, 8), (31, 31), 2)]
    maps = tuple(CornerMaps(*(torch.zeros(1, c, 8, 8, requires_grad=True) for c in (2, 1, 2))) for _ in range(2))
    losses = corner_losses((maps[0], maps[1]), targets, CornerWeights())
    torch.stack(list(losses.values())).sum().backward()
    assert float(losses["corners"].detach()) == pytest.approx(2 * 2 * 64 * 0.25 * math.log(2), rel=1e-4)
    assert [float(losses[n].detach()) for n in ("pull", "push", "offsets")] == [0, 0, 0]
