import math

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.losses.classification import (
    IGNORED_INDEX,
    binary_cross_entropy_loss,
    cross_entropy_loss,
    mean_over_labelled,
    sigmoid_focal_loss,
)


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_cross_entropy_of_uniform_logits_is_log_k() -> None:
    got = cross_entropy_loss(torch.zeros(2, 3136), torch.tensor([5, 3000]))
    assert got.tolist() == pytest.approx([8.0507] * 2, abs=1e-4)
    assert got.tolist() == pytest.approx([math.log(3136)] * 2, abs=1e-5)


def test_label_smoothing_equals_its_formula() -> None:
    scores, labels, e = logits(6, 5), torch.tensor([0, 1, 2, 3, 4, 0]), 0.1
    log_probs = scores.log_softmax(dim=1)
    wanted = -((1 - e) * log_probs[torch.arange(6), labels] + e * log_probs.mean(dim=1))
    torch.testing.assert_close(cross_entropy_loss(scores, labels, e), wanted)
    torch.testing.assert_close(cross_entropy_loss(scores, labels, 0), F.cross_entropy(scores, labels, reduction="none"))


def test_ignored_pixels_have_no_loss_and_no_gradient() -> None:
    scores = logits(2, 3, 4, 5).requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, 0] = IGNORED_INDEX
    weights = torch.tensor([1.0, 2.0, 4.0]).double()
    for class_weights in (None, weights):
        loss = cross_entropy_loss(scores, labels, 0.1, class_weights=class_weights)
        assert loss.shape == (2, 4, 5)
        assert not loss[0, 0].any()
        (grad,) = torch.autograd.grad(mean_over_labelled(loss, labels), scores)
        assert not grad[0, :, 0].any()
        assert (grad[1] != 0).all()
    plain, weighted = cross_entropy_loss(scores, labels), cross_entropy_loss(scores, labels, class_weights=weights)
    torch.testing.assert_close(weighted[1], plain[1] * weights[labels[1]])
    torch.testing.assert_close(mean_over_labelled(plain, labels), F.cross_entropy(scores, labels))


def test_mean_over_nothing_is_zero_with_a_gradient() -> None:
    scores = logits(2, 3).requires_grad_()
    labels = torch.full((2,), 255)
    loss = mean_over_labelled(cross_entropy_loss(scores, labels, ignored_index=255), labels, 255)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_focal_loss_without_focus_is_binary_cross_entropy() -> None:
    scores, targets = logits(7, 4), (logits(7, 4, seed=1) > 0).double()
    plain = binary_cross_entropy_loss(scores, targets)
    torch.testing.assert_close(sigmoid_focal_loss(scores, targets, alpha=None, gamma=0), plain)
    torch.testing.assert_close(sigmoid_focal_loss(scores, targets, alpha=0.5, gamma=0), plain / 2)
    assert binary_cross_entropy_loss(torch.zeros(1), torch.ones(1)).item() == pytest.approx(0.6931, abs=1e-4)


def test_focal_loss_hand_worked() -> None:
    got = sigmoid_focal_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert got.tolist() == pytest.approx([0.0005, 0.0170], abs=5e-5)
    for p, factor in ((0.9, 0.01), (0.968, 0.001024)):
        x = torch.tensor([math.log(p / (1 - p))]).double()
        ratio = sigmoid_focal_loss(x, torch.ones(1).double(), alpha=None) / binary_cross_entropy_loss(
            x, torch.ones(1).double()
        )
        assert ratio.item() == pytest.approx(factor, rel=1e-6)


def test_focal_loss_of_sure_answers_is_finite_and_exact() -> None:
    # exp(-2 x) * log1p(exp(-x)) ~ exp(-3 x) survives where 1 - sigmoid(x) would be 0.
    x = torch.tensor([20.0, 60.0], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.ones(2), alpha=None)
    assert loss[0].item() == pytest.approx(math.exp(-60), rel=1e-3)
    loss.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    wrong = sigmoid_focal_loss(torch.tensor([-1000.0, 1000.0]), torch.tensor([1.0, 0.0]), alpha=None)
    assert wrong.tolist() == [1000, 1000]


def test_gradients() -> None:
    scores, targets = logits(3, 4).requires_grad_(), (logits(3, 4, seed=1) > 0).double()
    assert torch.autograd.gradcheck(lambda s: sigmoid_focal_loss(s, targets), (scores,))
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda s: cross_entropy_loss(s, labels, 0.2), (scores,))


def test_misfits_are_named() -> None:
    with pytest.raises(RecordError, match="0 to 1"):
        cross_entropy_loss(logits(2, 3), torch.tensor([0, 1]), 1.5)
    with pytest.raises(Exception, match=r"shape|dimension|type"):
        cross_entropy_loss(logits(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(Exception, match=r"shape|dimension|type"):
        sigmoid_focal_loss(logits(2, 3), logits(3))


def test_no_elements() -> None:
    assert cross_entropy_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert sigmoid_focal_loss(torch.zeros(0), torch.zeros(0)).shape == (0,)
