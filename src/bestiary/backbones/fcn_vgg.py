"""VGG with its fully connected layers as convolutions (Long, Shelhamer, Darrell: Fully Convolutional Networks for
Semantic Segmentation, CVPR 2015, section 3.1).

Faithful to the authors' networks: the first convolution padded by 100 pixels and fc6, 7x7, by none, so that a picture
of a single pixel has a map; pools that round up, as Caffe's. For small machines both paddings can be 1 and 3 instead:
the maps are then as large as the picture over their stride, and 480 x 360 pixels cost less than half.

The layers stand at the numbers that they have in a classifier's `features`, so that its file loads as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.vgg import convolutions, initialise
from bestiary.backbones.vgg_start import FC6_SIDE, classifier_layers
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS, Depths, places
from bestiary.errors import UsageError

FC7 = "fc7"


@dataclass(frozen=True)
class Paddings:
    """Pixels of zeros around the picture, and cells around fc6's map.

    Attributes:
        picture: of the first convolution.
        fc6: of fc6.
    """

    picture: int = 100
    fc6: int = 0


AS_PUBLISHED = Paddings()
SAME_SIZE = Paddings(1, FC6_SIDE // 2)


class ConvolutionalVGG(Trunk):
    """Pictures to maps by the paper's names of layers.

    Args:
        depths: a row of `DEPTHS`.
        maps: names of convolutions ("conv4_3", rectified) and pools ("pool3"), in the order of the layers; fc7's map
            follows them always.
        batch_norm: after each convolution but fc6 and fc7.
        width: factor on the channels of the convolutions.
        fc_width: channels of fc6 and fc7.
        paddings: `AS_PUBLISHED` or `SAME_SIZE`.
        dropout: after fc6 and fc7.
        in_channels: of the pictures.

    Attributes:
        levels: of `maps` and fc7.
        centres: for each of these the pixel, counted from 0, that the middle of its first cell lies at (outside the
            picture where it is negative).

    Raises:
        UsageError: a map that there is not, or maps out of order.
    """

    features: nn.Sequential
    fc6: nn.Conv2d
    fc7: nn.Conv2d

    def __init__(
        self,
        depths: Depths = DEPTHS["vgg16"],
        *,
        maps: Sequence[str] = ("pool3", "pool4"),
        batch_norm: bool = False,
        width: int | float = 1.0,
        fc_width: int = 4096,
        paddings: Paddings = AS_PUBLISHED,
        dropout: int | float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        where, widths = places(depths, batch_norm), [round(wide * width) for wide in WIDTHS]
        if [name for name in where if name in maps] != list(maps):
            got = f"got {', '.join(maps)}"
            raise UsageError(f"{got}, wanted some of {', '.join(where)}, in this order", where="maps")
        self.depths, self.batch_norm, self.in_channels = depths, batch_norm, in_channels
        self.features = convolutions(depths, widths, batch_norm, 32, in_channels)
        self.fc6 = nn.Conv2d(widths[-1], fc_width, FC6_SIDE, padding=paddings.fc6)
        self.fc7 = nn.Conv2d(fc_width, fc_width, 1)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(dropout)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        first: nn.Conv2d = self.features[0]  # type: ignore[assignment]
        first.padding = (paddings.picture, paddings.picture)
        initialise(self)
        rectified = 2 if batch_norm else 1
        self._taps = frozenset(where[n] + (0 if n.startswith("pool") else rectified) for n in maps)
        self.levels = tuple(_level(name, widths, fc_width) for name in (*maps, FC7))
        self.centres = {
            level.name: _centre(level, paddings.picture - 1, FC6_SIDE // 2 - paddings.fc6) for level in self.levels
        }

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """One map a level."""
        maps, features = [], pixels
        for place, layer in enumerate(self.features):
            features = layer(features)
            if place in self._taps:
                maps.append(features)
        hidden = self.dropout(self.relu(self.fc6(features)))
        return (*maps, self.dropout(self.relu(self.fc7(hidden))))

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a VGG classifier's state, or of one whose layers have Caffe's names (`conv1_1.weight`, `fc6.weight`), what
        belongs into this trunk, by its names.

        fc6 and fc7 may be matrices; what has not as many numbers is left out, as is the last layer.
        """
        own, where = self.state_dict(), places(self.depths, self.batch_norm)
        parts = {"fc6": "fc6", "fc7": "fc7"}
        parts |= {name: f"features.{place}" for name, place in where.items()}
        parts |= {f"{name}_bn": f"features.{place + 1}" for name, place in where.items()} if self.batch_norm else {}
        taken = {}
        for name, value in (classifier_layers(state, self.depths) or state).items():
            layer, _, entry = name.rpartition(".")
            wanted = own.get(f"{parts.get(layer)}.{entry}")
            if wanted is not None and wanted.numel() == value.numel():
                taken[f"{parts[layer]}.{entry}"] = value.reshape(wanted.shape)
            elif wanted is not None and layer == "conv1_1" and value.ndim == 4:
                taken[f"{parts[layer]}.{entry}"] = value  # filters of other channels, which a loader may adapt
        return taken


def _level(name: str, widths: Sequence[int], fc_width: int) -> Level:
    if name == FC7:
        return Level(name, fc_width, 32)
    kind, block = name[:4], int(name[4])
    return Level(name, widths[block - 1], 2**block if kind == "pool" else 2 ** (block - 1))


def _centre(level: Level, added: int, eaten: int) -> float:
    """Where the first cell's middle is: `added` pixels lie around the picture, fc6 eats `eaten` cells of its map."""
    return (level.stride - 1) / 2 - added + (level.stride * eaten if level.name == FC7 else 0)
