import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.losses.regression import l1_loss, smooth_l1_loss, squared_error_loss


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hand_worked_numbers_on_both_sides_of_the_corner() -> None:
    got = smooth_l1_loss(torch.tensor([0.0, 0.5, 1.0, -3.0]), torch.zeros(4), beta=1)
    assert got.tolist() == [0, 0.125, 0.5, 2.5]
    # beta 1/9, as sigma 3: 0.5 (3 d)^2 below, |d| - 1/18 above.
    got = smooth_l1_loss(torch.tensor([0.1, 1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64), beta=1 / 9)
    assert got.tolist() == pytest.approx([0.045, 17 / 18], abs=1e-12)


@pytest.mark.parametrize("beta", [0.11, 1, 3.0])
def test_equals_torch(beta: float) -> None:
    a, b = values(5, 4), values(5, 4, seed=1)
    torch.testing.assert_close(smooth_l1_loss(a, b, beta), F.smooth_l1_loss(a, b, beta=beta, reduction="none"))


def test_beta_zero_is_l1_and_large_beta_a_scaled_square() -> None:
    a, b = values(50), values(50, seed=1)
    assert torch.equal(smooth_l1_loss(a, b, 0), l1_loss(a, b))
    torch.testing.assert_close(smooth_l1_loss(a, b, 100), squared_error_loss(a, b) / 200)


def test_gradients() -> None:
    a, b = values(12).requires_grad_(), values(12, seed=1)
    for loss in (lambda x: smooth_l1_loss(x, b, 0.5), lambda x: l1_loss(x, b), lambda x: squared_error_loss(x, b)):
        assert torch.autograd.gradcheck(loss, (a,))
    a = torch.zeros(1, requires_grad=True)
    smooth_l1_loss(a, torch.zeros(1), 0.1).sum().backward()
    assert a.grad is not None
    assert a.grad.item() == 0


def test_no_elements_and_misfits() -> None:
    assert smooth_l1_loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    with pytest.raises(RecordError, match="0 or more"):
        smooth_l1_loss(torch.zeros(1), torch.zeros(1), -1)
    with pytest.raises(Exception, match=r"shape|dimension|type"):  # never broadcast silently
        l1_loss(torch.zeros(3, 4), torch.zeros(4))
