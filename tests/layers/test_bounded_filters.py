"""Filters stay inside the radius through training, and only through training."""

import pytest
import torch
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.layers.bounded_filters import BoundedConv2d


def grown(radius: float | None = 0.1) -> BoundedConv2d:
    """Filter 0 twice as large as the radius of 0.1, filter 1 half as large, filter 2 zero."""
    layer = BoundedConv2d(3, 3, 5, radius=radius)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
        layer.weight.mul_(torch.tensor([0.2, 0.05, 0.0]).view(3, 1, 1, 1) / rms(layer.weight).view(3, 1, 1, 1))
    return layer


def rms(weight: Tensor) -> Tensor:
    return weight.detach().square().mean((1, 2, 3)).sqrt()


def test_only_filters_beyond_the_radius_are_scaled_and_keep_their_direction() -> None:
    layer = grown()
    before = layer.weight.detach().clone()
    layer(torch.rand(1, 3, 8, 8))
    torch.testing.assert_close(rms(layer.weight), torch.tensor([0.1, 0.05, 0.0]))
    torch.testing.assert_close(layer.weight[0], before[0] / 2)
    assert torch.equal(layer.weight[1:], before[1:])


def test_the_output_is_that_of_the_scaled_filters() -> None:
    layer, pixels = grown(), torch.rand(2, 3, 9, 9)
    found = layer(pixels)
    torch.testing.assert_close(found, nn.functional.conv2d(pixels, layer.weight, layer.bias))


def test_scaling_again_changes_no_bit() -> None:
    layer = grown()
    layer.shrink()
    once = layer.weight.detach().clone()
    for _ in range(3):
        layer.shrink()
    assert torch.equal(layer.weight, once)


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_training_cannot_leave_the_radius(optimiser: type[torch.optim.Optimizer]) -> None:
    layer = grown()
    steps = optimiser(layer.parameters(), lr=0.5)  # type: ignore[call-arg]
    for _ in range(5):
        steps.zero_grad()
        (-layer(torch.rand(2, 3, 8, 8)).square().mean()).backward()
        steps.step()
    assert rms(layer.weight).max() > 0.11, "the last step went beyond, or the test shows nothing"
    layer.eval()
    assert rms(layer.weight).max() < 0.1001


def test_weights_that_are_only_used_or_frozen_stay() -> None:
    used, frozen = grown(), grown()
    frozen.requires_grad_(False)
    for layer in (used.eval(), frozen):
        before = layer.weight.detach().clone()
        layer(torch.rand(1, 3, 8, 8))
        layer.train()
        layer.eval()
        assert torch.equal(layer.weight, before)


def test_no_radius_is_a_plain_convolution() -> None:
    layer = grown(None)
    layer(torch.rand(1, 3, 8, 8))
    assert float(rms(layer.weight)[0]) == pytest.approx(0.2)


@pytest.mark.parametrize("radius", [0, -0.1])
def test_a_radius_is_positive(radius: float) -> None:
    with pytest.raises(UsageError, match="above 0, or none"):
        BoundedConv2d(1, 1, 3, radius=radius)
