"""ShuffleNet V2 (Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design,
ECCV 2018).

Faithful: table 5 and the units of figure 3: half of the channels pass untouched, the other half through 1x1, 3x3
depthwise and 1x1 of equal widths, then both are shuffled. Names of the state are torchvision's, so its files load as
they are.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.pooled import PooledClassifier
from bestiary.heads.published import imagenet_categories
from bestiary.layers.channel_shuffle import interleave
from bestiary.layers.depthwise import DepthwiseConv2d
from bestiary.layers.frozen_norm import NormLayer

STEM_CHANNELS = 24
DEPTHS = (4, 8, 4)
LAYER_NAMES: Mapping[str, str] = {"C1": "conv1", "C2": "maxpool", "C3": "stage2", "C4": "stage3", "C5": "conv5"}
Widths = tuple[int, int, int, int]
X0_5: Widths = (48, 96, 192, 1024)
X1_0: Widths = (116, 232, 464, 1024)
X1_5: Widths = (176, 352, 704, 1024)
X2_0: Widths = (244, 488, 976, 2048)
"""Channels of stages 2, 3, 4 and of the last 1x1 convolution (table 5)."""


class KeepingUnit(nn.Module):
    """Figure 3c: splits the channels, works on the second half, shuffles.

    Args:
        channels: of input and output.
        norm: makes the normalisation layers.
    """

    branch2: nn.Sequential

    def __init__(self, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.branch2 = _branch(channels // 2, channels // 2, 1, norm)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """shuffle([x1, F(x2)])."""
        kept, worked = features.chunk(2, 1)
        return interleave(kept, self.branch2(worked))


class StridingUnit(nn.Module):
    """Figure 3d: both branches see all channels and halve the size.

    Args:
        in_channels: of the input.
        out_channels: of the output, half of them from each branch.
        norm: makes the normalisation layers.
    """

    branch1: nn.Sequential
    branch2: nn.Sequential

    def __init__(self, in_channels: int, out_channels: int, norm: NormLayer) -> None:
        super().__init__()
        half = out_channels // 2
        self.branch1 = nn.Sequential(
            DepthwiseConv2d(in_channels, 3, 2, 1),
            norm(in_channels),
            nn.Conv2d(in_channels, half, 1, bias=False),
            norm(half),
            nn.ReLU(True),
        )
        self.branch2 = _branch(in_channels, half, 2, norm)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """shuffle([G(x), F(x)])."""
        return interleave(self.branch1(features), self.branch2(features))


def _branch(in_channels: int, channels: int, stride: int, norm: NormLayer) -> nn.Sequential:
    """1x1, 3x3 depthwise without activation, 1x1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, bias=False),
        norm(channels),
        nn.ReLU(True),
        DepthwiseConv2d(channels, 3, stride, 1),
        norm(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
        nn.ReLU(True),
    )


class ShuffleNetV2(Trunk):
    """The trunk: pictures to C1 .. C5; C5 is the map after the last 1x1 convolution.

    Args:
        widths: `X0_5`, `X1_0`, `X1_5`, `X2_0`, or your own even numbers.
        small: 3x3 stem of stride 1 and no pooling, for small pictures.
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Attributes:
        levels: C1 .. C5.
    """

    conv1: nn.Sequential
    maxpool: nn.Module
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    conv5: nn.Sequential

    def __init__(
        self, widths: Widths, *, small: bool = False, norm: NormLayer = nn.BatchNorm2d, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels, stride = STEM_CHANNELS, 1 if small else 2
        stem = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.conv1 = nn.Sequential(stem, norm(channels), nn.ReLU(True))
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        levels = [Level("C1", channels, stride), Level("C2", channels, stride * (1 if small else 2))]
        for number, (depth, width) in enumerate(zip(DEPTHS, widths[:3], strict=True)):
            units = [StridingUnit(channels, width, norm), *(KeepingUnit(width, norm) for _ in range(depth - 1))]
            self.add_module(f"stage{number + 2}", nn.Sequential(*units))
            channels = width
            levels.append(Level(f"C{number + 3}", width, levels[-1].stride * 2))
        last = widths[3]
        self.conv5 = nn.Sequential(nn.Conv2d(channels, last, 1, bias=False), norm(last), nn.ReLU(True))
        levels[-1] = Level("C5", last, levels[-1].stride)
        self.levels = tuple(levels)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C1 .. C5."""
        return stages(self, pixels)


class ShuffleNetV2Classifier(PooledClassifier):
    """A `ShuffleNetV2` and its head. Arguments as `PooledClassifier`."""

    layer_names: ClassVar[Mapping[str, str]] = LAYER_NAMES
    conv1: nn.Sequential
    maxpool: nn.Module
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    conv5: nn.Sequential

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The trunk's levels, by the parts that are now its own."""
        return stages(self, pixels)


def stages(network: ShuffleNetV2 | ShuffleNetV2Classifier, pixels: Tensor) -> tuple[Tensor, ...]:
    """Stem, the three stages and the last convolution, whichever of the two classes holds them."""
    c1 = network.conv1(pixels)  # stride 2
    c2 = network.maxpool(c1)  # stride 4
    c3 = network.stage2(c2)  # stride 8
    c4 = network.stage3(c3)  # stride 16
    c5 = network.conv5(network.stage4(c4))  # stride 32
    return c1, c2, c3, c4, c5


def _classifier(
    widths: Widths,
    categories: Sequence[str] | None,
    resize: int,
    crop: int,
    label_smoothing: float,
    small: bool = False,
) -> ShuffleNetV2Classifier:
    names = imagenet_categories() if categories is None else categories
    trunk = ShuffleNetV2(widths, small=small)
    return ShuffleNetV2Classifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)


def shufflenet_v2_x0_5(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV2Classifier:
    """ShuffleNet V2 0.5x: 1,366,792 parameters with 1,000 categories. Any picture of a pixel or more.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier(X0_5, categories, resize, crop, label_smoothing)


def shufflenet_v2_x1_0(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV2Classifier:
    """ShuffleNet V2 1x: 2,278,604 parameters. Arguments as `shufflenet_v2_x0_5`."""
    return _classifier(X1_0, categories, resize, crop, label_smoothing)


def shufflenet_v2_x1_5(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV2Classifier:
    """ShuffleNet V2 1.5x: 3,503,624 parameters. Arguments as `shufflenet_v2_x0_5`."""
    return _classifier(X1_5, categories, resize, crop, label_smoothing)


def shufflenet_v2_x2_0(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> ShuffleNetV2Classifier:
    """ShuffleNet V2 2x: 7,393,996 parameters. Arguments as `shufflenet_v2_x0_5`."""
    return _classifier(X2_0, categories, resize, crop, label_smoothing)


def shufflenet_v2_cifar(
    categories: Sequence[str] | None = None, *, resize: int = 32, crop: int = 32, label_smoothing: float = 0.0
) -> ShuffleNetV2Classifier:
    """ShuffleNet V2 1x with a stride-1 stem and no pooling: the last map has 4x4 pixels. For 32x32 pictures.

    Arguments as `shufflenet_v2_x0_5`.
    """
    return _classifier(X1_0, categories, resize, crop, label_smoothing, small=True)
