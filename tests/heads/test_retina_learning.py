"""RetinaNet's assignment and losses by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE, Assignment
from bestiary.errors import UsageError
from bestiary.heads.retina_learning import (
    SMOOTH_BETA,
    RetinaSettings,
    assign_anchors,
    box_loss,
    class_loss,
    hard_examples,
    retina_losses,
)
from bestiary.heads.truth import Truth

FOCAL = RetinaSettings()
PLAIN = RetinaSettings(class_loss="cross_entropy")
OHEM = RetinaSettings(class_loss="ohem", hard_per_image=3)
NO_CROWD = torch.zeros(0, 4)
APART = torch.tensor([[30.0 * i, 0.0, 30.0 * i + 10, 10.0] for i in range(12)])


def kinds(*values: int) -> Assignment:
    return Assignment(torch.zeros(len(values), dtype=torch.int64), torch.tensor(values, dtype=torch.int8))


def focal(p: float, is_object: bool, alpha: float = 0.25) -> float:
    return -alpha * (1 - p) ** 2 * math.log(p) if is_object else -(1 - alpha) * p**2 * math.log(1 - p)


def test_anchors_are_assigned_by_hand() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0.0, 10.0, 5.0],  # IoU .5 with the first object: positive, at the threshold
            [0.0, 0.0, 10.0, 4.9],  # just below: ignored
            [0.0, 0.0, 10.0, 4.0],  # .4: at the lower threshold, ignored
            [0.0, 0.0, 10.0, 3.9],  # below: negative
            [50.0, 50.0, 60.0, 60.0],  # .25 with the second object, but its best: positive
            [90.0, 90.0, 99.0, 99.0],  # touches nothing: negative
        ]
    )
    truth = Truth(torch.tensor([[0.0, 0, 10, 10], [50, 50, 70, 70]]), torch.tensor([0, 1]), NO_CROWD)
    assignment = assign_anchors(anchors, truth, FOCAL)
    assert assignment.kind.tolist() == [POSITIVE, IGNORE, IGNORE, NEGATIVE, POSITIVE, NEGATIVE]
    assert assignment.object[[0, 4]].tolist() == [0, 1]
    without = assign_anchors(anchors, truth, replace(FOCAL, keep_best=False))
    assert without.kind.tolist() == [POSITIVE, IGNORE, IGNORE, NEGATIVE, NEGATIVE, NEGATIVE]


def test_the_focal_loss_is_the_sum_over_the_number_of_positives() -> None:
    probs = torch.tensor([[0.9, 0.2], [0.3, 0.6], [0.5, 0.5], [0.1, 0.05]])
    assignment = kinds(POSITIVE, POSITIVE, IGNORE, NEGATIVE)
    got = class_loss(probs.logit(), APART[:4], assignment, torch.tensor([1]), FOCAL)
    of_objects = [focal(0.9, False), focal(0.2, True), focal(0.3, False), focal(0.6, True)]
    wanted = (sum(of_objects) + focal(0.1, False) + focal(0.05, False)) / 2
    assert got.item() == pytest.approx(wanted, rel=1e-5)
    weighted = class_loss(probs.logit(), APART[:4], assignment, torch.tensor([1]), FOCAL, torch.tensor([7.0, 3.0]))
    assert weighted.item() == pytest.approx(wanted + 2 * sum(of_objects) / 2, rel=1e-5)


def test_without_gamma_and_alpha_it_is_the_plain_cross_entropy() -> None:
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    assignment, labels = kinds(*([POSITIVE] * 3 + [IGNORE] * 2 + [NEGATIVE] * 7)), torch.tensor([2])
    flat = class_loss(logits, APART, assignment, labels, replace(FOCAL, alpha=None, gamma=0))
    plain = class_loss(logits, APART, assignment, labels, PLAIN)
    torch.testing.assert_close(flat, plain)
    undecided = class_loss(torch.zeros(12, 4), APART, assignment, labels, PLAIN)
    assert undecided.item() == pytest.approx(10 * 4 * math.log(2) / 3)


@pytest.mark.parametrize("kind", ["focal", "cross_entropy", "ohem", "ohem_1_3"])
def test_ignored_anchors_change_nothing(kind: str) -> None:
    settings = RetinaSettings(class_loss=kind)  # type: ignore[arg-type]
    assignment, labels = kinds(*([POSITIVE] * 2 + [IGNORE] * 4 + [NEGATIVE] * 6)), torch.tensor([0])
    logits = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = class_loss(logits, APART, assignment, labels, settings)
    (grad,) = torch.autograd.grad(loss, logits)
    assert not grad[2:6].any()
    assert (grad[[0, 1, 6, 11]] != 0).all()
    other = torch.where((assignment.kind == IGNORE)[:, None], 50.0, logits.detach())
    torch.testing.assert_close(class_loss(other, APART, assignment, labels, settings), loss.detach())


def test_hard_examples_make_room_for_harder_ones() -> None:
    losses = torch.tensor([1.0, 5.0, 4.0, 3.0, 9.0, 2.0, 0.5])
    anchors = APART[:7].clone()
    anchors[2] = anchors[1] + 1.0  # IoU 81/119 with a harder one
    anchors[3] = anchors[1] + 4.0  # IoU 36/164: not enough
    assignment = kinds(NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE, IGNORE, NEGATIVE, NEGATIVE)
    assert hard_examples(losses, anchors, assignment, OHEM).tolist() == [1, 3, 5]
    assert hard_examples(losses, anchors, assignment, replace(OHEM, hard_iou=0.2)).tolist() == [1, 5, 0]


def test_of_hard_examples_one_to_three_all_positives_stay() -> None:
    losses = torch.arange(12.0)
    ratio = replace(OHEM, class_loss="ohem_1_3")
    assignment = kinds(POSITIVE, *([NEGATIVE] * 6), POSITIVE, *([NEGATIVE] * 4))
    assert hard_examples(losses, APART, assignment, ratio).tolist() == [11, 10, 9, 8, 7, 6, 5, 0]
    assert hard_examples(losses, APART, kinds(*[NEGATIVE] * 12), ratio).tolist() == [11, 10, 9]


def test_only_hard_examples_have_gradients_and_their_number_divides() -> None:
    logits = torch.tensor([[-1.0], [2.0], [3.0], [-4.0], [1.0], [-5.0]], requires_grad=True)
    assignment = kinds(POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE)
    loss = class_loss(logits, APART[:6], assignment, torch.tensor([0]), OHEM)
    (grad,) = torch.autograd.grad(loss, logits)
    # log(1 + e^1) = 1.313 of the positive and of the negative of logit 1: the first of equals stays
    assert grad.flatten().bool().tolist() == [True, True, True, False, False, False]
    wanted = sum(math.log1p(math.exp(x)) for x in (1.0, 2.0, 3.0)) / 3
    assert loss.item() == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou"])
def test_the_box_loss_by_hand(kind: str) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 20.0]])
    boxes = torch.tensor([[1.0, 0.0, 11.0, 20.0]])
    deltas = torch.zeros(3, 4)
    deltas[1] = 99.0  # of a negative: must not matter
    got = box_loss(deltas, anchors, kinds(POSITIVE, NEGATIVE, POSITIVE), boxes, kind)  # type: ignore[arg-type]
    # (x, y, log w, log h) of the object from the first anchor and from the third
    differences = [0.1, 0.5, 0.0, math.log(2), 0.1, 0.0, 0.0, 0.0]
    smooth = [0.5 * d * d / SMOOTH_BETA if d < SMOOTH_BETA else d - SMOOTH_BETA / 2 for d in differences]
    giou = [1 - 90 / 210 + 10 / 220, 1 - 180 / 220]
    wanted = {"l1": sum(differences), "smooth_l1": sum(smooth), "giou": sum(giou)}[kind]
    assert got.item() == pytest.approx(wanted / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou"])
def test_without_positives_the_box_loss_is_zero_with_a_gradient(kind: str) -> None:
    deltas = torch.ones(2, 4, requires_grad=True)
    loss = box_loss(deltas, APART[:2], kinds(NEGATIVE, NEGATIVE), torch.zeros(0, 4), kind)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    assert deltas.grad is not None
    assert not deltas.grad.any()


def test_pictures_count_alike_however_many_objects_they_hold() -> None:
    rng = torch.Generator().manual_seed(0)
    truths = [Truth(APART[:5].clone(), torch.zeros(5, dtype=torch.int64), NO_CROWD)]
    truths += [Truth(APART[:1].clone(), torch.ones(1, dtype=torch.int64), NO_CROWD)]
    logits, deltas = torch.randn(2, 12, 2, generator=rng), torch.randn(2, 12, 4, generator=rng)

    def both(rows: slice) -> Tensor:
        return torch.stack(retina_losses(logits[rows], deltas[rows], APART, truths[rows], FOCAL))

    torch.testing.assert_close(both(slice(0, 2)), (both(slice(0, 1)) + both(slice(1, 2))) / 2)


def test_an_anchor_that_lies_on_a_crowd_is_not_background() -> None:
    truth = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.tensor([[0.0, 0, 100, 100]]))
    kind = assign_anchors(APART, truth, FOCAL).kind.tolist()
    assert kind == [IGNORE] * 4 + [NEGATIVE] * 8


@pytest.mark.parametrize(
    ("field", "value"),
    [("class_loss", "hinge"), ("box_loss", "l2"), ("alpha", 1.0), ("gamma", -1.0), ("hard_per_image", 0)],
)
def test_settings_that_cannot_be_are_named(field: str, value: object) -> None:
    settings = RetinaSettings()
    object.__setattr__(settings, field, value)  # past the tests' own checking of types
    with pytest.raises(UsageError, match=field):
        settings.__post_init__()
