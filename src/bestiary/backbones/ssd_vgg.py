"""VGG-16 as SSD makes a pyramid of it (Liu et al.: SSD: Single Shot MultiBox Detector, ECCV 2016, section 3, figure 2).

Faithful: the third pool rounds up (300 pixels: 38, 19, 10, 5, 3, 1), conv4_3 brought to the length 20 at every place by
a learned scale, the fifth pool 3x3 with stride 1, fc6 as a 3x3 convolution dilated by 6 and fc7 as a 1x1, both of
1,024 channels, and the authors' extra layers. Names of the state are torchvision's `ssd300_vgg16`.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.vgg import convolutions, initialise
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS, places, thinned_fully_connected

START_LENGTH = 20.0
"""Of conv4_3's vectors (section 3.1, after ParseNet)."""

FC_WIDTH = 1024

Extra = tuple[int, int, int, int, int]
"""Channels between, channels, kernel, stride and padding of a pair of convolutions, 1x1 and then larger."""

EXTRAS: Mapping[int, tuple[Extra, ...]] = {
    300: ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0)),
    512: ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 4, 1, 1)),
}
"""conv8 and what follows, for pictures of these sides. The last of 512 has a 4x4 kernel, which makes one place of two;
torchvision's layers for large pictures are others.
"""

STRIDES: Mapping[int, tuple[int, ...]] = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}


class SSDVGG(Trunk):
    """Pictures to maps: conv4_3, fc7, and one a pair of extra layers.

    Args:
        side: 300 or 512: which extra layers.

    Attributes:
        levels: of the maps; the last of 300 has steps of 100 and 300 pixels as the authors count them.
    """

    scale_weight: nn.Parameter
    features: nn.Sequential
    extra: nn.ModuleList

    def __init__(self, side: Literal[300, 512] = 300) -> None:
        super().__init__()
        self.side, self.in_channels = side, 3
        self.scale_weight = nn.Parameter(torch.full((WIDTHS[3],), START_LENGTH))
        layers, where = list(convolutions(DEPTHS["vgg16"], WIDTHS, False, 32, 3)), places(DEPTHS["vgg16"])
        layers[where["pool3"]] = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.features = nn.Sequential(*layers[: where["pool4"]])  # to conv4_3, stride 8
        fully = nn.Sequential(
            nn.MaxPool2d(3, 1, 1),  # pool5
            nn.Conv2d(WIDTHS[4], FC_WIDTH, 3, padding=6, dilation=6),  # fc6
            nn.ReLU(inplace=True),
            nn.Conv2d(FC_WIDTH, FC_WIDTH, 1),  # fc7, stride 16
            nn.ReLU(inplace=True),
        )
        further, channels = [], FC_WIDTH
        for extra in EXTRAS[side]:
            further.append(_pair(channels, extra))
            channels = extra[1]
        initialise(self.features)
        conv5 = nn.Sequential(*layers[where["pool4"] : where["pool5"]])
        initialise(conv5)
        self.extra = nn.ModuleList([nn.Sequential(*conv5, fully), *further])
        for part in (fully, *further):
            start_by_glorot(part)
        widths = (WIDTHS[3], FC_WIDTH, *(extra[1] for extra in EXTRAS[side]))
        self.levels = tuple(
            Level(name, width, stride)
            for name, width, stride in zip(_names(len(widths)), widths, STRIDES[side], strict=True)
        )

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """One map a level."""
        features = self.features(pixels)
        maps = [self.scale_weight.view(1, -1, 1, 1) * F.normalize(features)]
        for layers in self.extra:
            features = layers(features)
            maps.append(features)
        return tuple(maps)


def start_by_glorot(part: nn.Module) -> None:
    """Convolutions as Glorot and Bengio (uniform), biases 0: as the authors start what ImageNet has not trained."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def freeze_blocks(trunk: SSDVGG, count: int) -> None:
    """Stop gradients to the first `count` of VGG's blocks, 0 to 4."""
    pools = [place for place, layer in enumerate(trunk.features) if isinstance(layer, nn.MaxPool2d)]
    ends = [0, *pools, len(trunk.features)]
    for layer in list(trunk.features)[: ends[count]]:
        layer.requires_grad_(False)


def start_from_vgg(state: Mapping[str, Tensor], prefix: str = "backbone.") -> tuple[Mapping[str, Tensor], str]:
    """The convolutions of a VGG-16 classifier, and fc6 and fc7 thinned out, by the names of `SSDVGG`, and a line that
    says so; any other state as it is, with no line.

    Args:
        state: of the classifier, or of its convolutions alone.
        prefix: of the new names.
    """
    where = places(DEPTHS["vgg16"])
    names = {f"features.{place}.weight" for name, place in where.items() if name.startswith("conv")}
    if {name for name, value in state.items() if name.startswith("features.") and value.ndim == 4} != names:
        return state, ""
    taken, found = {}, "its convolutions"
    for name, value in state.items():
        if name.startswith("features."):
            place, kind = name.removeprefix("features.").split(".")
            beyond = int(place) - where["pool4"]
            own = f"features.{place}" if beyond < 0 else f"extra.0.{beyond}"
            taken[f"{prefix}{own}.{kind}"] = value
    thinned = thinned_fully_connected(state)
    if thinned:
        places_of = {"fc6": "extra.0.7.1", "fc7": "extra.0.7.3"}
        taken |= {f"{prefix}{places_of[name[:3]]}{name[3:]}": value for name, value in thinned.items()}
        found = "its convolutions, and fc6 and fc7 thinned out"
    return taken, f"starts from a classifier: {found}"


def _pair(in_channels: int, extra: Extra) -> nn.Sequential:
    between, out_channels, kernel, stride, padding = extra
    return nn.Sequential(
        nn.Conv2d(in_channels, between, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(between, out_channels, kernel, stride, padding),
        nn.ReLU(inplace=True),
    )


def _names(count: int) -> tuple[str, ...]:
    return ("conv4_3", "fc7", *(f"conv{number}_2" for number in range(8, 6 + count)))
