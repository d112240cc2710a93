"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks,
CVPR 2018).

Faithful: table 2, expansion before and linear projection after the depthwise convolution, ReLU6, shortcuts between the
narrow ends where stride is 1 and the width stays. Names of the state are torchvision's, so its files load as they are.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.separable import conv_norm, depthwise, initialise, make_divisible
from bestiary.backbones.stride_plan import StridePlan
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories
from bestiary.layers.activation import ReLU6
from bestiary.layers.frozen_norm import NormLayer

STEM_CHANNELS, LAST_CHANNELS = 32, 1280
TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and the first block's stride (table 2)."""


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, linear 1x1 (figure 4d).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        expansion: 1 leaves the first 1x1 out.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
        norm: makes the normalisation layers.
    """

    conv: nn.Sequential

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, stride: int, dilation: int, norm: NormLayer
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and in_channels == out_channels
        inner = in_channels * expansion
        layers = [] if expansion == 1 else [conv_norm(in_channels, inner, 1, norm, ReLU6)]
        layers.append(depthwise(inner, 3, norm, ReLU6, stride, dilation))
        self.conv = nn.Sequential(*layers, nn.Conv2d(inner, out_channels, 1, bias=False), norm(out_channels))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """F(x), plus x where it fits."""
        return features + self.conv(features) if self.adds else self.conv(features)


class MobileNetV2(Chain):
    """The trunk: pictures to C1 .. C5; C5 is the map after the last 1x1 convolution.

    Args:
        width: multiplies every number of channels, which then become multiples of 8; the last one never shrinks.
        skip_strides: so many of the first strides are 1 instead of 2, for small pictures.
        output_stride: 8 or 16: later strides become dilations; a block that would have strided still sees the map
            before it undilated.
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Attributes:
        layer_names: the levels' names, by which a net can be cut, and the parts that end there.

    Raises:
        UsageError: another output stride.
    """

    layer_names: Mapping[str, str]

    def __init__(
        self,
        width: float = 1.0,
        *,
        skip_strides: int = 0,
        output_stride: int = 32,
        norm: NormLayer = nn.BatchNorm2d,
        in_channels: int = 3,
    ) -> None:
        plan = StridePlan(skip_strides, output_stride)
        channels = make_divisible(STEM_CHANNELS * width)
        step = plan.layer(2, channels)
        layers: list[nn.Module] = [conv_norm(in_channels, channels, 3, norm, ReLU6, stride=step.stride)]
        for expansion, wanted, depth, first_stride in TABLE:
            out_channels = make_divisible(wanted * width)
            for i in range(depth):
                step = plan.layer(first_stride if i == 0 else 1, out_channels)
                layers.append(InvertedResidual(channels, out_channels, expansion, step.stride, step.dilation, norm))
                channels = out_channels
        last = make_divisible(LAST_CHANNELS * max(1.0, width))
        plan.layer(1, last)
        layers.append(conv_norm(channels, last, 1, norm, ReLU6))
        super().__init__(nn.Sequential(*layers), plan.taps(), in_channels)
        self.layer_names = plan.layer_names()
        initialise(self)


class MobileNetV2Classifier(Classifier):
    """A trunk, global average pooling, dropout and one linear layer.

    Args:
        trunk: the trunk, whose `features` become the classifier's.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        dropout: chance that a channel's average is dropped.
        label_smoothing: share of the target spread over all categories.
    """

    layer_names: Mapping[str, str]
    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(
        self,
        trunk: MobileNetV2,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories, resize=resize, crop=crop, label_smoothing=label_smoothing, in_channels=trunk.in_channels
        )
        self.features, self.layer_names = trunk.features, trunk.layer_names
        linear = nn.Linear(trunk.levels[-1].channels, len(self.categories))
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)
        initialise(self.classifier)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.features(pixels).mean((2, 3)))


def mobilenet_v2(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    width: float = 1.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> MobileNetV2Classifier:
    """MobileNetV2: 3,504,872 parameters with width 1 and 1,000 categories. Any picture of a pixel or more.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        width: multiplies every number of channels; the published files have 1.
        dropout: chance that a channel's average is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    names = imagenet_categories() if categories is None else categories
    return MobileNetV2Classifier(
        MobileNetV2(width), names, resize=resize, crop=crop, dropout=dropout, label_smoothing=label_smoothing
    )


def mobilenet_v2_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    width: float = 1.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> MobileNetV2Classifier:
    """MobileNetV2 whose first convolution has stride 1: maps of 32, 16, 8, 4 and 2 pixels. For 32x32 pictures.

    Arguments as `mobilenet_v2`.
    """
    names = imagenet_categories() if categories is None else categories
    trunk = MobileNetV2(width, skip_strides=1)
    return MobileNetV2Classifier(
        trunk, names, resize=resize, crop=crop, dropout=dropout, label_smoothing=label_smoothing
    )
