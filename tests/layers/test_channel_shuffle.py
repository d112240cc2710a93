"""Channel shuffle."""

import pytest
import torch
from torch import nn

from bestiary.layers.channel_shuffle import channel_shuffle, interleave


def test_channels_are_dealt_out_one_of_each_group_in_turn() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (12, 4), (240, 3), (8, 1), (8, 8)])
def test_shuffling_by_the_other_factor_undoes_it(channels: int, groups: int) -> None:
    features = torch.randn(2, channels, 3, 5)
    assert torch.equal(channel_shuffle(channel_shuffle(features, groups), channels // groups), features)


def test_it_is_torchs() -> None:
    features = torch.randn(2, 12, 3, 4)
    assert torch.equal(channel_shuffle(features, 3), nn.ChannelShuffle(3)(features))


def test_interleaving_is_concatenating_and_shuffling() -> None:
    first, second = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    assert torch.equal(interleave(first, second), channel_shuffle(torch.cat([first, second], 1), 2))


@pytest.mark.parametrize("shuffled", [False, True])
def test_only_the_shuffle_lets_groups_talk(shuffled: bool) -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(6, 6, 1, groups=3), nn.Conv2d(6, 6, 1, groups=3)
    features = torch.randn(1, 6, 4, 4, requires_grad=True)
    between = first(features)
    out = second(channel_shuffle(between, 3) if shuffled else between)
    (gradient,) = torch.autograd.grad(out[:, :2].sum(), features)  # of the first group's output
    assert gradient[:, :2].any()
    assert bool(gradient[:, 2:].any()) is shuffled
