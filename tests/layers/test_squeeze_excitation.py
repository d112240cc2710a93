"""Squeeze-and-excitation."""

import torch
from torch import nn
from torch.nn import functional as F

from bestiary.layers.squeeze_excitation import SqueezeExcitation


def test_channels_are_scaled_by_a_function_of_their_averages() -> None:
    torch.manual_seed(0)
    part = SqueezeExcitation(6, 2, nn.Sigmoid())
    features = torch.randn(3, 6, 5, 4)
    hidden = F.relu(F.linear(features.mean((2, 3)), part.fc1.weight[:, :, 0, 0], part.fc1.bias))
    gates = torch.sigmoid(F.linear(hidden, part.fc2.weight[:, :, 0, 0], part.fc2.bias))
    torch.testing.assert_close(part(features), features * gates[:, :, None, None])


def test_moving_pixels_about_moves_the_answer_likewise() -> None:
    torch.manual_seed(0)
    part = SqueezeExcitation(4, 2, nn.Hardsigmoid())
    features = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(part(features.flip(3)), part(features).flip(3))


def test_a_closed_gate_lets_nothing_through() -> None:
    part = SqueezeExcitation(4, 2, nn.Hardsigmoid())
    nn.init.zeros_(part.fc2.weight)
    nn.init.constant_(part.fc2.bias, -3.0)
    assert not part(torch.randn(2, 4, 3, 3)).any()
    nn.init.constant_(part.fc2.bias, 3.0)
    features = torch.randn(2, 4, 3, 3)
    assert torch.equal(part(features), features)
