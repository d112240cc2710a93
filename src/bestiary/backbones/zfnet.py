"""ZFNet (Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014).

AlexNet of 2012 in one column, with a first convolution of 7x7/2 and a second of 5x5/2, which the authors chose after
they had seen their filters. Faithful: widths, maps of 110, 55, 26, 13 and 6, overlapping pools, normalisation across
maps behind the first two pools, initialisation, and the bound on the root mean square of each filter (section 3).
Not told by the paper, so AlexNet's: the numbers of the normalisation. Padding of 1 at the first convolution and the
first two pools is what gives the paper's maps. One mean a channel, not a pixel. The deconvnet is a way to look at any
network, not a part of this one.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from bestiary.backbones.alexnet import AlexNet, AlexNetClassifier, Head, SmallAlexNetClassifier, initialise
from bestiary.heads.published import imagenet_categories
from bestiary.layers.bounded_filters import BoundedConv2d
from bestiary.layers.preprocess import BYTE_STD
from bestiary.layers.response_norm import LocalResponseNorm


def convolutions(radius: int | float | None = 0.1, in_channels: int = 3) -> nn.Sequential:
    """The five convolutions of figure 3.

    Args:
        radius: largest root mean square of a filter; None for no bound.
        in_channels: of the pictures.
    """
    return nn.Sequential(
        BoundedConv2d(in_channels, 96, 7, 2, 1, radius=radius), nn.ReLU(True), nn.MaxPool2d(3, 2, 1),
        LocalResponseNorm(),
        BoundedConv2d(96, 256, 5, 2, radius=radius), nn.ReLU(True), nn.MaxPool2d(3, 2, 1), LocalResponseNorm(),
        BoundedConv2d(256, 384, 3, 1, 1, radius=radius), nn.ReLU(True),
        BoundedConv2d(384, 384, 3, 1, 1, radius=radius), nn.ReLU(True),
        BoundedConv2d(384, 256, 3, 1, 1, radius=radius), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def small_convolutions(in_channels: int = 3) -> nn.Sequential:
    """For pictures of about 32x32: three quarters of the widths, a first convolution of 3x3/1, no second pool."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 72, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2, 1), LocalResponseNorm(),
        nn.Conv2d(72, 192, 5, 2, 2), nn.ReLU(True), LocalResponseNorm(),
        nn.Conv2d(192, 288, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(288, 288, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(288, 192, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


class ZFNetClassifier(AlexNetClassifier):
    """AlexNet's fully connected layers on ZFNet's convolutions."""

    min_side: ClassVar[int] = 53


def zfnet(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    filter_radius: float | None = 0.1,
    label_smoothing: float = 0.0,
) -> ZFNetClassifier:
    """ZFNet: 62,357,608 parameters with 1,000 categories at its own crop.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 53. The size of fc6 follows from it: 9,216 inputs at 224,
            2,304 at 128. Pictures of other sizes are refused.
        dropout: chance that an output of fc6 and fc7 is dropped in training.
        filter_radius: root mean square that no filter of a convolution exceeds; none for no bound.
        label_smoothing: share of the target spread over all categories.
    """
    network = ZFNetClassifier(
        AlexNet(convolutions(filter_radius)),
        imagenet_categories() if categories is None else categories,
        head=Head(None, dropout=dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
        std=BYTE_STD,
    )
    initialise(network, bias=0.0)
    return network


def zfnet_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SmallAlexNetClassifier:
    """ZFNet for 32x32 pictures: a 3x3 stem with stride 1, no second pool, three quarters of the widths, hidden layers
    of 1,024, no bound on the filters (its pixels are not 0..255).

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 15.
        dropout: chance that an input of fc6 and fc7 is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    names = imagenet_categories() if categories is None else categories
    return SmallAlexNetClassifier(
        AlexNet(small_convolutions()),
        names,
        head=Head(3, 1024, dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )
