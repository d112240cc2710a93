"""Regions drawn, their losses, and boxes from outputs, by hand."""

import math

import pytest
import torch
from torch import Tensor

from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import RecordError, UsageError
from bestiary.heads.box import RegionSettings
from bestiary.heads.region_learning import (
    SampledRegions,
    decode_regions,
    hardest_regions,
    label_regions,
    mean_of_regions,
    proposals_of,
    region_losses,
    sample_regions,
    scale_target,
    weights_with_background,
)
from bestiary.heads.suppression import Suppression
from bestiary.heads.truth import Truth
from bestiary.records import Objects, Target

SETTINGS = RegionSettings(per_image=32, nms_iou=0.3)


def truth(*rows: tuple[float, float, float, float, int], crowds: Tensor | None = None) -> Truth:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Truth(table[:, :4].contiguous(), table[:, 4].long(), torch.zeros(0, 4) if crowds is None else crowds)


def wide(*widths: float) -> Tensor:
    """Boxes 20 high from the origin: their IoU with a 20 x 20 object there is width / 20."""
    return torch.tensor([[0.0, 0.0, width, 20.0] for width in widths])


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_objects_are_candidates_and_positives_come_first() -> None:
    goal = truth((0, 0, 20, 20, 1), (40, 40, 60, 60, 0))
    proposals = wide(10, 9.9)
    sampled = sample_regions(proposals, goal, SETTINGS)
    assert sampled.boxes_xyxy.tolist() == [proposals[0].tolist(), *goal.boxes_xyxy.tolist(), proposals[1].tolist()]
    assert sampled.classes.tolist() == [2, 2, 1, 0]
    assert sampled.truth_xyxy.tolist() == [goal.boxes_xyxy[i].tolist() for i in (0, 0, 1)]


def test_background_touches_an_object_by_a_tenth_at_least() -> None:
    far = torch.tensor([[70.0, 70.0, 90.0, 90.0]])
    proposals = torch.cat([wide(10, 9.9, 2, 1.9), far])  # IoU .5, .495, .1, .095, 0
    sampled = sample_regions(proposals, truth((0, 0, 20, 20, 0)), SETTINGS, background_from=0.1)
    assert sampled.classes.tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(sampled.boxes_xyxy[2:, 2], torch.tensor([9.9, 2.0]))


def test_without_objects_everything_is_background() -> None:
    sampled = sample_regions(wide(10, 3), truth(), SETTINGS, background_from=0.1)
    assert sampled.classes.tolist() == [0, 0]
    assert sampled.truth_xyxy.shape == (0, 4)


def test_at_most_a_quarter_of_the_regions_is_positive() -> None:
    proposals = torch.cat([wide(*[20.0] * 50), wide(*[5.0] * 50)])
    sampled = sample_regions(proposals, truth((0, 0, 20, 20, 1)), SETTINGS, background_from=0.1)
    assert sampled.classes.bincount().tolist() == [24, 0, 8]


def test_regions_on_a_crowd_are_neither() -> None:
    crowd = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    proposals = torch.tensor([[110.0, 110.0, 120.0, 120.0], [195.0, 195.0, 215.0, 215.0]])
    sampled = sample_regions(proposals, truth((0, 0, 20, 20, 0), crowds=crowd), SETTINGS)
    assert sampled.classes.tolist() == [1, 0]
    assert sampled.boxes_xyxy[1].tolist() == proposals[1].tolist()


def test_labelling_leaves_no_candidate_out() -> None:
    proposals = torch.cat([wide(*[20.0] * 50), wide(*[5.0] * 50)])
    assert label_regions(proposals, truth((0, 0, 20, 20, 1)), SETTINGS).classes.bincount().tolist() == [50, 0, 51]


# -- losses ------------------------------------------------------------------------------------------------------------

PAIR = SampledRegions(
    torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]),
    torch.tensor([2, 0]),
    torch.tensor([[1.0, 0.0, 11.0, 20.0]]),
)
"""A bee, whose offsets are dx 1, dy 5, dw 0, dh 5 log 2, and background."""


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_the_losses_by_hand(beta: float) -> None:
    deltas = torch.zeros(2, 3, 4)
    deltas[0, 2] = torch.tensor([0.95, 5.0, 2.0, 5 * math.log(2)])
    deltas[0, 1] = deltas[1] = 99.0  # other classes and the background must not matter
    classification, box = region_losses(torch.zeros(2, 3), deltas, [PAIR], beta=beta)
    assert classification.tolist() == pytest.approx([math.log(3)] * 2)
    assert box.tolist() == pytest.approx([0.5 * 0.05**2 / beta + 2 - 0.5 * beta, 0], rel=1e-4)
    means = mean_of_regions((classification, box))
    assert [float(m) for m in means] == pytest.approx([math.log(3), float(box[0]) / 2])


def test_only_the_true_class_moves_its_box() -> None:
    deltas = torch.zeros(2, 3, 4, requires_grad=True)
    region_losses(torch.zeros(2, 3), deltas, [PAIR])[1].sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.any(2).tolist() == [[False, False, True], [False, False, False]]


def test_any_object_moves_the_one_box_of_two_columns() -> None:
    deltas = torch.zeros(2, 2, 4, requires_grad=True)
    region_losses(torch.zeros(2, 3), deltas, [PAIR])[1].sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.any(2).tolist() == [[False, True], [False, False]]


def test_class_weights_are_factors_and_the_divisor_stays() -> None:
    weights = weights_with_background([0.5, 3.0], 2)
    losses = region_losses(torch.zeros(2, 3), torch.zeros(2, 3, 4), [PAIR], class_weights=weights)
    assert losses[0].tolist() == pytest.approx([3 * math.log(3), math.log(3)])
    assert float(mean_of_regions(losses)[0]) == pytest.approx(2 * math.log(3))
    assert weights_with_background(None, 2) is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0]])
def test_class_weights_that_cannot_be_are_named(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="wanted 2 positive numbers, one a category"):
        weights_with_background(weights, 2)


def test_no_region_at_all_costs_nothing() -> None:
    none = SampledRegions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    logits = torch.zeros(0, 3, requires_grad=True)
    means = mean_of_regions(region_losses(logits, torch.zeros(0, 3, 4), [none, none]))
    assert [float(m.detach()) for m in means] == [0, 0]
    means[0].backward()


def test_the_hardest_regions_are_chosen_in_each_picture() -> None:
    classification, box = torch.tensor([1.0, 5.0, 3.0, 9.0, 9.0, 0.0]), torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0, 1.0])
    assert hardest_regions((classification, box), [3, 3], 2).tolist() == [2, 1, 3, 4]
    assert hardest_regions((classification, box), [0, 6], 9).tolist() == [3, 4, 2, 1, 0, 5]
    chosen = mean_of_regions((classification, box), hardest_regions((classification, box), [6], 2))
    assert [float(c) for c in chosen] == [9, 0]


# -- answers -----------------------------------------------------------------------------------------------------------


def test_decoding_by_hand() -> None:
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [30.0, 30.0, 50.0, 50.0]])
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.06, 0.04, 0.9]]).log()
    deltas = torch.zeros(3, 3, 4)
    deltas[2, 2] = torch.tensor([5.0, 0.0, 0.0, 0.0])  # half a width to the right, and over the border
    boxes, labels, scores = decode_regions(logits, deltas, regions, (60, 55), SETTINGS)
    # The first region's ant (.3) yields to the second's (.7): IoU 9/11. Of the two bees of .1 one remains.
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.1])
    assert labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(boxes[:2], torch.tensor([[40.0, 30.0, 55.0, 50.0], [1.0, 0.0, 11.0, 10.0]]))


def test_two_columns_move_every_category_alike() -> None:
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 0] = 10.0
    deltas[0, 0] = 99.0
    region = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes, labels, _ = decode_regions(torch.zeros(1, 4), deltas, region, (60, 55), SETTINGS)
    assert boxes.tolist() == [[10, 0, 20, 10]] * 3
    assert labels.tolist() == [0, 1, 2]


def test_soft_suppression_lowers_and_the_number_of_answers_is_kept() -> None:
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [30.0, 30.0, 50.0, 50.0]])
    logits = torch.tensor([[0.4, 0.6], [0.3, 0.7], [0.5, 0.5]]).log()
    soft = Suppression("soft_linear")
    arguments = logits, torch.zeros(3, 2, 4), regions, (60, 60), SETTINGS
    boxes, _, scores = decode_regions(*arguments, suppression=soft)
    assert scores.tolist() == pytest.approx([0.7, 0.5, 0.6 * (1 - 9 / 11)], rel=1e-4)
    assert boxes.tolist() == regions[[1, 2, 0]].tolist()
    few = decode_regions(*arguments, suppression=soft, max_detections=2)
    assert [len(part) for part in few] == [2, 2, 2]


def test_decoding_is_the_inverse_of_what_is_learned() -> None:
    region, goal = torch.tensor([[10.0, 20.0, 40.0, 60.0]]), torch.tensor([[14.0, 15.0, 50.0, 48.0]])
    codec = BoxCodec((10.0, 10.0, 5.0, 5.0))
    deltas = codec.encode(goal, region)[:, None].expand(1, 2, 4)
    boxes, _, _ = decode_regions(torch.zeros(1, 2), deltas, region, (99, 99), SETTINGS)
    torch.testing.assert_close(boxes, goal)


# -- targets -----------------------------------------------------------------------------------------------------------


def test_missing_proposals_are_named_and_none_found_are_legal() -> None:
    with pytest.raises(RecordError, match=r"targets\[1\].proposals_xyxy: got None, wanted boxes"):
        proposals_of([Target(proposals_xyxy=torch.zeros(0, 4)), Target()])


def test_objects_and_proposals_move_with_the_picture() -> None:
    objects = Objects(torch.tensor([[2.0, 4.0, 20.0, 30.0]]), torch.tensor([1]), crowd=torch.tensor([True]))
    before = Target(objects=objects, proposals_xyxy=torch.tensor([[1.0, 1.0, 2.0, 3.0]]), caption="two")
    after = scale_target(before, (32, 48), (64, 144))
    assert after.objects is not None
    assert after.proposals_xyxy is not None
    assert after.objects.boxes_xyxy.tolist() == [[6, 8, 60, 60]]
    assert after.objects.crowd is not None
    assert after.proposals_xyxy.tolist() == [[3, 2, 6, 6]]
