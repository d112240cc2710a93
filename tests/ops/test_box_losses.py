from collections.abc import Callable

import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.ops import box_losses
from bestiary.ops.box_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

Loss = Callable[..., torch.Tensor]
LOSSES: list[Loss] = [generalized_box_iou_loss, distance_box_iou_loss, complete_box_iou_loss]
A = torch.tensor([[10.0, 20, 50, 80], [0, 0, 30, 30], [5, 5, 5.5, 60]])
B = torch.tensor([[12.0, 18, 55, 70], [40, 40, 90, 60], [0, 0, 30, 30]])
# What torchvision 0.28 gives for these pairs.
WANTED = [
    [0.3249104, 1.6481481, 1.4780054],
    [0.3137767, 1.3183761, 1.0755193],
    [0.3138362, 1.3225155, 1.1239972],
]


@pytest.mark.parametrize("index", range(3))
def test_the_reference_s_numbers(index: int) -> None:
    loss, wanted = LOSSES[index], torch.tensor(WANTED[index])
    torch.testing.assert_close(loss(A, B), wanted, rtol=0, atol=3e-7)
    torch.testing.assert_close(loss(B, A), wanted, rtol=0, atol=3e-7)
    torch.testing.assert_close(loss(A, B, reduction="mean"), wanted.mean())
    torch.testing.assert_close(loss(A, B, reduction="sum"), wanted.sum())
    torch.testing.assert_close(loss(A[0], B[0]), wanted[0])
    torch.testing.assert_close(loss(A.bfloat16(), B.bfloat16()), loss(A.bfloat16().float(), B.bfloat16().float()))


@pytest.mark.parametrize("loss", LOSSES[:2])
def test_gradients_are_the_formula_s(loss: Loss) -> None:
    a, b = A.double().requires_grad_(), B.double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))


def test_hand_worked() -> None:
    # Unit squares two apart: hull 3 x 1, a third uncovered; centres 2 apart, diagonal squared 10; ratios equal.
    a, b = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]])
    assert float(generalized_box_iou_loss(a, b)) == pytest.approx(1 + 1 / 3)
    assert float(distance_box_iou_loss(a, b)) == pytest.approx(1.4)
    assert float(complete_box_iou_loss(a, b)) == pytest.approx(1.4)
    for loss in LOSSES:
        assert float(loss(a, a)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_boxes_and_no_boxes_stay_finite(loss: Loss) -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    value = loss(a, torch.zeros(1, 4))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    none = torch.zeros(0, 4, requires_grad=True)
    mean = loss(none, torch.zeros(0, 4), "mean")
    assert float(mean.detach()) == 0
    assert mean.requires_grad
    assert loss(none, torch.zeros(0, 4)).shape == (0,)


def test_misfits_are_named() -> None:
    with pytest.raises(UsageError, match="'avg', wanted none, mean or sum"):
        generalized_box_iou_loss(A, B, "avg")
    with pytest.raises(RecordError, match="equal shapes"):
        box_losses._require_pairs("loss", A, B[:1])
