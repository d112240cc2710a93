"""MobileNet (Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017).

Faithful: table 1 (one full convolution, 13 depthwise separable blocks, average pooling, one linear layer), batch norm
and ReLU after both convolutions of a block, the width multiplier. Not as the authors' release, which differs from the
paper in this: it has ReLU6, an epsilon of 1e-3 in its norms, and pads on the right and bottom only at stride 2
(TensorFlow's "SAME"); here padding is one pixel on every side, so that the centres of the maps differ by half a step.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.separable import conv_norm, depthwise, initialise, relu
from bestiary.backbones.stride_plan import StridePlan
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories
from bestiary.layers.frozen_norm import NormLayer

STEM_CHANNELS = 32
BLOCKS = (
    (64, 1),
    (128, 2), (128, 1),
    (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels and stride of each block (table 1). The table prints stride 2 for the last too, whose sizes need 1."""


class SeparableBlock(nn.Module):
    """A 3x3 filter for every channel, then a 1x1 convolution across them (figure 3, right)."""

    depthwise: nn.Sequential
    pointwise: nn.Sequential

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, norm: NormLayer) -> None:
        super().__init__()
        self.depthwise = depthwise(in_channels, 3, norm, relu, stride, dilation)
        self.pointwise = conv_norm(in_channels, out_channels, 1, norm, relu)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Filter, then mix."""
        return self.pointwise(self.depthwise(features))


class MobileNetV1(Chain):
    """The trunk: pictures to C1 .. C5.

    Args:
        width: multiplies every number of channels (alpha in the paper).
        skip_strides: so many of the first strides are 1 instead of 2, for small pictures.
        output_stride: 8 or 16 for a dilated trunk.
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
        channels = max(8, int(STEM_CHANNELS * width))
        step = plan.layer(2, channels)
        layers: list[nn.Module] = [conv_norm(in_channels, channels, 3, norm, relu, stride=step.stride)]
        for wanted, stride in BLOCKS:
            out_channels = max(8, int(wanted * width))
            step = plan.layer(stride, out_channels)
            layers.append(SeparableBlock(channels, out_channels, step.stride, step.dilation, norm))
            channels = out_channels
        super().__init__(nn.Sequential(*layers), plan.taps(), in_channels)
        self.layer_names = plan.layer_names()
        initialise(self, "fan_in")


class MobileNetV1Classifier(Classifier):
    """A trunk, global average pooling and one linear layer.

    Args:
        trunk: the trunk, whose `features` become the classifier's.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
    """

    layer_names: Mapping[str, str]
    features: nn.Sequential
    classifier: nn.Linear

    def __init__(
        self,
        trunk: MobileNetV1,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories, resize=resize, crop=crop, label_smoothing=label_smoothing, in_channels=trunk.in_channels
        )
        self.features, self.layer_names = trunk.features, trunk.layer_names
        self.classifier = nn.Linear(trunk.levels[-1].channels, len(self.categories))
        initialise(self.classifier)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.features(pixels).mean((2, 3)))


def _classifier(
    width: float,
    categories: Sequence[str] | None,
    resize: int,
    crop: int,
    label_smoothing: float,
    skip_strides: int = 0,
) -> MobileNetV1Classifier:
    names = imagenet_categories() if categories is None else categories
    trunk = MobileNetV1(width, skip_strides=skip_strides)
    return MobileNetV1Classifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)


def mobilenet_v1(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> MobileNetV1Classifier:
    """MobileNet of full width: 4,231,976 parameters with 1,000 categories. Any picture of a pixel or more.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier(1.0, categories, resize, crop, label_smoothing)


def mobilenet_v1_x0_75(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> MobileNetV1Classifier:
    """MobileNet 0.75: 2,585,560 parameters. Arguments as `mobilenet_v1`."""
    return _classifier(0.75, categories, resize, crop, label_smoothing)


def mobilenet_v1_x0_5(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> MobileNetV1Classifier:
    """MobileNet 0.5: 1,331,592 parameters. Arguments as `mobilenet_v1`."""
    return _classifier(0.5, categories, resize, crop, label_smoothing)


def mobilenet_v1_x0_25(
    categories: Sequence[str] | None = None, *, resize: int = 256, crop: int = 224, label_smoothing: float = 0.0
) -> MobileNetV1Classifier:
    """MobileNet 0.25: 470,072 parameters. Arguments as `mobilenet_v1`."""
    return _classifier(0.25, categories, resize, crop, label_smoothing)


def mobilenet_v1_cifar(
    categories: Sequence[str] | None = None, *, resize: int = 32, crop: int = 32, label_smoothing: float = 0.0
) -> MobileNetV1Classifier:
    """MobileNet of full width whose first convolution has stride 1: maps of 32, 16, 8, 4 and 2 pixels. For 32x32
    pictures. Arguments as `mobilenet_v1`.
    """
    return _classifier(1.0, categories, resize, crop, label_smoothing, skip_strides=1)
