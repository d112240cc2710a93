"""Blocks of VGG's kind whose poolings remember where each maximum was, and blocks that put values back there.

The "switches" of Zeiler and Fergus (ECCV 2014), as SegNet and DeconvNet use them. Layers have the names of the authors'
files: conv1_1, conv1_1_bn, ... from the finest block on, and within a block in the order of the data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.ops.unpooling import max_unpool

NORM_SHIFT = 0.001
"""Of fresh norms, in the authors' files of both systems."""


@dataclass(frozen=True, eq=False)
class Switches:
    """Where the maxima of one pooling were.

    Attributes:
        indices: in the plane that was pooled, row by row.
        size_hw: of that plane, which the indices do not tell: 5 and 6 rows pool to 3.
    """

    indices: Int64[Tensor, "B C H W"]
    size_hw: tuple[int, int]

    def put_back(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
        """Each value where the maximum was, zeros elsewhere."""
        return max_unpool(features, self.indices, self.size_hw)


class SwitchedEncoder(nn.ModuleDict):
    """Blocks of convolution, batch norm and ReLU, each ended by a 2x2 pooling.

    A last row or column without a partner is pooled alone (Caffe's rounding up): a picture of any size keeps a pixel.

    Args:
        in_channels: of the pictures.
        depths: convolutions of each block.
        widths: their channels.
        kernel_size: odd.
    """

    def __init__(self, in_channels: int, depths: Sequence[int], widths: Sequence[int], kernel_size: int = 3) -> None:
        super().__init__()
        self.blocks: list[list[str]] = []
        channels = in_channels
        for block, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            names = [f"conv{block}_{i}" for i in range(1, depth + 1)]
            for name in names:
                self[name] = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2)
                self[f"{name}_bn"] = fresh_norm(width)
                channels = width
            self.blocks.append(names)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C2 H2 W2"], tuple[Switches, ...]]:
        """The last pooled map, and the switches of all poolings, fine to coarse."""
        features, switches = pixels, []
        for names in self.blocks:
            for name in names:
                features = self[f"{name}_bn"](self[name](features)).relu()
            size_hw = (features.shape[-2], features.shape[-1])
            features, indices = F.max_pool2d(features, 2, ceil_mode=True, return_indices=True)
            switches.append(Switches(indices, size_hw))
        return features, tuple(switches)


class UnpoolingDecoder(nn.ModuleDict):
    """The way back: each pooling undone by its switches, which is no layer to learn, and then convolutions with batch
    norm.

    Args:
        in_channels: of the coarsest map.
        rows: widths of the convolutions after each unpooling, coarse to fine. The last of each is that of the finer
            block's pooled map, whose switches come next.
        kernel_size: odd.
        rectified: a ReLU after each norm.
        transposed: convolutions written as transposed ones of stride 1 ("deconvolutions").
    """

    def __init__(
        self,
        in_channels: int,
        rows: Sequence[Sequence[int]],
        kernel_size: int = 3,
        rectified: bool = True,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.blocks: list[list[str]] = []
        self.rectified = rectified
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        channels = in_channels
        for block, row in zip(range(len(rows), 0, -1), rows, strict=True):
            names = [f"conv{block}_{i}" for i in range(1, len(row) + 1)]
            for name, width in zip(names, row, strict=True):
                self[name] = kind(channels, width, kernel_size, padding=kernel_size // 2)
                self[f"{name}_bn"] = fresh_norm(width)
                channels = width
            self.blocks.append(names)

    def forward(self, features: Float[Tensor, "B C H W"], switches: Sequence[Switches]) -> Float[Tensor, "B C2 H2 W2"]:
        """Features of the size that the first pooling saw.

        Args:
            features: as large as the last pooling left them.
            switches: of the encoder, fine to coarse.
        """
        for names, where in zip(self.blocks, reversed(switches), strict=True):
            features = where.put_back(features)
            for name in names:
                features = self[f"{name}_bn"](self[name](features))
                features = features.relu() if self.rectified else features
        return features


def mirrored_rows(depths: Sequence[int], widths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Widths of the mirror image of an encoder's blocks, coarse to fine: as many convolutions a block, the last of each
    as wide as the next finer block; of the finest as wide as itself.
    """
    finer = [widths[0], *widths[:-1]]
    rows = [(*[w] * (d - 1), f) for d, w, f in zip(depths, widths, finer, strict=True)]
    return tuple(reversed(rows))


def fresh_norm(channels: int) -> LoneBatchNorm2d:
    """Batch norm with the start of the authors' files."""
    norm = LoneBatchNorm2d(channels)
    nn.init.constant_(norm.bias, NORM_SHIFT)
    return norm


def start_by_inputs(network: nn.Module) -> None:
    """Convolutions normal with sqrt(2 / inputs) (He et al., ICCV 2015: Caffe's "msra"), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # a transposed convolution of stride 1 is a convolution: each output has one value of every tap and channel
            inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
