"""DeepLab v3: Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017; and
the networks that torchvision calls so.

`DeepLabV3` is the paper's: a ResNet whose last stage is dilated by 2 times (1, 2, 4) at stride 16 ("multi-grid"); a
pyramid of a 1x1 and three 3x3 convolutions, dilated by 6, 12 and 18, and the picture's mean, 256 channels each with
batch norm; one more 1x1 of all; a 1x1 to the classes; logits, not labels, are resampled for the loss. It learns at
stride 16 and is tested at 8 with all dilations doubled, by the same parameters. As in the authors' released code:
dropout of 0.1 after the pyramid, sides of 16 n + 1 pixels, and interpolation that keeps corners on corners. Ours: other
sizes are padded with the mean colour; bottlenecks stride on their 3x3, as in torchvision's classifiers, which can be
the start.

`deeplabv3_resnet50` and its sisters are torchvision's, whose files load and give the same logits. They differ from the
paper: stride 8 and dilations of 12, 24 and 36 in training too, no multi-grid, the first block of a dilated stage keeps
the dilation before it, a 3x3 convolution after the pyramid, half of whose features are dropped, an auxiliary classifier
of an earlier stage with weight 0.5, and corners not aligned.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.atrous import AtrousResNet, OutputStride
from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.mobilenet_v3 import LARGE, MobileNetV3
from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.heads.aspp import ASPP, conv_norm, score_convolution
from bestiary.heads.atrous_encoder import AtrousEncoder, AtrousLabeller
from bestiary.heads.fcn_head import FCNHead
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import TrunkLabeller, start_trunk
from bestiary.heads.whole_picture import PixelOutputs
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits


class DeepLabV3(AtrousLabeller):
    """The paper's network: 58,040,661 parameters for ResNet-101 and 21 classes.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        encoder: pictures to features.
    """

    head_names: ClassVar[tuple[str, ...]] = ("score",)
    score: nn.Conv2d

    def __init__(self, categories: Sequence[str], normalize: Normalize, encoder: AtrousEncoder) -> None:
        super().__init__(categories, normalize, encoder)
        self.score = score_convolution(encoder.aspp.width, len(categories), 1)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        _, features = self.encoder(pixels)
        size_hw = (pixels.shape[-2], pixels.shape[-1])
        return PixelOutputs(resize_logits(self.score(features), size_hw, align_corners=True))


class TorchvisionDeepLabV3(TrunkLabeller):
    """torchvision's: 42,004,074 parameters for ResNet-50 and 21 classes, 39,638,869 without the auxiliary classifier.

    Args: as `TrunkLabeller`.
    """

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions, also of one that calls them `features`; else as `TrunkLabeller`."""
        plain = {name.removeprefix("features."): value for name, value in state.items()}
        if isinstance(self.backbone, NumberedLayers) and len(plain) == len(state):
            taken, line = start_trunk(plain, self.state_dict())
            if line:
                return taken, line
        return super().start_state(state)


class NumberedLayers(Trunk):
    """A chain's layers under their bare numbers, as torchvision's files have them: pictures to two of their maps.

    Args:
        chain: gives its layers away.
        early: place of the layer after which the first map stands.
        level: of that map.
    """

    def __init__(self, chain: MobileNetV3, early: int, level: Level) -> None:
        super().__init__()
        for place, layer in enumerate(chain.features):
            self.add_module(str(place), layer)
        self.levels, self.in_channels, self._early = (level, chain.levels[-1]), chain.in_channels, early

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The early map and the last."""
        early = features = pixels
        for place, layer in enumerate(self.children()):
            features = layer(features)
            early = features if place <= self._early else early
        return early, features


def deeplab_v3_resnet101(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = 8,
    multi_grid: Sequence[int] = (1, 2, 4),
) -> DeepLabV3:
    """The paper's network on ResNet-101: 58,040,661 parameters; reported 85.7 mean IoU on VOC 2012's test set after
    training on COCO.

    Args:
        categories: K names, the background included; None gives VOC's 21.
        in_channels: channels of a picture.
        output_stride: pixels per step of the last map in training: 8, 16 or 32.
        predict_stride: in prediction; none for the same.
        multi_grid: factors on the dilations of the last stage's blocks, one each, or one for all.
    """
    return _paper("resnet101", categories, in_channels, output_stride, predict_stride, multi_grid)


def deeplab_v3_resnet50(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = 8,
    multi_grid: Sequence[int] = (1, 2, 4),
) -> DeepLabV3:
    """The paper's network on ResNet-50: 39,048,533 parameters. Arguments as `deeplab_v3_resnet101`."""
    return _paper("resnet50", categories, in_channels, output_stride, predict_stride, multi_grid)


