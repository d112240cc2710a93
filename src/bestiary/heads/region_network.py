"""What stands between a trunk and YOLOv2's cells, and what a cell's class numbers mean."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.darknet import Convolution, initialise
from bestiary.backbones.levels import Trunk
from bestiary.errors import UsageError
from bestiary.ops.reorg import reorg


class RegionNetwork(nn.Module):
    """A trunk, and what turns its maps into the cells' numbers. Parts stand in the order of Darknet's files.

    Args:
        trunk: its last two levels are a fine map and one of twice its stride.
        outputs: numbers a cell.
        width: channels of the 3x3 convolutions.
        convolutions: how many of them.
        passthrough: channels that the fine map is brought to, before its cells are stacked and join the input of the
            last convolution; 0 for none.

    Raises:
        UsageError: a passthrough without a fine map, or without a convolution to read it.
    """

    deep: nn.Sequential
    fine: Convolution | None
    joined: Convolution | None
    predictor: nn.Conv2d

    def __init__(
        self, trunk: Trunk, outputs: int, *, width: int = 1024, convolutions: int = 3, passthrough: int = 64
    ) -> None:
        super().__init__()
        levels = list(trunk.levels)
        fits = convolutions > 0 and len(levels) > 1 and levels[-1].stride == 2 * levels[-2].stride
        if passthrough and not fits:
            got = f"got levels {[level.name for level in levels]} and {convolutions} convolutions"
            raise UsageError(f"{got}, wanted a map of half the last stride and a convolution", where="passthrough")
        channels = [levels[-1].channels, *[width] * max(0, convolutions - 1)]
        self.trunk, self.stride = trunk, levels[-1].stride
        self.deep = nn.Sequential(*(Convolution(a, b, 3) for a, b in pairwise(channels)))
        self.fine = Convolution(levels[-2].channels, passthrough, 1) if passthrough else None
        self.joined = Convolution(4 * passthrough + channels[-1], width, 3) if convolutions else None
        self.predictor = nn.Conv2d(width if convolutions else channels[-1], outputs, 1)
        for part in (self.deep, self.fine, self.joined, self.predictor):
            if part is not None:
                initialise(part)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Raw numbers; sides of the pixels are multiples of the stride."""
        levels = self.trunk(pixels)
        maps = self.deep(levels[-1])  # stride 32
        if self.fine is not None:
            maps = torch.cat([reorg(self.fine(levels[-2])), maps], 1)  # stride 16 beneath
        return self.predictor(maps if self.joined is None else self.joined(maps))


class Classes(nn.Module):
    """What the M class numbers of a place mean. Here: K categories that exclude one another."""

    def probs(self, logits: Float[Tensor, "*N M"]) -> Float[Tensor, "*N K"]:
        """Probability of each category, given that there is an object."""
        return logits.softmax(-1)

    def losses(self, logits: Float[Tensor, "T M"], labels: Int64[Tensor, " T"]) -> Float[Tensor, " T"]:
        """Cross entropy, whose gradient is Darknet's."""
        return F.cross_entropy(logits, labels, reduction="none")
