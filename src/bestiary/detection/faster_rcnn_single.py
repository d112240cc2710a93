"""Faster R-CNN as it was in 2015 (Ren, He, Girshick, Sun, NIPS 2015), on one map of stride 16: VGG-16, ResNet, and a
small trunk for small machines.

Faithful: nine anchors a place, 128^2, 256^2 and 512^2 at ratios 1:2, 1:1 and 2:1; 3x3 convolution of 512 channels; two
scores an anchor; anchors that cross the border learn nothing; 256 anchors, half of them positive at most; 12,000
proposals before and 2,000 after NMS of 0.7 in training, 6,000 and 300 in prediction, none with a side below 16; shorter
side 600 up to 1,000; RoIPool 7x7, fc6 and fc7 with dropout; 128 regions a picture; NMS 0.3. With ResNet (He et al.:
Deep Residual Learning, CVPR 2016, appendix A) conv5 is the box head, on 14x14 bins of conv4, and norms are frozen.

Deviations: anchors are centred on cells' corners and box sides are differences of coordinates, as torchvision has both;
the least side of 16 is at network scale, in the authors' code at the picture's own; losses are divided by the number
of anchors sampled, as in that code; pictures are padded to multiples of 32; ResNet pools regions by RoIAlign, and has
its stride on the 3x3 convolutions. Training here is joint; in four steps: `faster_rcnn_alternating`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, ResNet, Variant, freeze_stem, frozen_norm
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS, places
from bestiary.detection.faster_rcnn import FasterRCNN
from bestiary.errors import UsageError
from bestiary.heads.box import BoxHead, RegionSettings, StageHead
from bestiary.heads.published import VOC_20
from bestiary.heads.rpn import RPN, FilterPyramidHead, ProposalSettings, RPNHead
from bestiary.layers.frozen_norm import NormLayer
from bestiary.ops.region_modules import RoIAlign, RoIPool

STRIDE = 16
RATIOS = (0.5, 1.0, 2.0)
PROPOSALS = ProposalSettings(before_nms=(12000, 6000), after_nms=(2000, 300), min_side=16.0, inside_only=True)
REGIONS = RegionSettings(per_image=128, nms_iou=0.3)
SMALL_PROPOSALS = replace(PROPOSALS, before_nms=(3000, 1500), after_nms=(1000, 300), min_side=4.0)
"""For pictures of about 320x427 with objects from 16 pixels."""


class C4Trunk(Trunk):
    """A ResNet without its last stage: pictures to C4. State names are the ResNet's.

    Args:
        net: whose parts it takes.
    """

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.levels, self.in_channels = net.levels[2:3], net.in_channels

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C2 _h _w"]]:
        """C4."""
        features = self.maxpool(nn.functional.relu(self.bn1(self.conv1(pixels)), inplace=True))
        return (self.layer3(self.layer2(self.layer1(features))),)


@dataclass(frozen=True)
class Parts:
    """What distinguishes the forms of one map.

    Attributes:
        trunk: pictures to one map of stride 16.
        head: pooled regions to vectors.
        pooling: of regions.
        proposals: settings of the first stage.
        hidden: channels of the proposal network's first convolution.
    """

    trunk: Trunk
    head: BoxHead | StageHead
    pooling: RoIPool | RoIAlign
    proposals: ProposalSettings = PROPOSALS
    hidden: int = 512


def vgg16_parts(frozen_blocks: int = 0) -> Parts:
    """VGG-16 up to conv5_3; of its first blocks so many stay as they are.

    Raises:
        UsageError: it has not so many blocks.
    """
    if not 0 <= frozen_blocks <= 5:
        raise UsageError(f"got {frozen_blocks}, wanted 0 to 5", where="frozen_blocks")
    trunk = VGG(DEPTHS["vgg16"], maps=("C4",))
    if frozen_blocks:
        trunk.features[: places(DEPTHS["vgg16"])[f"pool{frozen_blocks}"]].requires_grad_(False)
    return Parts(trunk, BoxHead(trunk.channels, 7, 4096, dropout=0.5), RoIPool(7, 1 / STRIDE))


def small_parts() -> Parts:
    """VGG-11 with batch norm and half the channels; two layers of 512 units."""
    trunk = vgg11_bn_half()
    head = BoxHead(trunk.channels, 7, 512)
    return Parts(trunk, head, RoIPool(7, 1 / STRIDE), SMALL_PROPOSALS, hidden=256)


def c4_parts(variant: Variant, norm: NormLayer, trainable_layers: int) -> Parts:
    """A ResNet, cut before its last stage."""
    net = ResNet(variant, norm=norm)
    freeze_stem(net, trainable_layers)
    head = StageHead(net.layer4, net.levels[3].channels)
    return Parts(C4Trunk(net), head, RoIAlign(14, 1 / STRIDE, sampling_ratio=2))


def proposal_network(
    channels: int, hidden: int, anchor_sizes: Sequence[float], rpn_kernels: Sequence[int] = (3,)
) -> RPN:
    """The first stage on one map: one filter for all anchors, or a pyramid of filters, one for each size.

    Raises:
        UsageError: kernels that are not odd, or neither one nor as many as sizes.
    """
    sizes, kernels = tuple(float(side) for side in anchor_sizes), tuple(rpn_kernels)
    if not sizes or min(sizes) <= 0:
        raise UsageError(f"got {sizes}, wanted pixels above 0", where="anchor_sizes")
    if any(k < 1 or k % 2 == 0 for k in kernels) or len(kernels) not in (1, len(sizes)):
        raise UsageError(f"got {kernels}, wanted one odd number, or one for each anchor size", where="rpn_kernels")
    if len(kernels) == 1:
        head: RPNHead | FilterPyramidHead = RPNHead(channels, len(sizes) * len(RATIOS), hidden, kernels[0], pairs=True)
    else:
        head = FilterPyramidHead(channels, len(RATIOS), kernels, hidden)
    return RPN(channels, (sizes,), RATIOS, head)


def build(
    parts: Parts,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    anchor_sizes: Sequence[float],
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    kind: type[FasterRCNN] = FasterRCNN,
) -> FasterRCNN:
    """A system of these parts; `kind` is joint or alternating."""
    system = kind(
        parts.trunk,
        VOC_20 if categories is None else categories,
        rpn=proposal_network(parts.trunk.levels[0].channels, parts.hidden, anchor_sizes, rpn_kernels),
        box_head=parts.head,
        pooling=parts.pooling,
        min_size=sizes[0],
        max_size=sizes[1],
        proposals=parts.proposals,
        regions=REGIONS,
        class_weights=class_weights,
    )
    predictor = system.roi_heads.box_predictor
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):  # Fast R-CNN, section 2.3
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return system


def faster_rcnn_vgg16(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    frozen_blocks: int = 0,
) -> FasterRCNN:
    """The paper's system: 137,078,239 parameters with 20 categories.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        anchor_sizes: sides of the square anchors, pixels at network scale; smaller ones for small objects.
        rpn_kernels: side of the proposal network's filter; one for each anchor size makes a pyramid of filters.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        frozen_blocks: how many of the first blocks of convolutions stay as they are; the paper's 2 suit ImageNet's
            weights, none suits random ones.
    """
    return build(vgg16_parts(frozen_blocks), categories, (min_size, max_size), anchor_sizes, rpn_kernels, class_weights)


def faster_rcnn_small(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
) -> FasterRCNN:
    """For small machines: VGG-11 with batch norm at half width, two layers of 512 units; learns from random weights.

    Arguments as `faster_rcnn_vgg16`.
    """
    return build(small_parts(), categories, (min_size, max_size), anchor_sizes, rpn_kernels, class_weights)


def faster_rcnn_resnet50_c4(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> FasterRCNN:
    """On conv4 of ResNet-50, with conv5 as the box head and frozen batch norm.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        anchor_sizes: sides of the square anchors, pixels at network scale; smaller ones for small objects.
        rpn_kernels: side of the proposal network's filter; one for each anchor size makes a pyramid of filters.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        trainable_layers: how many of stem and four stages learn, from the last; 3 is usual with ImageNet's weights.
    """
    parts = c4_parts(VARIANTS["resnet50"], frozen_norm, trainable_layers)
    return build(parts, categories, (min_size, max_size), anchor_sizes, rpn_kernels, class_weights)


def faster_rcnn_resnet101_c4(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> FasterRCNN:
    """The same on ResNet-101, as He et al. (CVPR 2016, appendix A) have it. Arguments as `faster_rcnn_resnet50_c4`."""
    parts = c4_parts(VARIANTS["resnet101"], frozen_norm, trainable_layers)
    return build(parts, categories, (min_size, max_size), anchor_sizes, rpn_kernels, class_weights)
