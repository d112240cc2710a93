"""A classifier's trunk with coarser maps behind it, each half the one before: what SSD needs of any network.

On MobileNet: Howard et al.: MobileNets, 2017, section 4.6. The thin form (SSDLite) has depthwise separable layers:
Sandler et al.: MobileNetV2, CVPR 2018, section 6.2. Both papers leave the extra layers' widths out: they are those of
the authors' published TensorFlow models.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.mobilenet_v2 import MobileNetV2
from bestiary.backbones.separable import Activation, conv_norm, depthwise, initialise, relu
from bestiary.layers.lone_norm import LoneBatchNorm2d

WIDTHS = (512, 256, 256, 128)
"""Channels of the extra maps."""


class ExpandedMobileNetV2(Trunk):
    """MobileNetV2 whose map of stride 16 is what the first bottleneck of stride 32 expands, before it strides: six
    times the channels, at no cost.

    Args:
        network: the trunk, whose `features` become this one's.
    """

    features: nn.Sequential

    def __init__(self, network: MobileNetV2) -> None:
        super().__init__()
        self.features, self.in_channels = network.features, network.in_channels
        fine, coarse = network.levels[-2:]
        self._place = int(network.layer_names[fine.name].rsplit(".", 1)[1]) + 1
        depthwise_layer = self.features[self._place].get_submodule("conv.1.0")
        self.levels = (Level(fine.name, depthwise_layer.in_channels, fine.stride), coarse)  # type: ignore[arg-type]

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C4, expanded, and C5."""
        features = self.features[: self._place](pixels)
        expansion, *rest = self.features[self._place].get_submodule("conv").children()
        expanded = features = expansion(features)
        for layer in (*rest, *list(self.features)[self._place + 1 :]):
            features = layer(features)
        return expanded, features


class ExtraMaps(Trunk):
    """Some maps of a trunk, and further ones: a 1x1 convolution to half the channels, then a 3x3 of stride 2, each with
    batch norm and activation.

    Args:
        trunk: pictures to maps; the extra ones go on from its last.
        names: which of its levels are read, fine to coarse.
        widths: channels of the extra maps.
        thin: the 3x3 convolutions are depthwise, a 1x1 after each.
        activation: after each convolution.
    """

    def __init__(
        self,
        trunk: Trunk,
        names: Sequence[str],
        widths: Sequence[int] = WIDTHS,
        *,
        thin: bool = False,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        self.body, self.in_channels = trunk, trunk.in_channels
        self._read = tuple(place for place, level in enumerate(trunk.levels) if level.name in names)
        extra, last = [], trunk.levels[-1]
        channels, stride = last.channels, last.stride
        levels = [trunk.levels[place] for place in self._read]
        for number, width in enumerate(widths, 1):
            extra.append(_pair(channels, width, thin, activation))
            channels, stride = width, 2 * stride
            levels.append(Level(f"X{number}", width, stride))
        self.extra = nn.ModuleList(extra)
        initialise(self.extra, "fan_in")
        self.levels = tuple(levels)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """One map a level."""
        found = self.body(pixels)
        maps, features = [found[place] for place in self._read], found[-1]
        for layers in self.extra:
            features = layers(features)
            maps.append(features)
        return tuple(maps)


def _pair(in_channels: int, out_channels: int, thin: bool, activation: Activation) -> nn.Sequential:
    between = out_channels // 2
    first = conv_norm(in_channels, between, 1, LoneBatchNorm2d, activation)
    if not thin:
        return nn.Sequential(first, conv_norm(between, out_channels, 3, LoneBatchNorm2d, activation, stride=2))
    return nn.Sequential(
        first,
        depthwise(between, 3, LoneBatchNorm2d, activation, 2),
        conv_norm(between, out_channels, 1, LoneBatchNorm2d, activation),
    )
