"""DeepLab v1: Chen, Papandreou, Kokkinos, Murphy, Yuille: Semantic Image Segmentation with Deep Convolutional Nets and
Fully Connected CRFs, ICLR 2015, in the form with the large field of view ("LargeFOV").

Faithful: VGG-16 with the last two pools at stride 1 and conv5 dilated by 2, so that the map has stride 8; fc6 as a 3x3
convolution dilated by 12 and fc7 as a 1x1, of 1,024 channels each; the scores learn from every eighth label, and are
interpolated to predict; the dense CRF comes after the training, as a look of predictions (`heads.dense_crf`,
"deeplab_v1"). As in the authors' released net: pools are 3x3, a 3x3 mean follows the last, a picture's sides are 8 n
+ 1, and interpolation keeps corners on corners. Ours: other sizes are padded with the mean colour; pixels are scaled as
for torchvision's classifiers unless told otherwise (`pixels="caffe"`), so that one of them can be the start.
`deeplab_v1_small` is the same on a thin VGG with batch norm.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.atrous import atrous_vgg
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS, thinned_fully_connected
from bestiary.heads.aspp import LargeFOV, score_convolution
from bestiary.heads.coarse_scores import CoarseScores, PixelScale, pixel_values
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import PixelOutputs
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize


class DeepLabV1(CoarseScores):
    """The network: 20,505,429 parameters for VGG-16 and 21 classes.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        backbone: a VGG at output stride 8, which gives its last map; its 2x2 pools become 3x3.
        width: channels of fc6 and fc7.
        rate: dilation of fc6.
    """

    head_names: ClassVar[tuple[str, ...]] = ("large_fov.score",)
    backbone: VGG
    pool: nn.AvgPool2d
    large_fov: LargeFOV

    def __init__(
        self, categories: Sequence[str], normalize: Normalize, backbone: VGG, width: int = 1024, rate: int = 12
    ) -> None:
        super().__init__(categories, normalize)
        self.backbone, self.pool = atrous_vgg(backbone), nn.AvgPool2d(3, 1, 1)
        channels = backbone.levels[-1].channels
        self.large_fov = LargeFOV(channels, len(categories), width, rate, norm=backbone.batch_norm)
        if backbone.batch_norm:
            # of a map of one place there is no spread, which batch norm divides by
            self.geometry = InputGeometry(grid=8, smallest=17)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Scores at stride 8."""
        return PixelOutputs(self.large_fov(self.pool(self.backbone(pixels)[-1])))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier its convolutions, and fc6 and fc7 thinned out where it has those of the paper."""
        taken, line = start_trunk(state, self.state_dict())
        thinned = thinned_fully_connected(state) if line else {}
        fits = self.large_fov.score.in_channels == len(thinned.get("fc7.bias", ()))
        own = {f"large_fov.{name.replace('.', '.0.', 1)}": value for name, value in thinned.items() if fits}
        return ({**taken, **own}, f"{line}, and fc6 and fc7 thinned out") if own else (taken, line)


class DeepLabV1MultiScale(DeepLabV1):
    """With the paper's side branches: of the picture and of the first four pools, each two layers of 128 channels and
    scores, which are added to those of the deepest map. (The paper joins the branches' features in front of one layer
    of scores, which is the same.) 21,711,550 parameters for VGG-16 and 21 classes.

    Arguments as `DeepLabV1`.
    """

    sides: nn.ModuleList

    def __init__(
        self, categories: Sequence[str], normalize: Normalize, backbone: VGG, width: int = 1024, rate: int = 12
    ) -> None:
        super().__init__(categories, normalize, backbone, width, rate)
        channels, inputs, strides = backbone.in_channels, [backbone.in_channels], [8]
        for layer in backbone.features:
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            elif isinstance(layer, nn.MaxPool2d) and len(inputs) < 5:
                inputs.append(channels)
                strides.append(max(1, strides[-1] // 2))
        self.sides = nn.ModuleList(_side(i, s, len(categories)) for i, s in zip(inputs, strides, strict=True))

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Scores at stride 8."""
        taps, features = [pixels], pixels
        for layer in self.backbone.features:
            features = layer(features)
            if isinstance(layer, nn.MaxPool2d):
                taps.append(features)
        scores = self.large_fov(self.pool(features))
        for side, tap in zip(self.sides, taps, strict=False):
            scores = scores + side(tap)
        return PixelOutputs(scores)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a network without side branches all of it; of a classifier as `DeepLabV1`."""
        if "large_fov.score.weight" in state and not any(name.startswith("sides.") for name in state):
            return state, "starts from DeepLab v1; the side branches start fresh"
        return super().start_state(state)


def deeplab_v1(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    rate: int = 12,
    pixels: PixelScale = "imagenet",
) -> DeepLabV1:
    """The paper's network on VGG-16: 20,505,429 parameters; reported 70.3 mean IoU on VOC 2012's test set with the CRF.

    Args:
        categories: K names, the background included; None gives VOC's 21.
        in_channels: channels of a picture.
        rate: dilation of fc6.
        pixels: imagenet, scaled as torchvision's classifiers want them; caffe, blue, green, red 0..255 less the mean,
            as the authors' nets.
    """
    trunk = VGG(DEPTHS["vgg16"], output_stride=8, maps=("C5",), in_channels=in_channels)
    return DeepLabV1(categories or VOC_21, pixel_values(pixels, in_channels), trunk, rate=rate)


def deeplab_v1_multi_scale(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    rate: int = 12,
    pixels: PixelScale = "imagenet",
) -> DeepLabV1MultiScale:
    """The paper's best form, with side branches of early maps ("MSc"): reported 71.6 mean IoU on VOC 2012's test set
    with the CRF.

    Arguments as `deeplab_v1`.
    """
    trunk = VGG(DEPTHS["vgg16"], output_stride=8, maps=("C5",), in_channels=in_channels)
    return DeepLabV1MultiScale(categories or VOC_21, pixel_values(pixels, in_channels), trunk, rate=rate)


def deeplab_v1_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    rate: int = 6,
    pixels: PixelScale = "imagenet",
) -> DeepLabV1:
    """For small machines, from random weights: VGG-11 with batch norm and half the channels, 256 channels in fc6 and
    fc7. Arguments as `deeplab_v1`.
    """
    trunk = vgg11_bn_half(maps=("C5",), output_stride=8, in_channels=in_channels)
    return DeepLabV1(categories or VOC_21, pixel_values(pixels, in_channels), trunk, 256, rate)


def _side(in_channels: int, stride: int, num_classes: int, width: int = 128) -> nn.Sequential:
    first, second = nn.Conv2d(in_channels, width, 3, stride, 1), nn.Conv2d(width, width, 1)
    for convolution in (first, second):
        nn.init.normal_(convolution.weight, std=0.001)  # so small that it hardly disturbs what is learned already
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    layers = (first, nn.ReLU(inplace=True), nn.Dropout(0.5), second, nn.ReLU(inplace=True), nn.Dropout(0.5))
    return nn.Sequential(*layers, score_convolution(width, num_classes, 1))
