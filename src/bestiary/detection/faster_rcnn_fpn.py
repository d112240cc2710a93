"""Faster R-CNN with a feature pyramid on any trunk, and torchvision's two forms on MobileNetV3.

    trunk = build_trunk("darknet19")                                         any Trunk of your own will do
    backbone = PyramidBackbone(trunk, FPN(levels_from(trunk), extra=CoarserByPool()))
    system = FasterRCNN(backbone, ["cat", "dog"])

is `fasterrcnn_fpn(["cat", "dog"], backbone="darknet19")`, but for the numbers of regions.

The MobileNetV3 forms follow `fasterrcnn_mobilenet_v3_large_fpn` and `..._320_fpn` of torchvision 0.28 (no paper): a
"pyramid" on two maps of the same stride 32, the last stage's first block and the last convolution, and a third of
stride 64; five anchor sizes on each; proposals below 0.05 are dropped. Where both maps have one stride, regions are
pooled from the first alone.
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.mobilenet_v3 import LARGE, MobileNetV3
from bestiary.backbones.resnet import frozen_norm
from bestiary.backbones.trunks import build_trunk, levels_from
from bestiary.detection.faster_rcnn import PUBLISHED, SMALL, FasterRCNN
from bestiary.errors import UsageError
from bestiary.heads.published import COCO_90
from bestiary.heads.rpn import RPN, ProposalSettings
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone
from bestiary.ops.region_modules import RoIAlign

STAGE_STARTS = (0, 2, 4, 7, 13, 16)
"""Of MobileNetV3-Large: the stem, the four blocks that stride again, and the last convolution."""
MOBILE_SIZES = ((32.0, 64.0, 128.0, 256.0, 512.0),) * 3
MOBILE = replace(PUBLISHED[0], min_score=0.05)
MOBILE_320 = replace(MOBILE, before_nms=(2000, 150), after_nms=(2000, 150))


class MobileMaps(Trunk):
    """MobileNetV3-Large with the maps after layers 13 and 16, both of stride 32. State names are the layers' numbers.

    Args:
        net: whose layers it takes.
    """

    def __init__(self, net: MobileNetV3) -> None:
        super().__init__()
        for number, layer in enumerate(net.features):
            self.add_module(str(number), layer)
        last = net.levels[-1].channels
        self.levels, self.in_channels = (Level("C5", last // 6, 32), Level("C6", last, 32)), net.in_channels

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C5 and C6."""
        features, maps = pixels, []
        for name, layer in self.named_children():
            features = layer(features)
            if name in ("13", "16"):
                maps.append(features)
        return tuple(maps)


def fasterrcnn_fpn(
    categories: Sequence[str] | None = None,
    *,
    backbone: str = "mobilenet_v3_large",
    min_size: int = 800,
    max_size: int = 1333,
    class_weights: Sequence[float] | None = None,
) -> FasterRCNN:
    """On C2 to C5 of the trunk that you name, with trainable batch norm and as many regions as the small forms.

    Args:
        categories: K names; None gives COCO's 90 ids with "N/A" at the gaps.
        backbone: a name of `bestiary.backbones.trunks`, such as vgg16_bn, darknet19, shufflenet_v2_x1_0. A classifier
            of that name can be the start (`--weights`).
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        class_weights: K factors on the classification loss of each category's regions; none for 1.

    Raises:
        UsageError: no such trunk.
    """
    trunk = build_trunk(backbone)
    pyramid = PyramidBackbone(trunk, FPN(levels_from(trunk), extra=CoarserByPool()))
    return FasterRCNN(
        pyramid,
        COCO_90 if categories is None else categories,
        min_size=min_size,
        max_size=max_size,
        proposals=SMALL[0],
        regions=SMALL[1],
        class_weights=class_weights,
    )


def fasterrcnn_mobilenet_v3_large_fpn(
    categories: Sequence[str] | None = None, *, min_size: int = 800, max_size: int = 1333, trainable_layers: int = 6
) -> FasterRCNN:
    """On MobileNetV3-Large as torchvision has it: 19,386,354 parameters, of which it reports 32.8 AP on COCO.

    Args:
        categories: K names; None gives the published layout, COCO's 90 ids with "N/A" at the gaps.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        trainable_layers: how many of the six parts of the trunk learn, from the last; 3 is usual with ImageNet's
            weights.
    """
    return _mobile(categories, (min_size, max_size), trainable_layers, MOBILE)


def fasterrcnn_mobilenet_v3_large_320_fpn(
    categories: Sequence[str] | None = None, *, min_size: int = 320, max_size: int = 640, trainable_layers: int = 6
) -> FasterRCNN:
    """The same for small pictures and 150 proposals; torchvision reports 22.8 AP on COCO.

    Arguments as `fasterrcnn_mobilenet_v3_large_fpn`.
    """
    return _mobile(categories, (min_size, max_size), trainable_layers, MOBILE_320)


def _mobile(
    categories: Sequence[str] | None, sizes: tuple[int, int], trainable_layers: int, proposals: ProposalSettings
) -> FasterRCNN:
    if not 0 <= trainable_layers <= len(STAGE_STARTS):
        got = f"got {trainable_layers}, wanted 0 (all frozen) to {len(STAGE_STARTS)} (all trained)"
        raise UsageError(got, where="trainable_layers")
    trunk = MobileMaps(MobileNetV3(LARGE, norm=frozen_norm))
    parts = list(trunk.children())
    first_trained = (*STAGE_STARTS, len(parts))[len(STAGE_STARTS) - trainable_layers]
    for part in parts[:first_trained]:
        part.requires_grad_(False)
    backbone = PyramidBackbone(trunk, FPN(trunk.levels, extra=CoarserByPool()))
    channels = backbone.levels[0].channels
    return FasterRCNN(
        backbone,
        COCO_90 if categories is None else categories,
        rpn=RPN(channels, MOBILE_SIZES),
        pooling=RoIAlign(PUBLISHED[1].bins, 1 / 32, sampling_ratio=2),
        min_size=sizes[0],
        max_size=sizes[1],
        proposals=proposals,
    )
