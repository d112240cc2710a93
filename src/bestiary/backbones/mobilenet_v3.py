"""MobileNetV3 (Howard, Sandler, Chu et al.: Searching for MobileNetV3, ICCV 2019), Large and Small.

Faithful: tables 1 and 2: 3x3 and 5x5 inverted residuals, squeeze-and-excitation with a hard sigmoid between the
depthwise and the last convolution, hard swish in the deeper half, the cheap last stage after the average. Names of the
state, the norms' epsilon of 1e-3 and momentum of 0.01, and the rounding of the squeezed width to multiples of 8 are
torchvision's, so its files load as they are.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.separable import Activation, conv_norm, depthwise, initialise, make_divisible, relu
from bestiary.backbones.stride_plan import StridePlan
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories
from bestiary.layers.activation import Hardswish
from bestiary.layers.frozen_norm import NormLayer
from bestiary.layers.squeeze_excitation import SqueezeExcitation

STEM_CHANNELS = 16
RE, HS = relu, Hardswish


class Row(NamedTuple):
    """One line of the paper's tables."""

    kernel: int
    expanded: int
    channels: int
    excite: bool
    activation: Activation
    stride: int


LARGE = (
    Row(3, 16, 16, False, RE, 1),
    Row(3, 64, 24, False, RE, 2),
    Row(3, 72, 24, False, RE, 1),
    Row(5, 72, 40, True, RE, 2),
    Row(5, 120, 40, True, RE, 1),
    Row(5, 120, 40, True, RE, 1),
    Row(3, 240, 80, False, HS, 2),
    Row(3, 200, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 480, 112, True, HS, 1),
    Row(3, 672, 112, True, HS, 1),
    Row(5, 672, 160, True, HS, 2),
    Row(5, 960, 160, True, HS, 1),
    Row(5, 960, 160, True, HS, 1),
)
"""Table 1."""

SMALL = (
    Row(3, 16, 16, True, RE, 2),
    Row(3, 72, 24, False, RE, 2),
    Row(3, 88, 24, False, RE, 1),
    Row(5, 96, 40, True, HS, 2),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 120, 48, True, HS, 1),
    Row(5, 144, 48, True, HS, 1),
    Row(5, 288, 96, True, HS, 2),
    Row(5, 576, 96, True, HS, 1),
    Row(5, 576, 96, True, HS, 1),
)
"""Table 2."""


