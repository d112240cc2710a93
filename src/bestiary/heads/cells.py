"""Maps to cells: the ends of YOLO's networks (Redmon et al., You Only Look Once, CVPR 2016, figure 3, and Darknet's).

Each gives `[B, S, S, K + 5 n]`: of a cell the K categories, the n confidences, and n times x, y and the roots of width
and height.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.layers.local_convolution import LocalConvolution


class CellHead(nn.Module):
    """Base of the heads.

    Args:
        side: S.
        num_categories: K.
        boxes: n.
    """

    output: nn.Linear | nn.Conv2d

    def __init__(self, side: int, num_categories: int, boxes: int) -> None:
        super().__init__()
        self.side, self.num_categories, self.boxes = side, num_categories, boxes

    @property
    def numbers(self) -> int:
        """Of a cell: K + 5 n."""
        return self.num_categories + 5 * self.boxes

    def connected(self, in_features: int) -> nn.Linear:
        """The last layer of the heads that see all places at once."""
        return connected(in_features, self.side**2 * self.numbers)

    def to_cells(self, flat: Float[Tensor, "B F"]) -> Float[Tensor, "B S S P"]:
        """From Darknet's order, which has all cells' categories first, then all confidences, then all boxes."""
        sizes = [self.side**2 * many for many in (self.num_categories, self.boxes, 4 * self.boxes)]
        grid = (self.side, self.side, -1)
        return torch.cat([part.unflatten(1, grid) for part in flat.split(sizes, 1)], -1)


class ConnectedHead(CellHead):
    """The paper's: connected layers with leaky ReLU of 0.1, dropout of a half, and a last, linear one.

    Args:
        in_channels: of the map, S x S places.
        side: S.
        num_categories: K.
        boxes: n.
        hidden: outputs of the layers before the last; none for the last alone, which Darknet's tiny form has.
        linear: of the hidden layers, those without ReLU, by place (a quirk of the first `yolo-tiny.cfg`).
    """

    def __init__(
        self,
        in_channels: int,
        side: int,
        num_categories: int,
        boxes: int,
        hidden: Sequence[int] = (4096,),
        linear: Sequence[int] = (),
    ) -> None:
        super().__init__(side, num_categories, boxes)
        features, layers = in_channels * side**2, []
        for place, wide in enumerate(hidden):
            layers.append(connected(features, wide))
            if place not in linear:
                layers.append(nn.LeakyReLU(0.1))
            features = wide
        if hidden:
            layers.append(nn.Dropout(0.5))
        self.hidden = nn.Sequential(*layers)
        self.output = self.connected(features)

    def forward(self, maps: Float[Tensor, "B C S S"]) -> Float[Tensor, "B S S P"]:
        """Cells of the last map."""
        return self.to_cells(self.output(self.hidden(maps.flatten(1))))


class LocalHead(CellHead):
    """Of Darknet's public `yolov1.cfg`: a 3x3 local layer of 256, leaky ReLU, dropout of a half, one connected layer.

    Args:
        in_channels: of the map.
        side: S.
        num_categories: K.
        boxes: n.
        width: channels of the local layer.
    """

    def __init__(self, in_channels: int, side: int, num_categories: int, boxes: int, width: int = 256) -> None:
        super().__init__(side, num_categories, boxes)
        self.local = LocalConvolution(in_channels, width, 3, (side, side))
        self.activation, self.dropout = nn.LeakyReLU(0.1), nn.Dropout(0.5)
        self.output = self.connected(width * side**2)

    def forward(self, maps: Float[Tensor, "B C S S"]) -> Float[Tensor, "B S S P"]:
        """Cells of the last map."""
        return self.to_cells(self.output(self.dropout(self.activation(self.local(maps)).flatten(1))))


class ConvolutionHead(CellHead):
    """Not the paper's: a 1x1 convolution, so that all cells learn from what any of them sees. For few pictures.

    Args:
        in_channels: of the map.
        side: S.
        num_categories: K.
        boxes: n.
    """

    def __init__(self, in_channels: int, side: int, num_categories: int, boxes: int) -> None:
        super().__init__(side, num_categories, boxes)
        self.output = nn.Conv2d(in_channels, self.numbers, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        with torch.no_grad():
            self.output.bias.zero_()  # type: ignore[union-attr]
            # Boxes begin in the middle of their cells and somewhat apart in size, so that each finds its own kind.
            begin = torch.tensor([0.5, 0.5, 0.0, 0.0]).repeat(boxes, 1)
            begin[:, 2:] = torch.linspace(0.25, 0.5, boxes)[:, None]
            self.output.bias[num_categories + boxes :] = begin.flatten()  # type: ignore[index]

    def forward(self, maps: Float[Tensor, "B C S S"]) -> Float[Tensor, "B S S P"]:
        """Cells of the last map."""
        return self.output(maps).permute(0, 2, 3, 1)


def connected(in_features: int, out_features: int) -> nn.Linear:
    """Started as Darknet's: even, up to sqrt(2 / inputs) either way; biases 0."""
    layer = nn.Linear(in_features, out_features)
    bound = math.sqrt(2 / in_features)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer
