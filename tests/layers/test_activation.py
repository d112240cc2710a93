"""ReLU6 and hard swish: values, gradients, and what happens to the input."""

import pytest
import torch
from torch import nn

from bestiary.layers.activation import Hardswish, ReLU6


def test_hard_swish_at_its_corners() -> None:
    values = torch.tensor([-4.0, -3.0, 0.0, 1.0, 3.0, 5.0])
    wanted = torch.tensor([0.0, 0.0, 0.0, 2 / 3, 3.0, 5.0])
    torch.testing.assert_close(Hardswish()(values), wanted)


def test_relu6_is_clipped_on_both_sides() -> None:
    values = torch.tensor([-1.0, 0.0, 2.5, 6.0, 7.0])
    assert ReLU6()(values).tolist() == [0.0, 0.0, 2.5, 6.0, 6.0]


@pytest.mark.parametrize("kind", [ReLU6, Hardswish])
def test_the_input_is_overwritten_in_evaluation_only(kind: type[nn.Module]) -> None:
    values = torch.linspace(-5, 8, 14)
    for training in (True, False):
        given = values.clone()
        out = kind().train(training)(given)
        assert torch.equal(given, values) is training
        assert (out.data_ptr() == given.data_ptr()) is not training


@pytest.mark.parametrize("kind", [ReLU6, Hardswish])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_right_in_both_modes(kind: type[nn.Module], training: bool) -> None:
    values = torch.tensor([-4.5, -2.0, -0.5, 0.7, 2.9, 5.0, 7.0], dtype=torch.float64, requires_grad=True)
    activation = kind().train(training)
    assert torch.autograd.gradcheck(lambda x: activation(x * 1.0), values)
