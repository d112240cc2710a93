"""ShuffleNet (Zhang, Zhou, Lin, Sun: ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices, CVPR 2018).

Faithful: table 1 (widths of equal cost for 1, 2, 3, 4 and 8 groups), units of figure 2: grouped 1x1 to a quarter of the
width, shuffle, 3x3 depthwise without activation, grouped 1x1; at stride 2 the averaged input is concatenated instead of
added. The first unit's first 1x1 has one group, as its input has 24 channels only. The paper does not tell how the net
starts: here by He's rule, fan-in, and the classifiers with every adding unit as the identity, without which the maps
grow from unit to unit until the last layer diverges.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.pooled import PooledClassifier
from bestiary.backbones.separable import initialise
from bestiary.errors import UsageError
from bestiary.heads.published import imagenet_categories
from bestiary.layers.channel_shuffle import channel_shuffle
from bestiary.layers.depthwise import DepthwiseConv2d
from bestiary.layers.frozen_norm import NormLayer

STEM_CHANNELS = 24
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Groups -> channels of stage 2; each stage after it has twice as many (table 1)."""
DEPTHS = (4, 8, 4)
LAYER_NAMES: Mapping[str, str] = {"C1": "conv1", "C2": "maxpool", "C3": "stage2", "C4": "stage3", "C5": "stage4"}


class ShuffleUnit(nn.Module):
    """A unit of figure 2: (b) at stride 1, (c) at stride 2.

    Args:
        in_channels: of the input.
        out_channels: of the output; at stride 2 those of the input are among them.
        stride: 1 or 2.
        groups: of the 1x1 convolutions, and what is shuffled.
        first_groups: of the first 1x1 convolution.
        norm: makes the normalisation layers.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int, norm: NormLayer
    ) -> None:
        super().__init__()
        inner, made = out_channels // 4, out_channels - in_channels if stride == 2 else out_channels
        self.groups = groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=first_groups, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = DepthwiseConv2d(inner, 3, stride, 1)
        self.bn2 = norm(inner)
        self.conv3 = nn.Conv2d(inner, made, 1, groups=groups, bias=False)
        self.bn3 = norm(made)
        self.shrink = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """relu(x + F(x)), or relu([average(x), F(x)])."""
        branch = F.relu(self.bn1(self.conv1(features)), inplace=True)
        if self.groups > 1:
            branch = channel_shuffle(branch, self.groups)
        branch = self.bn3(self.conv3(self.bn2(self.conv2(branch))))
        if self.shrink is None:
            return F.relu(features + branch, inplace=True)
        return F.relu(torch.cat([self.shrink(features), branch], 1), inplace=True)


class ShuffleNetV1(Trunk):
    """The trunk: pictures to C1 .. C5.

    Args:
        groups: 1, 2, 3, 4 or 8: a column of table 1.
        small: 3x3 stem of stride 1 and no pooling, for small pictures.
        zero_init_residual: start every unit that adds its input as the identity (Goyal et al., 2017, section 5.1).
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Attributes:
        levels: C1 .. C5.

    Raises:
        UsageError: another number of groups.
    """

    conv1: nn.Sequential
    maxpool: nn.Module
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(
        self,
        groups: int = 3,
        *,
        small: bool = False,
        zero_init_residual: bool = False,
        norm: NormLayer = nn.BatchNorm2d,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if groups not in WIDTHS:
            raise UsageError(f"got {groups}, wanted one of {', '.join(map(str, WIDTHS))}", where="groups")
        self.in_channels = in_channels
        channels, stride = STEM_CHANNELS, 1 if small else 2
        stem = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.conv1 = nn.Sequential(stem, norm(channels), nn.ReLU(True))
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        levels = [Level("C1", channels, stride), Level("C2", channels, stride * (1 if small else 2))]
        for number, depth in enumerate(DEPTHS):
            width = WIDTHS[groups] * 2**number
            first_groups = 1 if number == 0 else groups
            units = [ShuffleUnit(channels, width, 2, groups, first_groups, norm)]
            units += [ShuffleUnit(width, width, 1, groups, groups, norm) for _ in range(depth - 1)]
            self.add_module(f"stage{number + 2}", nn.Sequential(*units))
            channels = width
            levels.append(Level(f"C{number + 3}", width, levels[-1].stride * 2))
        self.levels = tuple(levels)
        initialise(self, "fan_in")
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, ShuffleUnit) and module.shrink is None:
                    nn.init.zeros_(module.bn3.weight)  # type: ignore[arg-type]

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C1 .. C5."""
        return stages(self, pixels)


class ShuffleNetV1Classifier(PooledClassifier):
    """A `ShuffleNetV1` and its head. Arguments as `PooledClassifier`."""

    layer_names: ClassVar[Mapping[str, str]] = LAYER_NAMES
    conv1: nn.Sequential
    maxpool: nn.Module
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(
        self,
        trunk: ShuffleNetV1,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(trunk, categories, resize=resize, crop=crop, label_smoothing=label_smoothing)
        initialise(self.fc)

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The trunk's levels, by the parts that are now its own."""
        return stages(self, pixels)


def stages(network: ShuffleNetV1 | ShuffleNetV1Classifier, pixels: Tensor) -> tuple[Tensor, ...]:
    """Stem and the three stages, whichever of the two classes holds them."""
    c1 = network.conv1(pixels)  # stride 2
    c2 = network.maxpool(c1)  # stride 4
    c3 = network.stage2(c2)  # stride 8
    c4 = network.stage3(c3)  # stride 16
    c5 = network.stage4(c4)  # stride 32
    return c1, c2, c3, c4, c5


def _classifier(
    groups: int, categories: Sequence[str] | None, resize: int, crop: int, label_smoothing: float, small: bool = False
) -> ShuffleNetV1Classifier:
    names = imagenet_categories() if categories is None else categories
    trunk = ShuffleNetV1(groups, small=small, zero_init_residual=True)
    return ShuffleNetV1Classifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)


def shufflenet_v1_g1(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of one group: 1,531,936 parameters with 1,000 categories. Any picture of a pixel or more.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier(1, categories, resize, crop, label_smoothing)


def shufflenet_v1_g2(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of two groups: 1,733,848 parameters. Arguments as `shufflenet_v1_g1`."""
    return _classifier(2, categories, resize, crop, label_smoothing)


def shufflenet_v1_g3(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of three groups: 1,865,728 parameters. Arguments as `shufflenet_v1_g1`."""
    return _classifier(3, categories, resize, crop, label_smoothing)


def shufflenet_v1_g4(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of four groups: 1,968,344 parameters. Arguments as `shufflenet_v1_g1`."""
    return _classifier(4, categories, resize, crop, label_smoothing)


def shufflenet_v1_g8(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of eight groups: 2,434,768 parameters. Arguments as `shufflenet_v1_g1`."""
    return _classifier(8, categories, resize, crop, label_smoothing)


def shufflenet_v1_cifar(
    categories: Sequence[str] | None = None, *, resize: int = 32, crop: int = 32, label_smoothing: float = 0.0
) -> ShuffleNetV1Classifier:
    """ShuffleNet of three groups with a stride-1 stem and no pooling: the last map has 4x4 pixels. For 32x32 pictures.

    Arguments as `shufflenet_v1_g1`.
    """
    return _classifier(3, categories, resize, crop, label_smoothing, small=True)