def deeplab_v3_resnet18(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    output_stride: OutputStride = 16,
    predict_stride: OutputStride | None = None,
    multi_grid: Sequence[int] = (1, 2),
) -> DeepLabV3:
    """For small machines, from random weights: ResNet-18, 64 channels in each branch of the pyramid, one stride.
    Arguments as `deeplab_v3_resnet101`.
    """
    return _paper("resnet18", categories, in_channels, output_stride, predict_stride, multi_grid, 64)


def deeplabv3_resnet50(
    categories: Sequence[str] | None = None, in_channels: int = 3, auxiliary: bool = True
) -> TorchvisionDeepLabV3:
    """torchvision's on ResNet-50: 42,004,074 parameters; it reports 66.4 mean IoU on COCO's pictures, VOC's classes.

    Args:
        categories: K names, the background included; None gives VOC's 21, as published.
        in_channels: channels of a picture.
        auxiliary: whether it has the auxiliary classifier.
    """
    return _torchvision("resnet50", categories, in_channels, auxiliary)


def deeplabv3_resnet101(
    categories: Sequence[str] | None = None, in_channels: int = 3, auxiliary: bool = True
) -> TorchvisionDeepLabV3:
    """torchvision's on ResNet-101: 60,996,202 parameters; it reports 67.4. Arguments as `deeplabv3_resnet50`."""
    return _torchvision("resnet101", categories, in_channels, auxiliary)


def deeplabv3_mobilenet_v3_large(
    categories: Sequence[str] | None = None, in_channels: int = 3, auxiliary: bool = True
) -> TorchvisionDeepLabV3:
    """torchvision's on MobileNetV3-Large at stride 16: 11,029,328 parameters; it reports 60.3.

    Arguments as `deeplabv3_resnet50`.
    """
    names = categories or VOC_21
    # the auxiliary map is that of the first block at stride 8, not of the last as a level is
    backbone = NumberedLayers(MobileNetV3(LARGE, output_stride=16, in_channels=in_channels), 4, Level("C3", 40, 8))
    return _with_heads(backbone, names, auxiliary)


def _paper(
    variant: str,
    categories: Sequence[str] | None,
    in_channels: int,
    output_stride: OutputStride,
    predict_stride: OutputStride | None,
    multi_grid: Sequence[int],
    width: int = 256,
) -> DeepLabV3:
    trunk = AtrousResNet(VARIANTS[variant], output_stride, multi_grid, in_channels=in_channels)
    encoder = AtrousEncoder(trunk, predict_stride, width)
    return DeepLabV3(categories or VOC_21, channel_normalize(in_channels), encoder)


def _torchvision(
    variant: str, categories: Sequence[str] | None, in_channels: int, auxiliary: bool
) -> TorchvisionDeepLabV3:
    trunk = ResNet(VARIANTS[variant], dilate=(False, True, True), in_channels=in_channels)
    return _with_heads(trunk, categories or VOC_21, auxiliary)


def _with_heads(backbone: Trunk, names: Sequence[str], auxiliary: bool) -> TorchvisionDeepLabV3:
    pyramid = ASPP(backbone.levels[-1].channels, (12, 24, 36), dropout=0.5)
    classifier = nn.Sequential(pyramid, *conv_norm(256, 256, 3), nn.Conv2d(256, len(names), 1))
    early = FCNHead(backbone.levels[-2].channels, len(names)) if auxiliary else None
    return TorchvisionDeepLabV3(backbone, classifier, names, aux_classifier=early)
