"""SqueezeNext (Gholami et al.: SqueezeNext: Hardware-Aware Neural Network Design, CVPR workshops 2018).

Faithful to the networks that the authors released: blocks of two 1x1 convolutions that squeeze to a quarter, a 3x1 and
a 1x3 whose order alternates, and a 1x1 that widens, each with batch norm and ReLU; the widths and depths of 1.0 and 2.0
SqNxt-23 and of their v5; grouped convolutions in the "G" form; the 1x1 to 128 channels before the average. The v5 nets
feed the first block of a stage with the shortcut's projection, not with the stage's input.
Not as released: the last linear layer has a bias.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.pooled import PooledClassifier
from bestiary.heads.published import imagenet_categories
from bestiary.layers.frozen_norm import NormLayer

STEM_CHANNELS, LAST_CHANNELS = 64, 128


@dataclass(frozen=True)
class Variant:
    """A row of table 1 of the supplement.

    Attributes:
        depths: blocks of the four stages.
        width: multiplies the channels of the stages, 32, 64, 128 and 256.
        stem: kernel, stride and padding of the first convolution.
        pool: whether 3x3/2 max pooling follows it.
        groups: of the first 1x1 and the two separated convolutions of each block.
        projected: the first block of a stage works on the shortcut's projection.
    """

    depths: tuple[int, int, int, int]
    width: float = 1.0
    stem: tuple[int, int, int] = (7, 2, 0)
    pool: bool = True
    groups: int = 1
    projected: bool = False


VARIANTS: dict[str, Variant] = {
    "squeezenext23": Variant((6, 6, 8, 1)),
    "squeezenext23_grouped": Variant((6, 6, 8, 1), groups=2),
    "squeezenext23v5": Variant((2, 4, 14, 1), stem=(5, 2, 0), projected=True),
    "squeezenext23_x2": Variant((6, 6, 8, 1), 2.0),
    "squeezenext23v5_x2": Variant((2, 4, 14, 1), 2.0, stem=(5, 2, 0), projected=True),
    "squeezenext_cifar": Variant((6, 6, 8, 1), stem=(3, 1, 1), pool=False),
}

LAYER_NAMES: Mapping[str, str] = {"C1": "conv1", "C2": "stage1", "C3": "stage2", "C4": "stage3", "C5": "conv5"}


class SeparatedBlock(nn.Module):
    """1x1 to C/2, 1x1 to C/4, 3x1 and 1x3 of C/2, 1x1 to C, plus the shortcut (figure 1, right).

    Args:
        in_channels: of the input.
        channels: C, of the output.
        stride: of the first 1x1 and of the shortcut.
        place: in its stage: the first block's shortcut is a projection, even where the identity would fit; the order
            of 3x1 and 1x3 alternates.
        variant: groups and what the branch starts from.
        norm: makes the normalisation layers.
    """

    shortcut: nn.Module
    branch: nn.Sequential

    def __init__(
        self, in_channels: int, channels: int, stride: int, place: int, variant: Variant, norm: NormLayer
    ) -> None:
        super().__init__()
        half, quarter, groups = channels // 2, channels // 4, variant.groups
        projects = place == 0
        self.shortcut = _unit(in_channels, channels, (1, 1), stride, 1, norm) if projects else nn.Identity()
        self.starts_projected = projects and variant.projected
        start, step = (channels, 1) if self.starts_projected else (in_channels, stride)
        first, second = ((3, 1), (1, 3)) if place % 2 == 0 else ((1, 3), (3, 1))
        self.branch = nn.Sequential(
            _unit(start, half, (1, 1), step, groups, norm),
            _unit(half, quarter, (1, 1), 1, 1, norm),
            _unit(quarter, half, first, 1, groups, norm),
            _unit(half, half, second, 1, groups, norm),
            _unit(half, channels, (1, 1), 1, 1, norm),
        )

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """relu(shortcut(x) + F(x))."""
        shortcut = self.shortcut(features)
        return F.relu(shortcut + self.branch(shortcut if self.starts_projected else features), inplace=True)


def _unit(
    in_channels: int, channels: int, kernel: tuple[int, int], stride: int, groups: int, norm: NormLayer
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, norm(channels), nn.ReLU(True))


class SqueezeNext(Trunk):
    """The trunk: pictures to C1 .. C5; C5 is the map after the last 1x1 convolution.

    Args:
        variant: a row of `VARIANTS`, or your own.
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Attributes:
        levels: C1 .. C5.
    """

    conv1: nn.Sequential
    maxpool: nn.Module
    stage1: nn.Sequential
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    conv5: nn.Sequential

    def __init__(self, variant: Variant, *, norm: NormLayer = nn.BatchNorm2d, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        kernel, stride, padding = variant.stem
        stem = nn.Conv2d(in_channels, STEM_CHANNELS, kernel, stride, padding, bias=False)
        self.conv1 = nn.Sequential(stem, norm(STEM_CHANNELS), nn.ReLU(True))
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True) if variant.pool else nn.Identity()
        channels, levels = STEM_CHANNELS, [Level("C1", STEM_CHANNELS, stride)]
        stride *= 2 if variant.pool else 1
        for stage, depth in enumerate(variant.depths):
            width, blocks = int(32 * 2**stage * variant.width), []
            for i in range(depth):
                step = 2 if i == 0 and stage else 1
                blocks.append(SeparatedBlock(channels, width, step, i, variant, norm))
                channels, stride = width, stride * step
            self.add_module(f"stage{stage + 1}", nn.Sequential(*blocks))
            levels.append(Level(f"C{stage + 2}", width, stride))
        self.conv5 = _unit(channels, LAST_CHANNELS, (1, 1), 1, 1, norm)
        self.levels = (*levels[:-1], Level("C5", LAST_CHANNELS, stride))
        initialise(self)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C1 .. C5."""
        return stages(self, pixels)


