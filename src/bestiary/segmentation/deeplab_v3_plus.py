"""DeepLab v3+: Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation, ECCV 2018: v3's features, sharpened by a decoder that also sees an early map.

Faithful: the features of v3 are brought to stride 4, where 48 channels made of C2 by a 1x1 convolution join them; two
3x3 convolutions of 256 channels, each with batch norm and ReLU, then a 1x1 to the classes, and interpolation to the
picture's size. Encoder, sizes and alignment of corners as in `deeplab_v3`. On Xception the 3x3 convolutions of pyramid
and decoder are separable, too.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.atrous import AtrousResNet, OutputStride
from bestiary.backbones.resnet import VARIANTS
from bestiary.backbones.xception import AlignedXception
from bestiary.heads.aspp import conv_norm, score_convolution, separable_conv_norm
from bestiary.heads.atrous_encoder import AtrousEncoder, AtrousLabeller
from bestiary.heads.published import VOC_21
from bestiary.heads.whole_picture import PixelOutputs
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits


class DeepLabV3Plus(AtrousLabeller):
    """The network: 59,344,309 parameters for ResNet-101 and 21 classes.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        encoder: pictures to C2 and features.
        early: channels that C2 is brought to.
        width: channels of the decoder's convolutions.
        separable: they are a filter a channel and a 1x1 convolution.
    """

    head_names: ClassVar[tuple[str, ...]] = ("score",)
    reduce: nn.Sequential
    decoder: nn.Sequential
    score: nn.Conv2d

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        encoder: AtrousEncoder,
        early: int = 48,
        width: int = 256,
        separable: bool = False,
    ) -> None:
        super().__init__(categories, normalize, encoder)
        self.reduce = conv_norm(encoder.backbone.levels[0].channels, early, 1)
        joined = early + encoder.aspp.width
        make = separable_conv_norm if separable else conv_norm
        self.decoder = nn.Sequential(make(joined, width, 3), make(width, width, 3))
        self.score = score_convolution(width, len(categories), 1)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        c2, features = self.encoder(pixels)
        early = self.reduce(c2)  # stride 4
        raised = resize_logits(features, (early.shape[-2], early.shape[-1]), align_corners=True)
        logits = self.score(self.decoder(torch.cat([early, raised], dim=1)))
        return PixelOutputs(resize_logits(logits, (pixels.shape[-2], pixels.shape[-1]), align_corners=True))


def deeplab_v3_plus_resnet101(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = 8,
    multi_grid: Sequence[int] = (1, 2, 4),
) -> DeepLabV3Plus:
    """The paper's ResNet-101 form: 59,344,309 parameters.

    Args:
        categories: K names, the background included; None gives VOC's 21.
        in_channels: channels of a picture.
        output_stride: pixels per step of the encoder's last map in training: 8, 16 or 32.
        predict_stride: in prediction; none for the same.
        multi_grid: factors on the dilations of the last stage's blocks, one each, or one for all.
    """
    return _build("resnet101", categories, in_channels, output_stride, predict_stride, multi_grid)


def deeplab_v3_plus_resnet50(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = 8,
    multi_grid: Sequence[int] = (1, 2, 4),
) -> DeepLabV3Plus:
    """The same on ResNet-50: 40,352,181 parameters. Arguments as `deeplab_v3_plus_resnet101`."""
    return _build("resnet50", categories, in_channels, output_stride, predict_stride, multi_grid)


def deeplab_v3_plus_resnet18(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = None,
    multi_grid: Sequence[int] = (1, 2),
) -> DeepLabV3Plus:
    """For small machines, from random weights: ResNet-18, 64 channels in pyramid and decoder, 16 of C2, one stride.
    Arguments as `deeplab_v3_plus_resnet101`.
    """
    return _build("resnet18", categories, in_channels, output_stride, predict_stride, multi_grid, (16, 64))


def deeplab_v3_plus_xception65(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = 8,
) -> DeepLabV3Plus:
    """The paper's best form, on the modified aligned Xception with 16 units in its middle, separable convolutions
    throughout; reported 89.0 mean IoU on VOC 2012's test set after training on further data.

    Arguments as `deeplab_v3_plus_resnet101`.
    """
    trunk = AlignedXception(16, output_stride, in_channels=in_channels)
    encoder = AtrousEncoder(trunk, predict_stride, separable=True)
    # the authors' pixels are -1 .. 1
    normalize = channel_normalize(in_channels, (0.5,) * 3, (0.5,) * 3)
    return DeepLabV3Plus(categories or VOC_21, normalize, encoder, separable=True)


def _build(
    variant: str,
    categories: Sequence[str] | None,
    in_channels: int,
    output_stride: OutputStride,
    predict_stride: OutputStride | None,
    multi_grid: Sequence[int],
    widths: tuple[int, int] = (48, 256),
) -> DeepLabV3Plus:
    early, width = widths
    trunk = AtrousResNet(VARIANTS[variant], output_stride, multi_grid, in_channels=in_channels)
    encoder = AtrousEncoder(trunk, predict_stride, width)
    return DeepLabV3Plus(categories or VOC_21, channel_normalize(in_channels), encoder, early, width)
