"""Blocks and stages of SqueezeNext."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.squeezenext import VARIANTS, SeparatedBlock, SqueezeNext, Variant, squeezenext23

PLAIN, PROJECTED = Variant((1, 1, 1, 1)), Variant((1, 1, 1, 1), projected=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def convolutions(block: SeparatedBlock) -> list[nn.Conv2d]:
    return [module for module in block.branch.modules() if isinstance(module, nn.Conv2d)]


def test_a_block_squeezes_twice_and_separates_the_3x3() -> None:
    first, second = (SeparatedBlock(32, 32, 1, place, PLAIN, nn.BatchNorm2d) for place in (2, 1))
    assert [conv.out_channels for conv in convolutions(first)] == [16, 8, 16, 16, 32]
    assert [conv.kernel_size for conv in convolutions(first)] == [(1, 1), (1, 1), (3, 1), (1, 3), (1, 1)]
    assert [conv.kernel_size for conv in convolutions(second)] == [(1, 1), (1, 1), (1, 3), (3, 1), (1, 1)]


def test_the_first_block_of_a_stage_projects_even_where_the_width_stays() -> None:
    first, later = (SeparatedBlock(32, 32, 1, place, PLAIN, nn.BatchNorm2d) for place in (0, 1))
    assert not isinstance(first.shortcut, nn.Identity)
    assert isinstance(later.shortcut, nn.Identity)
    features = torch.rand(1, 32, 5, 5)
    torch.testing.assert_close(later.eval()(features), F.relu(features + later.branch(features)))


def test_version_5_works_on_the_projection() -> None:
    plain, projected = (SeparatedBlock(32, 64, 2, 0, v, nn.BatchNorm2d).eval() for v in (PLAIN, PROJECTED))
    assert (convolutions(plain)[0].in_channels, convolutions(plain)[0].stride) == (32, (2, 2))
    assert (convolutions(projected)[0].in_channels, convolutions(projected)[0].stride) == (64, (1, 1))
    features = torch.rand(1, 32, 9, 9)
    shortcut = projected.shortcut(features)
    torch.testing.assert_close(projected(features), F.relu(shortcut + projected.branch(shortcut)))
    assert plain(features).shape == projected(features).shape == (1, 64, 5, 5)


def test_groups_are_those_of_the_first_1x1_and_the_separated_pair() -> None:
    block = SeparatedBlock(32, 32, 1, 1, VARIANTS["squeezenext23_grouped"], nn.BatchNorm2d)
    assert [conv.groups for conv in convolutions(block)] == [2, 1, 2, 2, 1]


def test_map_sizes_of_the_releases_crop() -> None:
    maps = SqueezeNext(VARIANTS["squeezenext23"]).eval()(torch.rand(1, 3, 227, 227))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 111, 111),
        (32, 55, 55),
        (64, 28, 28),
        (128, 14, 14),
        (128, 7, 7),
    ]


def test_it_starts_as_caffes_xavier() -> None:
    net = squeezenext23()
    conv, bound = net.conv1[0], (3 / (3 * 49)) ** 0.5
    assert isinstance(conv, nn.Conv2d)
    assert float(conv.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(conv.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not net.fc.bias.any()
