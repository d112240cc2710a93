"""Trunks whose layers follow one another: AlexNet, VGG, SqueezeNet, MobileNet, Darknet ..."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Level, Trunk
from bestiary.errors import UsageError


class Chain(Trunk):
    """A trunk that runs `features` from the first layer to the last tapped one, and gives the map after each tap.

    State names are `features.N...`, as in a classifier that calls its convolutions `features`, so that one file serves
    both.

    Args:
        features: the layers; those after the last tap are left out.
        taps: position in `features` -> the level that stands after it, rising.
        in_channels: of the pictures.

    Attributes:
        levels: in the order of the taps, fine to coarse.

    Raises:
        UsageError: taps that do not rise or lie outside `features`.
    """

    features: nn.Sequential

    def __init__(self, features: nn.Sequential, taps: Mapping[int, Level], in_channels: int = 3) -> None:
        super().__init__()
        places = list(taps)
        if not places or places != sorted(places) or not 0 <= places[0] <= places[-1] < len(features):
            raise UsageError(f"got taps {places}, wanted rising positions below {len(features)}", where="Chain")
        self.features, self.in_channels = nn.Sequential(*list(features)[: places[-1] + 1]), in_channels
        self.levels = tuple(taps.values())
        self._places = frozenset(places)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """One map a level."""
        maps, features = [], pixels
        for place, layer in enumerate(self.features):
            features = layer(features)
            if place in self._places:
                maps.append(features)
        return tuple(maps)
