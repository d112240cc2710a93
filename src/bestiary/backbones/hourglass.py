"""Stacked hourglasses (Newell, Yang, Deng: Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016) in the form
that CornerNet uses (Law, Deng, ECCV 2018, section 3.5).

An hourglass halves the map several times, each time keeping a copy, and adds the copies back on its way up again. The
next hourglass starts from what the one before took and what it gave.

Faithful: residual modules (two 3x3, as ResNet's basic block) everywhere; maps are halved by a stride of 2, not by
pools, and doubled by nearest neighbours; the stem, a 7x7 of stride 2 and a residual of stride 2, brings the map to a
quarter. Weights start as torch's layers do, as in the authors' code.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.residual import BasicBlock
from bestiary.errors import UsageError

WIDTHS = (256, 256, 384, 384, 384, 512)
"""Channels at strides 4, 8 .. 128."""
REPEATS = (2, 2, 2, 2, 2, 4)
"""Residual modules in a row on the way down, aside and on the way up, at each of these strides."""


class ConvNormReLU(nn.Module):
    """Convolution that keeps the size at stride 1, batch norm or a bias, ReLU.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: odd side.
        stride: of the convolution.
        norm: batch norm; else a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else nn.Identity()

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolved, normalised, rectified."""
        return F.relu(self.bn(self.conv(maps)), inplace=True)


def residual(in_channels: int, out_channels: int, stride: int = 1) -> BasicBlock:
    """Two 3x3 convolutions and the shortcut."""
    return BasicBlock(in_channels, out_channels, stride, 1, 1, 64, nn.BatchNorm2d)


class Hourglass(nn.Module):
    """One hourglass; within it stands the next smaller one.

    Args:
        widths: channels at each size, fine to coarse; one more than the map is halved.
        repeats: residual modules in a row at each size.
    """

    up1: nn.Sequential
    low1: nn.Sequential
    low2: nn.Module
    low3: nn.Sequential

    def __init__(self, widths: Sequence[int], repeats: Sequence[int]) -> None:
        super().__init__()
        here, below, count = widths[0], widths[1], repeats[0]
        self.up1 = nn.Sequential(*(residual(here, here) for _ in range(count)))
        self.low1 = nn.Sequential(residual(here, below, 2), *(residual(below, below) for _ in range(count - 1)))
        if len(widths) > 2:
            self.low2 = Hourglass(widths[1:], repeats[1:])
        else:
            self.low2 = nn.Sequential(*(residual(below, below) for _ in range(repeats[1])))
        self.low3 = nn.Sequential(*(residual(below, below) for _ in range(count - 1)), residual(below, here))

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What was kept aside and what comes back from below, added; odd sizes come back as they were."""
        aside = self.up1(maps)
        low = self.low3(self.low2(self.low1(maps)))
        return aside + F.interpolate(low, size=aside.shape[-2:], mode="nearest")


class StackedHourglass(Trunk):
    """Pictures to one map of stride 4 a hourglass, all of one width.

    Args:
        stacks: hourglasses one after the other.
        widths: channels at strides 4, 8 ...
        repeats: residual modules in a row at each of them.
        stem_channels: after the 7x7 convolution.
        out_channels: of the maps that it gives.
        in_channels: of the pictures.

    Attributes:
        levels: H1, H2 ... in the order of the hourglasses.
        multiple: the sides of pictures that are one less than a multiple of this are halved without a rest.

    Raises:
        UsageError: no hourglass, or not one number of modules a width.
    """

    def __init__(
        self,
        stacks: int = 2,
        widths: Sequence[int] = WIDTHS,
        repeats: Sequence[int] = REPEATS,
        *,
        stem_channels: int = 128,
        out_channels: int = 256,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if stacks < 1 or len(widths) < 2 or len(widths) != len(repeats) or min(*widths, *repeats) < 1:
            got = f"got stacks={stacks}, widths={tuple(widths)}, repeats={tuple(repeats)}"
            raise UsageError(f"{got}, wanted a stack and as many repeats as widths, at least 2", where="Hourglass")
        width = widths[0]
        self.in_channels = in_channels
        self.levels = tuple(Level(f"H{n}", out_channels, 4) for n in range(1, stacks + 1))
        self.multiple = 4 * 2 ** (len(widths) - 1)
        self.stem = nn.Sequential(ConvNormReLU(in_channels, stem_channels, 7, 2), residual(stem_channels, width, 2))
        self.hourglasses = nn.ModuleList(Hourglass(widths, repeats) for _ in range(stacks))
        self.outs = nn.ModuleList(ConvNormReLU(width, out_channels) for _ in range(stacks))
        between = range(stacks - 1)
        self.taken = nn.ModuleList(linear_projection(width, width) for _ in between)
        self.given = nn.ModuleList(linear_projection(out_channels, width) for _ in between)
        self.joined = nn.ModuleList(residual(width, width) for _ in between)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B D H4 W4"], ...]:
        """The map that each hourglass gives."""
        maps, taken = [], self.stem(pixels)
        for i, (hourglass, out) in enumerate(zip(self.hourglasses, self.outs, strict=True)):
            maps.append(out(hourglass(taken)))
            if i < len(self.joined):
                taken = self.joined[i](F.relu(self.taken[i](taken) + self.given[i](maps[-1])))
        return tuple(maps)


def linear_projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm, also between equal numbers of channels."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
