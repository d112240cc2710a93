"""ResNet (He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016) and its two widenings,
ResNeXt (Xie et al., CVPR 2017: grouped 3x3) and Wide ResNet (Zagoruyko, Komodakis, BMVC 2016: twice the inner width).

Faithful: stem, depths, widths, projection shortcuts only where the shape changes (option B), batch norm after every
convolution, average pooling and one linear layer. Names of the state are torchvision's, so its files load as they are.
Not as the paper: the bottleneck strides on its 3x3 convolution, as torchvision's "v1.5" does. The original form, which
MSRA and Caffe files need, strides on the first 1x1: `MSRABottleneck`, `resnet50_msra`. Shapes agree, outputs do not.
`resnet18_cifar` is ImageNet's ResNet-18 with the 3x3 stem of section 4.2, not that section's 6n+2 layer network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.pooled import PooledClassifier
from bestiary.backbones.residual import BasicBlock, Block, Bottleneck, MSRABottleneck, conv3x3
from bestiary.errors import UsageError
from bestiary.heads.published import imagenet_categories
from bestiary.layers.frozen_norm import FrozenBatchNorm2d, NormLayer


@dataclass(frozen=True)
class Stem:
    """The first convolution: its kernel and stride, and whether 3x3/2 max pooling follows.

    `deep` puts two more 3x3 convolutions behind it, the last of them twice as wide (PSPNet's authors; "v1c").
    """

    kernel: int
    stride: int
    pool: bool
    deep: bool = False


IMAGENET_STEM = Stem(kernel=7, stride=2, pool=True)
SMALL_STEM = Stem(kernel=3, stride=1, pool=False)
DEEP_STEM = Stem(kernel=3, stride=2, pool=True, deep=True)


@dataclass(frozen=True)
class Variant:
    """One column of table 1: the block, how many a stage, the 3x3's groups and width per group at width 64, and the
    width of the stem and the first stage.
    """

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    groups: int = 1
    group_width: int = 64
    width: int = 64


VARIANTS: dict[str, Variant] = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3)),
    "resnet50_msra": Variant(MSRABottleneck, (3, 4, 6, 3)),
    "resnet101_msra": Variant(MSRABottleneck, (3, 4, 23, 3)),
    "resnext50_32x4d": Variant(Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": Variant(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Variant(Bottleneck, (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": Variant(Bottleneck, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": Variant(Bottleneck, (3, 4, 23, 3), 1, 128),
}


LAYER_NAMES: Mapping[str, str] = {f"conv{i + 1}_x": f"layer{i}" for i in range(1, 5)}
"""The stages of table 1, by which a net can be cut."""


class ResNet(Trunk):
    """The trunk: pictures to C2, C3, C4, C5.

    Args:
        variant: a row of `VARIANTS`, or your own.
        stem: `IMAGENET_STEM`, or `SMALL_STEM` for pictures of about 32x32.
        norm: makes every normalisation layer.
        dilate: for C3, C4, C5: keep the stride of the level before and dilate instead (Chen et al., DeepLab), so that
            (False, False, True) ends at stride 16 and (False, True, True) at stride 8.
        zero_init_residual: start every block as the identity (Goyal et al., 2017, section 5.1).
        in_channels: of the pictures.

    Attributes:
        levels: C2 .. C5.
    """

    layer_names: ClassVar[Mapping[str, str]] = LAYER_NAMES
    conv1: nn.Module
    bn1: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        variant: Variant,
        *,
        stem: Stem = IMAGENET_STEM,
        norm: NormLayer = nn.BatchNorm2d,
        dilate: tuple[bool, bool, bool] = (False, False, False),
        zero_init_residual: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = variant.width * (2 if stem.deep else 1)
        self.conv1 = _first_convolutions(stem, in_channels, variant.width, norm)
        self.bn1 = norm(channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem.pool else nn.Identity()
        dilation, reach, levels = 1, stem.stride * (2 if stem.pool else 1), []
        for stage, (depth, dilated) in enumerate(zip(variant.depths, (False, *dilate), strict=True)):
            width, stride, first_dilation = variant.width * 2**stage, 1 if stage == 0 or dilated else 2, dilation
            dilation = dilation * 2 if dilated else dilation
            blocks = []
            for i in range(depth):
                # The block that would have strided still sees the undilated map of the stage before it.
                step = (stride, first_dilation) if i == 0 else (1, dilation)
                blocks.append(variant.block(channels, width, *step, variant.groups, variant.group_width, norm))
                channels = width * variant.block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            reach *= stride
            levels.append(Level(f"C{stage + 2}", channels, reach))
        self.levels = tuple(levels)
        initialise(self, zero_init_residual)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C2 .. C5."""
        return stages(self, pixels)


class ResNetClassifier(PooledClassifier):
    """A `ResNet` and its head. Arguments as `PooledClassifier`."""

    layer_names: ClassVar[Mapping[str, str]] = {
        **LAYER_NAMES,
        **{f"C{i + 1}": f"layer{i}" for i in range(1, 5)},
        "pool5": "mean",
    }
    conv1: nn.Module
    bn1: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The trunk's levels, by the parts that are now its own."""
        return stages(self, pixels)


def _first_convolutions(stem: Stem, in_channels: int, width: int, norm: NormLayer) -> nn.Module:
    """What stands before the first norm."""
    first = nn.Conv2d(in_channels, width, stem.kernel, stem.stride, stem.kernel // 2, bias=False)
    if not stem.deep:
        return first
    second, third = conv3x3(width, width, 1), conv3x3(width, 2 * width, 1)
    return nn.Sequential(first, norm(width), nn.ReLU(inplace=True), second, norm(width), nn.ReLU(inplace=True), third)


def stages(network: ResNet | ResNetClassifier, pixels: Tensor) -> tuple[Tensor, ...]:
    """Stem and the four stages, whichever of the two classes holds them."""
    features = network.maxpool(F.relu(network.bn1(network.conv1(pixels)), inplace=True))
    c2 = network.layer1(features)  # stride 4
    c3 = network.layer2(c2)  # stride 8
    c4 = network.layer3(c3)  # stride 16
    c5 = network.layer4(c4)  # stride 32
    return c2, c3, c4, c5


def initialise(network: nn.Module, zero_init_residual: bool) -> None:
    """He et al., ICCV 2015, fan-out form, as torchvision; norms are born as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init_residual:
        for module in network.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)  # type: ignore[arg-type]


def freeze_stem(trunk: ResNet, trainable_layers: int) -> None:
    """Stop gradients to all but the last `trainable_layers` of stem, layer1 .. layer4 (5: all train).

    Raises:
        UsageError: not between 0 and 5.
    """
    if not 0 <= trainable_layers <= 5:
        raise UsageError(f"got {trainable_layers}, wanted 0 (all frozen) to 5 (all trained)", where="trainable_layers")
    parts = [[trunk.conv1, trunk.bn1], *([getattr(trunk, f"layer{i}")] for i in range(1, 5))]
    for part in parts[: 5 - trainable_layers]:
        for module in part:
            module.requires_grad_(False)


def frozen_norm(channels: int) -> nn.Module:
    """`FrozenBatchNorm2d` at its default eps: a `norm` part."""
    return FrozenBatchNorm2d(channels)


def _classifier(
    name: str,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    zero_init_residual: bool,
    label_smoothing: float,
    stem: Stem = IMAGENET_STEM,
) -> ResNetClassifier:
    names = imagenet_categories() if categories is None else categories
    trunk = ResNet(VARIANTS[name], stem=stem, zero_init_residual=zero_init_residual)
    return ResNetClassifier(trunk, names, resize=sizes[0], crop=sizes[1], label_smoothing=label_smoothing)


def resnet18(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-18: 11,689,512 parameters with 1,000 categories.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        zero_init_residual: start every block as the identity; helps training from scratch.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier("resnet18", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet34(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-34: 21,797,672 parameters. Arguments as `resnet18`."""
    return _classifier("resnet34", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet50(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-50, stride on the 3x3: 25,557,032 parameters. Arguments as `resnet18`."""
    return _classifier("resnet50", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet101(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-101, stride on the 3x3: 44,549,160 parameters. Arguments as `resnet18`."""
    return _classifier("resnet101", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet152(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-152, stride on the 3x3: 60,192,808 parameters. Arguments as `resnet18`."""
    return _classifier("resnet152", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet50_msra(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-50 as the paper has it, stride on the first 1x1: 25,557,032 parameters. Arguments as `resnet18`."""
    return _classifier("resnet50_msra", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnext50_32x4d(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNeXt-50 of 32 groups 4 wide: 25,028,904 parameters. Arguments as `resnet18`."""
    return _classifier("resnext50_32x4d", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnext101_32x8d(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNeXt-101 of 32 groups 8 wide: 88,791,336 parameters. Arguments as `resnet18`."""
    return _classifier("resnext101_32x8d", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnext101_64x4d(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNeXt-101 of 64 groups 4 wide: 83,455,272 parameters. Arguments as `resnet18`."""
    return _classifier("resnext101_64x4d", categories, (resize, crop), zero_init_residual, label_smoothing)


def wide_resnet50_2(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-50 with 3x3 convolutions twice as wide: 68,883,240 parameters. Arguments as `resnet18`."""
    return _classifier("wide_resnet50_2", categories, (resize, crop), zero_init_residual, label_smoothing)


def wide_resnet101_2(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ResNet-101 with 3x3 convolutions twice as wide: 126,886,696 parameters. Arguments as `resnet18`."""
    return _classifier("wide_resnet101_2", categories, (resize, crop), zero_init_residual, label_smoothing)


def resnet18_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    zero_init_residual: bool = False,
    label_smoothing: float = 0.0,
) -> ResNetClassifier:
    """ImageNet's ResNet-18 with a 3x3 stride-1 stem and no pooling: C2 has the pictures' own size. For 32x32 pictures.

    Not the 6n+2 layer networks of the paper's section 4.2, of which it takes the stem only. Arguments as `resnet18`.
    """
    return _classifier("resnet18", categories, (resize, crop), zero_init_residual, label_smoothing, SMALL_STEM)
