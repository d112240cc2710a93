"""Structure of the hourglasses."""

import pytest
import torch
from torch import nn

from bestiary.backbones.hourglass import REPEATS, WIDTHS, Hourglass, StackedHourglass
from bestiary.backbones.levels import Level
from bestiary.errors import UsageError


def tiny(stacks: int = 2) -> StackedHourglass:
    torch.manual_seed(0)
    return StackedHourglass(stacks, (8, 12, 16), (1, 2, 1), stem_channels=4, out_channels=6).eval()


def parameters(widths: tuple[int, ...], repeats: tuple[int, ...]) -> int:
    """Of one hourglass, counted by hand."""

    def module(i: int, o: int, projected: bool = False) -> int:
        return 9 * i * o + 9 * o * o + 4 * o + projected * (i * o + 2 * o)

    total = repeats[-1] * module(widths[-1], widths[-1])
    for here, below, count in zip(widths, widths[1:], repeats, strict=False):
        aside, down = count * module(here, here), module(here, below, True) + (count - 1) * module(below, below)
        total += aside + down + (count - 1) * module(below, below) + module(below, here, here != below)
    return total


def test_convolutions_of_the_paper() -> None:
    with torch.device("meta"):
        trunk = StackedHourglass()
    one = trunk.hourglasses[0]
    assert [m.stride for m in one.modules() if isinstance(m, nn.Conv2d)].count((2, 2)) == 10  # 5 and their shortcuts
    assert not [m for m in trunk.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    widths = [m.out_channels for m in one.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)][::2]
    assert widths == [256, 384, 384, 384, 512]
    assert sum(p.numel() for p in one.parameters()) == parameters(WIDTHS, REPEATS)
    assert trunk.multiple == 128
    assert trunk.levels == (Level("H1", 256, 4), Level("H2", 256, 4))


@pytest.mark.parametrize("size", [(15, 31), (47, 15), (1, 1), (20, 33)])
def test_a_map_a_hourglass_at_a_quarter_also_of_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    trunk = tiny()
    maps = trunk(torch.rand(2, 3, *size))
    quarter = tuple(-(-side // 4) for side in size)
    assert [tuple(m.shape) for m in maps] == [(2, level.channels, *quarter) for level in trunk.levels]


def test_what_is_kept_aside_and_what_comes_from_below_are_added() -> None:
    hourglass = Hourglass((4, 6), (1, 1)).eval()
    maps = torch.randn(1, 4, 6, 8)
    aside, below = hourglass.up1(maps), hourglass.low3(hourglass.low2(hourglass.low1(maps)))
    assert below.shape == (1, 4, 3, 4)
    doubled = below.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(hourglass(maps), aside + doubled)


def test_the_first_hourglass_of_two_is_what_one_alone_would_be() -> None:
    two, one = tiny(2), tiny(1)
    one.load_state_dict({name: value for name, value in two.state_dict().items() if name in one.state_dict()})
    pixels = torch.rand(1, 3, 31, 31)
    torch.testing.assert_close(two(pixels)[0], one(pixels)[0])


def test_the_second_starts_from_what_the_first_took_and_gave() -> None:
    trunk, pixels = tiny(), torch.rand(1, 3, 31, 31)
    taken = trunk.stem(pixels)
    first = trunk.outs[0](trunk.hourglasses[0](taken))
    mixed = trunk.joined[0](torch.relu(trunk.taken[0](taken) + trunk.given[0](first)))
    torch.testing.assert_close(trunk(pixels)[1], trunk.outs[1](trunk.hourglasses[1](mixed)))


def test_numbers_that_do_not_fit_are_refused() -> None:
    for stacks, widths, repeats in ((0, (8, 8), (1, 1)), (1, (8,), (1,)), (1, (8, 8), (1,)), (1, (8, 8), (1, 0))):
        with pytest.raises(UsageError, match="wanted a stack and as many repeats as widths"):
            StackedHourglass(stacks, widths, repeats)
