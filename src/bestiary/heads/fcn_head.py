"""torchvision's fully convolutional head: of `fcn_resnet50`, and the auxiliary one of its dilated nets."""

from torch import nn


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the channels with batch norm and ReLU, dropout of 0.1, a 1x1 convolution to the
    classes. Names of the state are torchvision's.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        width = in_channels // 4
        convolution = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        last = nn.Conv2d(width, num_classes, 1)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout(0.1), last)
