"""What a backbone says of its outputs before any forward."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Level:
    """One feature map of a backbone or neck.

    Attributes:
        name: as the papers call it: "C2" is a backbone's map at stride 4, "P2" a pyramid's.
        channels: C.
        stride: pixels of the picture per step of the map.
    """

    name: str
    channels: int
    stride: int


class Trunk(nn.Module):
    """Base of the backbones: pictures to one map a level.

    Attributes:
        levels: of the maps that `forward` gives, fine to coarse.
        in_channels: of the pictures.
    """

    levels: tuple[Level, ...]
    in_channels: int
