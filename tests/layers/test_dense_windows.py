"""All windows at once against each window cut out and seen alone."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.layers.dense_windows import dense, window_side
from bestiary.layers.scaled_tanh import ScaledTanh


def stack(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().eval()


STACKS = {
    "pools": lambda: stack(
        nn.Conv2d(2, 3, 4), nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.MaxPool2d(3), nn.Conv2d(4, 2, 2)
    ),
    "strides": lambda: stack(nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=3), nn.Conv2d(4, 2, 2)),
    "overlapping pools": lambda: stack(nn.Conv2d(2, 3, 2), nn.MaxPool2d(3, 2), ScaledTanh(), nn.Conv2d(3, 2, 3)),
    "dilated": lambda: stack(nn.Conv2d(2, 3, 3, dilation=2), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2, dilation=3)),
}


def one_by_one(layers: nn.Sequential, pixels: Tensor, side: int) -> Tensor:
    height, width = (n - side + 1 for n in pixels.shape[-2:])
    answers = pixels.new_zeros(len(pixels), 2, height, width)
    for y, x in itertools.product(range(height), range(width)):
        answers[..., y, x] = layers(pixels[..., y : y + side, x : x + side])[..., 0, 0]
    return answers


@pytest.mark.parametrize("name", STACKS)
def test_every_answer_is_that_of_its_window_alone(name: str) -> None:
    layers = STACKS[name]()
    side = window_side(layers)
    pixels = torch.rand(2, 2, side + 6, side + 5, dtype=torch.float64)
    assert layers(pixels[..., :side, :side]).shape[-2:] == (1, 1)
    found = dense(layers, pixels)
    assert found.shape[-2:] == (7, 6)
    assert torch.allclose(found, one_by_one(layers, pixels, side), rtol=0, atol=1e-12)


def test_windows_may_be_made_of_pixels_that_stand_apart() -> None:
    layers = STACKS["pools"]()
    pixels = torch.rand(1, 2, 60, 61, dtype=torch.float64)
    found = dense(layers, pixels, spacing=3)
    for top, left in itertools.product(range(3), range(3)):
        part = dense(layers, pixels[..., top::3, left::3])
        assert torch.allclose(found[..., top::3, left::3], part, rtol=0, atol=1e-12)


def test_window_side_by_hand() -> None:
    n4 = [layer for k in (4, 5, 4, 4) for layer in (nn.Conv2d(1, 1, k), nn.MaxPool2d(2))]
    assert window_side([*n4, nn.Conv2d(1, 1, 3)]) == 95
    assert window_side([]) == 1


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, (3, 1)), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)],
)
def test_layers_that_would_answer_otherwise_are_refused(layer: nn.Module) -> None:
    with pytest.raises(UsageError, match="without padding"):
        dense([layer], torch.zeros(1, 1, 8, 8))


def test_the_scaled_tangent_maps_one_to_one() -> None:
    found = ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0, 50.0]))
    assert torch.allclose(found, torch.tensor([-1.0, 0.0, 1.0, 1.7159]), atol=1e-4)


def test_gradients_are_finite_in_half_precision_with_channels_innermost() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(24, 24, 3), nn.MaxPool2d(2), nn.Conv2d(24, 24, 5), nn.MaxPool2d(2), nn.Conv2d(24, 9, 4)
    )
    layers = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randn(2, 24, 60, 60).to(memory_format=torch.channels_last)
    gradients = []
    for is_low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_low):
            dense(layers, pixels).float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in layers.parameters() if p.grad is not None]))
        layers.zero_grad()
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.05