class SqueezeNextClassifier(PooledClassifier):
    """A `SqueezeNext` and its head. Arguments as `PooledClassifier`."""

    min_side: ClassVar[int] = 9
    layer_names: ClassVar[Mapping[str, str]] = LAYER_NAMES
    conv1: nn.Sequential
    maxpool: nn.Module
    stage1: nn.Sequential
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    conv5: nn.Sequential

    def __init__(
        self,
        trunk: SqueezeNext,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 227,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(trunk, categories, resize=resize, crop=crop, label_smoothing=label_smoothing)
        initialise(self.fc)

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The trunk's levels, by the parts that are now its own."""
        return stages(self, pixels)


def stages(network: SqueezeNext | SqueezeNextClassifier, pixels: Tensor) -> tuple[Tensor, ...]:
    """Stem, the four stages and the last convolution, whichever of the two classes holds them."""
    c1 = network.conv1(pixels)  # stride 2
    c2 = network.stage1(network.maxpool(c1))  # stride 4
    c3 = network.stage2(c2)  # stride 8
    c4 = network.stage3(c3)  # stride 16
    c5 = network.conv5(network.stage4(c4))  # stride 32
    return c1, c2, c3, c4, c5


def initialise(network: nn.Module) -> None:
    """Caffe's "xavier", as released: uniform within sqrt(3 / fan-in)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _classifier(
    name: str, categories: Sequence[str] | None, resize: int, crop: int, label_smoothing: float
) -> SqueezeNextClassifier:
    names = imagenet_categories() if categories is None else categories
    trunk = SqueezeNext(VARIANTS[name])
    return SqueezeNextClassifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)


def squeezenext23(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 227, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """1.0-SqNxt-23: 718,280 parameters with 1,000 categories. Pictures of at least 9x9.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes; the release has 227.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier("squeezenext23", categories, resize, crop, label_smoothing)


def squeezenext23_grouped(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 227, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """1.0-G-SqNxt-23, of two groups: 544,072 parameters. Arguments as `squeezenext23`."""
    return _classifier("squeezenext23_grouped", categories, resize, crop, label_smoothing)


def squeezenext23v5(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 227, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """1.0-SqNxt-23v5, more blocks at stride 16: 931,016 parameters. Arguments as `squeezenext23`."""
    return _classifier("squeezenext23v5", categories, resize, crop, label_smoothing)


def squeezenext23_x2(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 227, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """2.0-SqNxt-23, twice as wide: 2,362,728 parameters. Arguments as `squeezenext23`."""
    return _classifier("squeezenext23_x2", categories, resize, crop, label_smoothing)


def squeezenext23v5_x2(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 227, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """2.0-SqNxt-23v5: 3,223,912 parameters. Arguments as `squeezenext23`."""
    return _classifier("squeezenext23v5_x2", categories, resize, crop, label_smoothing)


def squeezenext_cifar(
    categories: Sequence[str] | None = None, *, resize: int = 32, crop: int = 32, label_smoothing: float = 0.0
) -> SqueezeNextClassifier:
    """1.0-SqNxt-23 with a 3x3 stride-1 stem and no pooling: the last map has 4x4 pixels. For 32x32 pictures.

    Arguments as `squeezenext23`.
    """
    return _classifier("squeezenext_cifar", categories, resize, crop, label_smoothing)