def reduced_tail(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The last stage with half the channels, as for detection and segmentation (section 6.3)."""
    start = max(i for i, row in enumerate(rows) if row.stride == 2)
    tail = [row._replace(channels=row.channels // 2) for row in rows[start:]]
    # The first block of the stage widens the map before it, which stays as wide as it was.
    return (*rows[:start], tail[0], *(row._replace(expanded=row.expanded // 2) for row in tail[1:]))


def slow_norm(channels: int) -> nn.Module:
    """Batch norm with epsilon 1e-3 and a momentum of 0.01 (the paper's decay of 0.99): a `norm` part."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class ExcitedResidual(nn.Module):
    """The block of figure 4: expand, filter, excite where the row says so, project; x is added where it fits.

    Args:
        in_channels: of the input.
        row: kernel, channels and activation; widths already multiplied.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
        norm: makes the normalisation layers.
    """

    block: nn.Sequential

    def __init__(self, in_channels: int, row: Row, stride: int, dilation: int, norm: NormLayer) -> None:
        super().__init__()
        # The table's stride counts: a block that strides in the paper has no shortcut in the dilated net either.
        self.adds = row.stride == 1 and in_channels == row.channels
        layers: list[nn.Module] = []
        if row.expanded != in_channels:
            layers.append(conv_norm(in_channels, row.expanded, 1, norm, row.activation))
        layers.append(depthwise(row.expanded, row.kernel, norm, row.activation, stride, dilation))
        if row.excite:
            layers.append(SqueezeExcitation(row.expanded, make_divisible(row.expanded // 4), nn.Hardsigmoid()))
        self.block = nn.Sequential(*layers, conv_norm(row.expanded, row.channels, 1, norm, None))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """F(x), plus x where it fits."""
        return self.block(features) + features if self.adds else self.block(features)


class MobileNetV3(Chain):
    """The trunk: pictures to C1 .. C5; C5 is the map after the last 1x1 convolution.

    Args:
        rows: `LARGE` or `SMALL`, perhaps through `reduced_tail`.
        width: multiplies every number of channels, which then become multiples of 8.
        skip_strides: so many of the first strides are 1 instead of 2, for small pictures.
        output_stride: 8 or 16: later strides become dilations. As torchvision's `dilated` nets have it, the block that
            would have strided is dilated itself.
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
        rows: Sequence[Row],
        width: float = 1.0,
        *,
        skip_strides: int = 0,
        output_stride: int = 32,
        norm: NormLayer = slow_norm,
        in_channels: int = 3,
    ) -> None:
        plan = StridePlan(skip_strides, output_stride)
        channels = make_divisible(STEM_CHANNELS * width)
        step = plan.layer(2, channels)
        layers: list[nn.Module] = [conv_norm(in_channels, channels, 3, norm, Hardswish, stride=step.stride)]
        for row in rows:
            scaled = row._replace(
                expanded=make_divisible(row.expanded * width), channels=make_divisible(row.channels * width)
            )
            step = plan.layer(row.stride, scaled.channels)
            layers.append(ExcitedResidual(channels, scaled, step.stride, step.dilation_after, norm))
            channels = scaled.channels
        plan.layer(1, 6 * channels)
        layers.append(conv_norm(channels, 6 * channels, 1, norm, Hardswish))
        super().__init__(nn.Sequential(*layers), plan.taps(), in_channels)
        self.layer_names = plan.layer_names()
        initialise(self)


class MobileNetV3Classifier(Classifier):
    """A trunk, global average pooling, a linear layer with hard swish, dropout and the last linear layer.

    Args:
        trunk: the trunk, whose `features` become the classifier's.
        hidden: width between the two linear layers.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        dropout: chance that a hidden value is dropped.
        label_smoothing: share of the target spread over all categories.
    """

    layer_names: Mapping[str, str]
    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(
        self,
        trunk: MobileNetV3,
        hidden: int,
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
        self.classifier = nn.Sequential(
            nn.Linear(trunk.levels[-1].channels, hidden),
            Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(self.categories)),
        )
        initialise(self.classifier)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.features(pixels).mean((2, 3)))


def _classifier(
    rows: Sequence[Row],
    hidden: int,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    width: float,
    dropout: float,
    label_smoothing: float,
    skip_strides: int = 0,
) -> MobileNetV3Classifier:
    names = imagenet_categories() if categories is None else categories
    return MobileNetV3Classifier(
        MobileNetV3(rows, width, skip_strides=skip_strides),
        make_divisible(hidden * width),
        names,
        resize=sizes[0],
        crop=sizes[1],
        dropout=dropout,
        label_smoothing=label_smoothing,
    )


def mobilenet_v3_large(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    width: float = 1.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> MobileNetV3Classifier:
    """MobileNetV3-Large: 5,483,032 parameters with width 1 and 1,000 categories. Any picture of a pixel or more.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        width: multiplies every number of channels; the published files have 1.
        dropout: chance that a hidden value of the head is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier(LARGE, 1280, categories, (resize, crop), width, dropout, label_smoothing)


def mobilenet_v3_small(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    width: float = 1.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> MobileNetV3Classifier:
    """MobileNetV3-Small: 2,542,856 parameters. Arguments as `mobilenet_v3_large`."""
    return _classifier(SMALL, 1024, categories, (resize, crop), width, dropout, label_smoothing)


def mobilenet_v3_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    width: float = 1.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> MobileNetV3Classifier:
    """MobileNetV3-Large whose first convolution has stride 1: maps of 32, 16, 8, 4 and 2 pixels. For 32x32 pictures.

    Arguments as `mobilenet_v3_large`.
    """
    return _classifier(LARGE, 1280, categories, (resize, crop), width, dropout, label_smoothing, skip_strides=1)
