"""The fully convolutional ResNets that torchvision publishes: not a net of the paper of Long, Shelhamer and Darrell,
whose name they carry, but its idea on a dilated ResNet.

Faithful to torchvision: C4 and C5 dilated instead of strided, so that both have stride 8; a 3x3 convolution to a
quarter of the channels, batch norm, dropout 0.1 and a 1x1 convolution; the same once more on C4 in training, at half
the weight; bilinear upsampling. Names of the state are torchvision's. `fcn_resnet18` is ours: C4 keeps its stride, and
it learns from random weights.
"""

from collections.abc import Sequence
from typing import Literal

from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.heads.fcn_head import FCNHead
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import TrunkLabeller

OutputStride = Literal[8, 16, 32]


def _build(
    variant: str, categories: Sequence[str] | None, in_channels: int, auxiliary: bool, output_stride: OutputStride
) -> TrunkLabeller:
    dilate = (False, output_stride < 16, output_stride < 32)
    trunk = ResNet(VARIANTS[variant], dilate=dilate, in_channels=in_channels)
    names = VOC_21 if categories is None else categories
    c4, c5 = trunk.levels[-2:]
    aux = FCNHead(c4.channels, len(names)) if auxiliary else None
    return TrunkLabeller(trunk, FCNHead(c5.channels, len(names)), names, aux_classifier=aux)


def fcn_resnet50(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    auxiliary: bool = True,
    output_stride: OutputStride = 8,
) -> TrunkLabeller:
    """On ResNet-50: 35,322,218 parameters for VOC's 21 classes, 32,957,013 of them without the auxiliary classifier.

    Args:
        categories: K names; None gives PASCAL VOC's 21, the background among them.
        in_channels: channels of a picture.
        auxiliary: a classifier of C4 learns too; it has no part in predictions.
        output_stride: of C5; where it is less than 32, later stages are dilated.
    """
    return _build("resnet50", categories, in_channels, auxiliary, output_stride)


def fcn_resnet101(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    auxiliary: bool = True,
    output_stride: OutputStride = 8,
) -> TrunkLabeller:
    """On ResNet-101: 54,314,346 parameters. Arguments as `fcn_resnet50`."""
    return _build("resnet101", categories, in_channels, auxiliary, output_stride)


def fcn_resnet18(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    auxiliary: bool = False,
    output_stride: OutputStride = 16,
) -> TrunkLabeller:
    """On ResNet-18, which learns from random weights: 11.8 million parameters. Arguments as `fcn_resnet50`."""
    return _build("resnet18", categories, in_channels, auxiliary, output_stride)
