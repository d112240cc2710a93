import math

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.multibox import (
    MULTIBOX_CODEC,
    MultiBoxHead,
    MultiBoxSettings,
    decode_boxes,
    flat_boxes,
    hardest_negatives,
    match_default_boxes,
    multibox_answers,
    multibox_losses,
    separable,
)
from bestiary.heads.truth import Truth

BOXES = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20], [2, 2, 12, 12]])
SETTINGS = MultiBoxSettings()


def truth(*rows: tuple[float, ...], crowds: torch.Tensor | None = None) -> Truth:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    none = torch.zeros(0, 4) if crowds is None else crowds
    return Truth(table[:, :4].contiguous(), table[:, 4].long(), none)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_numbers_of_a_box_lie_side_by_side_cells_row_by_row() -> None:
    head = MultiBoxHead((3, 5), (2, 4), 6)
    raw = head([torch.randn(2, 3, 4, 3), torch.randn(2, 5, 2, 1)])
    assert [tuple(m.shape) for m in raw.logits] == [(2, 14, 4, 3), (2, 28, 2, 1)]
    flat = flat_boxes(raw.logits, 7)
    assert flat.shape == (2, 4 * 3 * 2 + 2 * 4, 7)
    first, second = raw.logits
    assert torch.equal(flat[1, (2 * 3 + 1) * 2 + 1], first[1, 7:14, 2, 1])
    assert torch.equal(flat[1, 24 + 4 + 3], second[1, 21:28, 1, 0])
    assert flat_boxes([m.bfloat16() for m in raw.deltas], 4).dtype == torch.float32


def test_predictors_start_with_glorots_spread_and_no_bias() -> None:
    torch.manual_seed(0)
    layer = MultiBoxHead((64,), (4,), 20).classification_head.module_list[0]
    weight = layer.get_parameter("weight").detach()
    assert float(weight.abs().max()) <= math.sqrt(6 / (9 * (64 + 84)))
    assert not layer.get_parameter("bias").any()
    thin = MultiBoxHead((64,), (4,), 20, separable).classification_head.module_list[0]
    assert sum(p.numel() for p in thin.parameters()) == 64 * 9 + 128 + 64 * 84 + 84


# -- learning ----------------------------------------------------------------------------------------------------------


def test_best_box_first_then_overlap_and_crowds_are_left_out() -> None:
    crowd = torch.tensor([[10.0, 10, 20, 20]])
    found = match_default_boxes(BOXES, truth((0, 0, 9, 9, 1), (11, 1, 15, 5, 0), crowds=crowd))
    assert found.kind.tolist() == [1, 1, 0, -1, 0]
    assert found.object[:2].tolist() == [0, 1]
    assert float(match_default_boxes(BOXES, truth((0, 0, 9, 9, 1)), 0.35).positive.sum()) == 2


def test_the_hardest_negatives_and_three_for_each_positive() -> None:
    losses = torch.tensor([[5.0, 1, 9, 3, 2, 7, 0.5], [5.0, 1, 9, 3, 2, 7, 0.5], [1.0, 1, 1, 1, 1, 1, 1]])
    positive = torch.zeros(3, 7, dtype=torch.bool)
    positive[0, 0] = positive[2, 0] = True
    negative = ~positive
    negative[0, 2] = False  # ignored, and the hardest
    chosen = hardest_negatives(losses, positive, negative, 3)
    assert chosen[0].nonzero()[:, 0].tolist() == [3, 4, 5]
    assert not chosen[1].any()
    assert chosen[2].nonzero()[:, 0].tolist() == [1, 2, 3]  # equal ones by their order
    assert int(hardest_negatives(losses, positive, negative, 100).sum()) == 5 + 6


