"""The path from YOLO to YOLOv2, rung by rung (Redmon, Farhadi, CVPR 2017, table 2), at a quarter of the width for small
machines. Every column of the table is an argument of `yolo_v2_ladder` or of its recipe.

    column                   argument
    batch norm               batch_norm
    hi-res classifier        the classifier that `--weights` names: trained at 224, or at last at 448
    convolutional            convolutional: False is YOLO's own head, its connected layers and its loss
    anchor boxes             convolutional, with dimension_priors and direct_location off
    new network              darknet19: False are YOLO's convolutions, without the last stride and with batch norm
    dimension priors         dimension_priors: k-means on the data; False are nine hand-picked sizes
    location prediction      direct_location
    passthrough              passthrough
    multi-scale              train_sizes
    hi-res detector          size 544
"""

from collections.abc import Callable, Sequence

from bestiary.backbones.darknet import Darknet19
from bestiary.backbones.extraction import ALL_24, FIRST_20, extraction, narrowed
from bestiary.detection.yolo_v1 import YOLOv1, grid_of
from bestiary.detection.yolo_v2 import VOC_PRIORS, YOLOv2
from bestiary.errors import UsageError
from bestiary.heads.cells import ConnectedHead
from bestiary.heads.detection import Detector
from bestiary.heads.published import VOC_20
from bestiary.heads.region_layer import RegionRule
from bestiary.heads.region_network import RegionNetwork
from bestiary.records import Sample

NARROWER = 4
"""All channels are divided by this."""

HAND_PICKED = tuple(
    number for side in (2.0, 4.0, 8.0) for ratio in (0.5, 1.0, 2.0) for number in (side / ratio**0.5, side * ratio**0.5)
)
"""Nine sizes as Faster R-CNN has them: three sides of 2 to 8 cells in three proportions."""


class ConnectedYOLO(YOLOv1):
    """YOLO where a recipe begins with priors: it has none. Arguments as `YOLOv1`."""

    def begin_stage(self, name: str) -> None:
        """There is only one."""

    def fit_stage(
        self, name: str, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Nothing is fitted."""
        say("connected layers have no priors")


def yolo_v2_ladder(
    categories: Sequence[str] | None = None,
    *,
    batch_norm: bool = True,
    convolutional: bool = True,
    darknet19: bool = True,
    dimension_priors: bool = True,
    direct_location: bool = True,
    passthrough: bool = True,
    size: int = 416,
    train_sizes: Sequence[int] = (),
    letterbox: bool = False,
    pull_pictures: int = 1000,
) -> Detector:
    """One rung of table 2.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        batch_norm: without it only YOLO's own head.
        convolutional: boxes from priors at every cell; False for YOLO's connected layers, at 448 pixels.
        darknet19: False for YOLO's convolutions.
        dimension_priors: five priors by k-means on the data; False for nine hand-picked ones.
        direct_location: centres stay in their cells.
        passthrough: the finer map joins in; only with darknet19.
        size: side of the square that `predict` works at.
        train_sizes: sides that training draws from, a new one every ten batches; none for no change.
        letterbox: pictures keep their proportions within the square, with grey around; otherwise they are stretched.
        pull_pictures: the boxes are drawn to their priors for so many pictures.

    Raises:
        UsageError: no rung of the table.
    """
    names = VOC_20 if categories is None else categories
    if not convolutional:
        if tuple(train_sizes) or letterbox:
            raise UsageError("connected layers see pictures at one size, stretched", where="train_sizes, letterbox")
        head = ConnectedHead(1024 // NARROWER, grid_of(size, 64), len(names), 2, hidden=(512,))
        return ConnectedYOLO(extraction(narrowed(ALL_24, NARROWER), norm=batch_norm), names, head, size=size)
    if not batch_norm:
        raise UsageError("got no batch norm, wanted it where there are no connected layers", where="batch_norm")
    if passthrough and not darknet19:
        mend = "Set passthrough to false: the table never has the one without the other."
        raise UsageError("got a passthrough without Darknet-19", where="passthrough", mend=mend)
    priors = VOC_PRIORS if dimension_priors else HAND_PICKED
    outputs = len(priors) // 2 * (5 + len(names))
    width = 1024 // NARROWER
    if darknet19:
        fine = 64 // NARROWER if passthrough else 0
        network = RegionNetwork(Darknet19(width=1 / NARROWER), outputs, width=width, passthrough=fine)
    else:
        trunk = extraction(narrowed((*FIRST_20, *((1024, 3, 1),) * 4), NARROWER), norm=True)
        network = RegionNetwork(trunk, outputs, convolutions=0, passthrough=0)
    return YOLOv2(
        network,
        names,
        priors=priors,
        size=size,
        train_sizes=train_sizes,
        letterbox=letterbox,
        direct_location=direct_location,
        fit_priors=dimension_priors,
        rule=RegionRule(pull_pictures=pull_pictures, cross_entropy=True),
    )
