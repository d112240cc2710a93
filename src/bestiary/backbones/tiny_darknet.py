"""The trunk of Tiny YOLO (Darknet's `tiny-yolo-voc.cfg`; Redmon and Farhadi describe it in no paper): seven 3x3
convolutions with six pools, the last of which keeps the size.
"""

from collections.abc import Sequence

from torch import nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.darknet import Convolution, initialise
from bestiary.backbones.levels import Level

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
"""Channels of the seven convolutions."""


class TinyDarknet(Chain):
    """Pictures to C4 and C5.

    Args:
        widths: channels of the seven convolutions.
        in_channels: of the pictures.

    Attributes:
        levels: C4, the fifth convolution at stride 16, and C5, the seventh at stride 32.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, in_channels: int = 3) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for i, wide in enumerate(widths[:6]):
            layers.append(Convolution(channels, wide, 3))
            # Of the last pool the windows at the far border are cut: a copied border gives the same maxima.
            same_size = (nn.ReplicationPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
            layers += [nn.MaxPool2d(2, 2, ceil_mode=True)] if i < 5 else same_size
            channels = wide
        layers.append(Convolution(channels, widths[6], 3))
        taps = {8: Level("C4", widths[4], 16), len(layers) - 1: Level("C5", widths[6], 32)}
        super().__init__(nn.Sequential(*layers), taps, in_channels)
        initialise(self)
