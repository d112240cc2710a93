"""Darknet-19 (Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, section 3 and table 6).

Faithful: 19 convolutions, each but the last with batch norm and leaky ReLU of 0.1, 1x1 convolutions between the 3x3,
five 2x2 pools, and a global mean after the last, 1x1 convolution. Pixels are RGB 0..1 with nothing taken off. Pools of
odd sides round up, as Darknet's do. Batch norm counts running statistics with torch's momentum of 0.1, not Darknet's
0.01, which needs long runs.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories

STAGES: tuple[tuple[int, ...], ...] = (
    (32,),
    (64,),
    (128, 64, 128),
    (256, 128, 256),
    (512, 256, 512, 256, 512),
    (1024, 512, 1024, 512, 1024),
)
"""Channels of the convolutions between the pools. In each row 3x3 and 1x1 take turns, 3x3 first."""

ENDS = (2, 5, 8, 13, 18)
"""The convolutions that end C1 .. C5, counted from 1."""

NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Convolution(nn.Module):
    """Darknet's unit: convolution that keeps the size at stride 1, batch norm, leaky ReLU of 0.1.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: odd side.
        stride: of the convolution.
        norm_eps: added to the variance. Darknet's GPU code, which trained the published files, has 1e-5; its CPU code
            adds 1e-6 to the standard deviation instead.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, norm_eps: int | float = 1e-5
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps)
        self.activation = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolved, normalised, rectified."""
        return self.activation(self.norm(self.conv(maps)))


class Darknet19(Chain):
    """The trunk: pictures to C1 .. C5, the last map before each further pool and the last of all.

    Args:
        width: factor on all channels.
        pools: how many of the five pools there are; the first ones are left out.
        norm_eps: of all norms.
        in_channels: of the pictures.

    Attributes:
        levels: C1 .. C5, with strides 2 .. 32 where all pools are there.
    """

    def __init__(
        self, *, width: int | float = 1.0, pools: int = 5, norm_eps: int | float = 1e-5, in_channels: int = 3
    ) -> None:
        layers: list[nn.Module] = []
        chosen: dict[int, Level] = {}
        channels, stride = in_channels, 1
        for stage, widths in enumerate(STAGES):
            if stage > 5 - pools:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                stride *= 2
            for i, wide in enumerate(widths):
                layers.append(Convolution(channels, round(wide * width), 1 if i % 2 else 3, norm_eps=norm_eps))
                channels = round(wide * width)
            if stage:
                chosen[len(layers) - 1] = Level(f"C{stage}", channels, stride)
        super().__init__(nn.Sequential(*layers), chosen, in_channels)
        initialise(self)


class DarknetClassifier(Classifier):
    """A trunk, a 1x1 convolution to the categories, and the mean over all places.

    Args:
        trunk: the trunk; not usable on its own afterwards.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.

    Attributes:
        layer_names: "conv1" .. "conv19", in the order of table 6, and "C1" .. "C5", and the parts whose outputs they
            are.
    """

    min_side: ClassVar[int] = 1
    features: nn.Sequential
    classifier: nn.Conv2d
    layer_names: Mapping[str, str]

    def __init__(
        self,
        trunk: Darknet19,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 256,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories,
            resize=resize,
            crop=crop,
            label_smoothing=label_smoothing,
            mean=NO_MEAN,
            std=NO_STD,
            in_channels=trunk.in_channels,
        )
        self.features = trunk.features
        self.classifier = nn.Conv2d(trunk.levels[-1].channels, len(self.categories), 1)
        initialise(self.classifier)
        units = [i for i, layer in enumerate(self.features) if isinstance(layer, Convolution)]
        named = {f"conv{n}": f"features.{i}" for n, i in enumerate(units, 1)} | {"conv19": "classifier"}
        self.layer_names = named | {level.name: named[f"conv{n}"] for level, n in zip(trunk.levels, ENDS, strict=True)}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.features(pixels)).mean((2, 3))


def initialise(network: nn.Module) -> None:
    """Convolutions normal with variance 2 / (k k C), as Darknet's; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def darknet19(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 256,
    norm_eps: float = 1e-5,
    width: float = 1.0,
    label_smoothing: float = 0.0,
) -> DarknetClassifier:
    """Darknet-19: 20,842,376 parameters with 1,000 categories.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        norm_eps: added to the variances; 1e-5 as in Darknet's GPU code.
        width: factor on all channels; 0.25 for `yolo_v2_small` and `yolo_v2_ladder`.
        label_smoothing: share of the target spread over all categories.
    """
    names = imagenet_categories() if categories is None else categories
    trunk = Darknet19(width=width, norm_eps=norm_eps)
    return DarknetClassifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)


def darknet19_448(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 448,
    crop: int = 448,
    norm_eps: float = 1e-5,
    width: float = 1.0,
    label_smoothing: float = 0.0,
) -> DarknetClassifier:
    """Darknet-19 at twice the resolution, the network that YOLOv2's detector starts from. Arguments as `darknet19`."""
    return darknet19(
        categories, resize=resize, crop=crop, norm_eps=norm_eps, width=width, label_smoothing=label_smoothing
    )


def darknet19_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    norm_eps: float = 1e-5,
    label_smoothing: float = 0.0,
) -> DarknetClassifier:
    """Darknet-19 for 32x32 pictures: without the first pool, so that the last map is 2x2, and three quarters as wide.

    Arguments as `darknet19`.
    """
    names = imagenet_categories() if categories is None else categories
    trunk = Darknet19(width=0.75, pools=4, norm_eps=norm_eps)
    return DarknetClassifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)