def test_losses_by_hand() -> None:
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    truths = [truth((0, 0, 9, 9, 1)), truth((11, 1, 19, 9, 0), (1, 11, 9, 19, 1))]
    classification, box = multibox_losses(logits, deltas, BOXES, truths, MultiBoxSettings(negatives=1))
    loss = -logits.log_softmax(2)
    # Pictures' positives: box 0 is class 2; boxes 1 and 2 are classes 1 and 2. As many of the hardest backgrounds.
    first = loss[0, 0, 2] + loss[0, 1:, 0].max()
    second = loss[1, 1, 1] + loss[1, 2, 2] + loss[1, [0, 3, 4], 0].sort().values[1:].sum()
    assert float(classification) == pytest.approx(float(first + second) / 3, rel=1e-5)
    pairs = [(0, 0, (0, 0, 9, 9)), (1, 1, (11, 1, 19, 9)), (1, 2, (1, 11, 9, 19))]
    wanted = sum(
        F.smooth_l1_loss(
            deltas[b, a], MULTIBOX_CODEC.encode(torch.tensor([t]).float(), BOXES[a : a + 1])[0], reduction="sum"
        )
        for b, a, t in pairs
    )
    assert float(box) == pytest.approx(float(wanted) / 3, rel=1e-5)
    doubled = multibox_losses(logits, deltas, BOXES, truths, MultiBoxSettings(negatives=1, box_weight=2))[1]
    assert float(doubled) == pytest.approx(2 * float(box))


def test_only_the_chosen_boxes_have_a_gradient_and_weights_do_not_choose() -> None:
    logits, deltas = torch.zeros(1, 5, 3), torch.zeros(1, 5, 4)
    logits[0, 3, 1] = 4.0  # takes background for an object
    logits.requires_grad_()
    rules, given = MultiBoxSettings(negatives=1), [truth((0, 0, 9, 9, 1))]
    multibox_losses(logits, deltas, BOXES, given, rules)[0].backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum(1).nonzero()[:, 0].tolist() == [0, 3]
    with torch.no_grad():
        plain = multibox_losses(logits, deltas, BOXES, given, rules)[0]
        heavy = multibox_losses(logits, deltas, BOXES, given, rules, torch.tensor([1.0, 1.0, 5.0]))[0]
    assert float(heavy - plain) == pytest.approx(4 * math.log(3), rel=1e-5)


def test_pictures_without_objects_give_zero_with_a_gradient() -> None:
    logits, deltas = torch.randn(1, 5, 3, requires_grad=True), torch.randn(1, 5, 4, requires_grad=True)
    classification, box = multibox_losses(logits, deltas, BOXES, [truth()], SETTINGS)
    assert float(classification.detach()) == float(box.detach()) == 0
    (classification + box).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


# -- answers -----------------------------------------------------------------------------------------------------------


def test_offsets_of_the_truth_give_the_truth_back() -> None:
    moved = torch.tensor([[1.0, 1, 9, 12]]).repeat(5, 1)
    deltas = MULTIBOX_CODEC.encode(moved, BOXES)
    torch.testing.assert_close(decode_boxes(torch.stack([deltas, torch.zeros(5, 4)]), BOXES)[0], moved)
    torch.testing.assert_close(decode_boxes(torch.stack([deltas, torch.zeros(5, 4)]), BOXES)[1], BOXES)


def test_answers_are_clipped_suppressed_within_a_category_and_limited() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [-6, 0, 4, 10], [30, 30, 50, 45], [30, 30, 50, 45]])
    probs = torch.tensor([[0.6, 0.005], [0.5, 0.3], [0.2, 0.0], [0.0, 0.9], [0.0, 0.01]])
    found, labels, scores = multibox_answers(boxes, probs, (40, 40), SETTINGS)
    assert labels.tolist() == [1, 0, 1, 0]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6, 0.3, 0.2]))
    assert found.tolist() == [[30, 30, 40, 40], [0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 4, 10]]
    assert len(multibox_answers(boxes, probs, (40, 40), SETTINGS, max_detections=2)[0]) == 2
    few = MultiBoxSettings(candidates=1)
    assert multibox_answers(boxes, probs, (40, 40), few)[1].tolist() == [1, 0]
    assert len(multibox_answers(boxes, 0 * probs, (40, 40), SETTINGS)[0]) == 0


@pytest.mark.parametrize("wrong", [{"positive_iou": 0.0}, {"nms_iou": 1.5}, {"negatives": -1}, {"candidates": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        MultiBoxSettings(**wrong)  # type: ignore[arg-type]
