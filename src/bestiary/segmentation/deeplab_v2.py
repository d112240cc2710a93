"""DeepLab v2: Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab: Semantic Image Segmentation with Deep Convolutional
Nets, Atrous Convolution, and Fully Connected CRFs, TPAMI 2018.

Faithful: ResNet-101 at stride 8, stages 3 and 4 dilated by 2 and 4; four 3x3 convolutions to the classes, dilated by 6,
12, 18 and 24, added; the picture at scales 1, 0.75 and 0.5 through the same parameters, the largest score of the three
at each place, and a loss for each scale and for the largest; frozen batch norm; `deeplab_v2_vgg16` is the form on
VGG-16 with four fields of view ("ASPP-L"). The dense CRF comes after the training (`heads.dense_crf`, "deeplab_v2"). As
in the authors' released nets: the bottlenecks stride in their first 1x1, a picture's sides are 32 n + 1 (8 n + 1 at one
scale), scores learn from every eighth label, and interpolation keeps corners on corners. Ours: other sizes are padded
with the mean colour; pixels are scaled as for torchvision's classifiers unless told otherwise (`pixels="caffe"`).
`deeplab_v2_small` is a ResNet-18 with batch norm that learns, at stride 16 and dilations half as large.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.atrous import AtrousResNet, atrous_vgg
from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, frozen_norm
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS, thinned_fully_connected
from bestiary.errors import UsageError
from bestiary.heads.aspp import LargeFOV, SummedASPP, score_convolution
from bestiary.heads.coarse_scores import CoarseScores, PixelScale, pixel_values
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import PixelOutputs
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import resize_logits

RATES = (6, 12, 18, 24)
SCALES = (0.75, 0.5)


class DeepLabV2(CoarseScores):
    """The network: 44,048,532 parameters for ResNet-101 and 21 classes, those of its norms included.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        backbone: pictures to maps, of which the last is scored.
        aspp: the last map to scores.
        scales: sizes at which the picture is seen beside its own, as factors.

    Attributes:
        head_names: the layers that make scores.

    Raises:
        UsageError: a scale that is not between 0 and 1, or stands twice.
    """

    backbone: Trunk
    aspp: SummedASPP

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        backbone: Trunk,
        aspp: SummedASPP,
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__(categories, normalize)
        if not all(0 < scale < 1 for scale in scales) or len(set(scales)) < len(scales):
            got = f"got {', '.join(map(str, scales))}, wanted different numbers above 0 and below 1"
            raise UsageError(got, where="scales")
        self.backbone, self.aspp = backbone, aspp
        scored = (f"aspp.{i}.score" if isinstance(branch, LargeFOV) else f"aspp.{i}" for i, branch in enumerate(aspp))
        self.head_names = tuple(scored)
        self.scales = tuple(Fraction(scale).limit_denominator(100) for scale in scales)
        # whole steps at every scale, and two places at least: one alone has no spread, which batch norm divides by
        grid = backbone.levels[-1].stride * math.lcm(*(scale.denominator for scale in self.scales))
        self.geometry = InputGeometry(grid=grid, smallest=grid + 1)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """The largest scores, at the map's stride, and, if there are several, those of each scale at its own size."""
        largest = self._scores(pixels)
        if not self.scales:
            return PixelOutputs(largest)
        found, size_hw = {"scale_100": largest}, (largest.shape[-2], largest.shape[-1])
        for scale in self.scales:
            # from the first pixel to the last, as many steps as the factor says
            sides = [(side - 1) * scale.numerator // scale.denominator + 1 for side in pixels.shape[-2:]]
            smaller = F.interpolate(pixels, size=sides, mode="bilinear", align_corners=True)
            scores = self._scores(smaller)
            found[f"scale_{round(100 * scale)}"] = scores
            largest = torch.maximum(largest, resize_logits(scores, size_hw, align_corners=True))
        return PixelOutputs(largest, found)

    def _scores(self, pixels: Tensor) -> Float[Tensor, "B K h w"]:
        return self.aspp(self.backbone(pixels)[-1])

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions; of VGG-16, for its form, fc6 and fc7 too, thinned out, for every branch."""
        taken, line = start_trunk(state, self.state_dict())
        fields = [i for i, branch in enumerate(self.aspp) if isinstance(branch, LargeFOV)]
        thinned = thinned_fully_connected(state) if line and fields else {}
        own = {
            f"aspp.{i}.{name.replace('.', '.0.', 1)}": value.clone() for i in fields for name, value in thinned.items()
        }
        return ({**taken, **own}, f"{line}, and fc6 and fc7 thinned out") if own else (taken, line)


def deeplab_v2(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    scales: Sequence[float] = SCALES,
    frozen_norms: bool = True,
    pixels: PixelScale = "imagenet",
) -> DeepLabV2:
    """The paper's network on ResNet-101: 44,048,532 parameters; reported 79.7 mean IoU on VOC 2012's test set with the
    CRF, after training on COCO.

    Args:
        categories: K names, the background included; None gives VOC's 21.
        in_channels: channels of a picture.
        scales: sizes at which the picture is seen beside its own, as factors; empty for its own alone.
        frozen_norms: statistics, scales and shifts of batch norm stay those of the classifier it starts from.
        pixels: imagenet, scaled as torchvision's classifiers want them; caffe, blue, green, red 0..255 less the mean,
            as the authors' nets.
    """
    return _on_resnet("resnet101_msra", categories, in_channels, scales, frozen_norms, pixels)


def deeplab_v2_vgg16(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    scales: Sequence[float] = (),
    pixels: PixelScale = "imagenet",
) -> DeepLabV2:
    """The form on VGG-16 with four fields of view: 37,877,652 parameters. Arguments as `deeplab_v2`."""
    names = categories or VOC_21
    trunk = atrous_vgg(VGG(DEPTHS["vgg16"], output_stride=8, maps=("C5",), in_channels=in_channels))
    aspp = SummedASPP(LargeFOV(trunk.levels[-1].channels, len(names), rate=rate) for rate in RATES)
    return DeepLabV2(names, pixel_values(pixels, in_channels), trunk, aspp, scales)


def deeplab_v2_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    scales: Sequence[float] = (),
    pixels: PixelScale = "imagenet",
) -> DeepLabV2:
    """For small machines, from random weights: ResNet-18 at stride 16 with batch norm that learns; one scale.

    Arguments as `deeplab_v2`.
    """
    names = categories or VOC_21
    trunk = AtrousResNet(VARIANTS["resnet18"], 16, in_channels=in_channels)
    aspp = _scoring(trunk.levels[-1].channels, len(names), tuple(rate // 2 for rate in RATES))
    return DeepLabV2(names, pixel_values(pixels, in_channels), trunk, aspp, scales)


def _on_resnet(
    variant: str,
    categories: Sequence[str] | None,
    in_channels: int,
    scales: Sequence[float],
    frozen_norms: bool,
    pixels: PixelScale,
) -> DeepLabV2:
    names = categories or VOC_21
    norm = frozen_norm if frozen_norms else nn.BatchNorm2d
    trunk = AtrousResNet(VARIANTS[variant], 8, norm=norm, in_channels=in_channels)
    aspp = _scoring(trunk.levels[-1].channels, len(names), RATES)
    return DeepLabV2(names, pixel_values(pixels, in_channels), trunk, aspp, scales)


def _scoring(in_channels: int, num_classes: int, rates: Sequence[int]) -> SummedASPP:
    return SummedASPP(score_convolution(in_channels, num_classes, 3, rate) for rate in rates)
