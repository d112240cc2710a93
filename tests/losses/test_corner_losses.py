import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.losses.corners import corner_focal_loss, pull_loss, push_loss


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_hand_worked_numbers_of_the_focal_loss() -> None:
    probs, targets = [0.9, 0.9, 0.9, 0.1, 0.5], [1.0, 0.0, 0.5, 0.0, 0.99]
    got = corner_focal_loss(torch.tensor([logit(p) for p in probs]), torch.tensor(targets))
    wanted = [
        0.1**2 * -math.log(0.9),
        0.9**2 * -math.log(0.1),
        0.5**4 * 0.9**2 * -math.log(0.1),
        0.1**2 * -math.log(0.9),
        0.01**4 * 0.5**2 * -math.log(0.5),
    ]
    assert got.tolist() == pytest.approx(wanted, rel=1e-4)


def test_it_equals_the_formula_on_clamped_probabilities() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(400, generator=rng, dtype=torch.float64)
    targets = torch.rand(400, generator=rng, dtype=torch.float64)
    targets[::5] = 1
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    wanted = torch.where(targets == 1, -((1 - p) ** 2) * p.log(), -((1 - targets) ** 4) * p**2 * torch.log(1 - p))
    assert (p == 1e-4).any()
    torch.testing.assert_close(corner_focal_loss(logits, targets), wanted)


def test_without_exponents_it_is_cross_entropy() -> None:
    logits, targets = torch.randn(50, dtype=torch.float64), (torch.arange(50) % 3 == 0).double()
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(corner_focal_loss(logits, targets, alpha=0, beta=0), wanted)


def test_it_is_finite_with_finite_gradients_however_sure() -> None:
    logits = torch.tensor([-500.0, 500.0, -500.0, 500.0], requires_grad=True)
    loss = corner_focal_loss(logits, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    loss.sum().backward()
    assert loss.max().item() == pytest.approx(-math.log(1e-4), rel=1e-3)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gradients() -> None:
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(12, dtype=torch.float64)
    targets[0] = 1
    assert torch.autograd.gradcheck(lambda x: corner_focal_loss(x, targets), (logits,))


def test_equal_tags_are_not_pulled_and_distant_ones_not_pushed() -> None:
    tags = torch.tensor([0.0, 1.0, -2.5])
    assert pull_loss(tags, tags).tolist() == [0, 0, 0]
    assert push_loss(tags, tags).eq(0).all()


def test_pull_is_the_squared_distance_of_both_to_their_mean() -> None:
    a, b = torch.tensor([1.0, -2.0]), torch.tensor([4.0, -2.5])
    mean = (a + b) / 2
    torch.testing.assert_close(pull_loss(a, b), (a - mean) ** 2 + (b - mean) ** 2)


def test_push_by_hand() -> None:
    got = push_loss(torch.tensor([0.0, 0.1, 5.0]), torch.tensor([0.2, 0.5, 5.0]))  # means 0.1, 0.3, 5
    wanted = torch.tensor([[0, 0.8, 0], [0.8, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(got, wanted)
    assert push_loss(torch.tensor([3.0]), torch.tensor([3.0])).tolist() == [[0.0]]
    assert push_loss(torch.zeros(0), torch.zeros(0)).shape == (0, 0)


@pytest.mark.usefixtures("unchecked")
def test_other_shapes_are_refused() -> None:
    with pytest.raises(RecordError, match=r"got \(3,\) and \(4,\), wanted equal shapes"):
        corner_focal_loss(torch.zeros(3), torch.zeros(4))
