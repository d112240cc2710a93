"""Trunks of layers that follow one another."""

import pytest
import torch
from torch import nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.errors import UsageError


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 9, 1))


def test_maps_are_those_after_the_taps() -> None:
    features = layers()
    trunk = Chain(features, {1: Level("C1", 4, 2), 3: Level("C2", 6, 4)})
    pixels = torch.rand(2, 3, 16, 12)
    fine, coarse = trunk(pixels)
    assert torch.equal(fine, features[:2](pixels))
    assert torch.equal(coarse, features[:4](pixels))
    assert [fine.shape[1], coarse.shape[1]] == [level.channels for level in trunk.levels]


def test_layers_after_the_last_tap_are_left_out() -> None:
    trunk = Chain(layers(), {2: Level("C1", 4, 4)})
    assert set(trunk.state_dict()) == {"features.0.weight", "features.0.bias"}


@pytest.mark.parametrize("places", [[], [3, 1], [5], [-1]])
def test_taps_must_rise_inside_the_layers(places: list[int]) -> None:
    with pytest.raises(UsageError, match="rising positions"):
        Chain(layers(), {place: Level("C", 1, 1) for place in places})
