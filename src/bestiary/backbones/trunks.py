"""Trunks by the names of the classifiers that have them: what a detector or a pyramid can stand on.

A trunk's state names are its classifier's, so that the classifier's weights can be its start. Here are those whose maps
have the size of the picture over their stride, rounded up or down; the unpadded nets before 2014 are not.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import partial

from bestiary.backbones import mobilenet_v3, shufflenet_v2
from bestiary.backbones.darknet import Darknet19
from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.mobilenet_v1 import MobileNetV1
from bestiary.backbones.mobilenet_v2 import MobileNetV2
from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.backbones.shufflenet_v1 import ShuffleNetV1
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError

ALL_MAPS = ("C1", "C2", "C3", "C4", "C5")

TRUNKS: Mapping[str, Callable[[], Trunk]] = {
    **{name: partial(ResNet, variant) for name, variant in VARIANTS.items()},
    **{name: partial(VGG, depths) for name, depths in DEPTHS.items()},
    **{f"{name}_bn": partial(VGG, depths, batch_norm=True) for name, depths in DEPTHS.items()},
    "vgg11_bn_half": partial(vgg11_bn_half, maps=ALL_MAPS),
    "darknet19": Darknet19,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": partial(mobilenet_v3.MobileNetV3, mobilenet_v3.LARGE),
    "mobilenet_v3_small": partial(mobilenet_v3.MobileNetV3, mobilenet_v3.SMALL),
    "shufflenet_v1_g3": ShuffleNetV1,
    "shufflenet_v2_x0_5": partial(shufflenet_v2.ShuffleNetV2, shufflenet_v2.X0_5),
    "shufflenet_v2_x1_0": partial(shufflenet_v2.ShuffleNetV2, shufflenet_v2.X1_0),
    "shufflenet_v2_x1_5": partial(shufflenet_v2.ShuffleNetV2, shufflenet_v2.X1_5),
    "shufflenet_v2_x2_0": partial(shufflenet_v2.ShuffleNetV2, shufflenet_v2.X2_0),
}


def build_trunk(name: str) -> Trunk:
    """The trunk of that name, with random parameters and trainable norms.

    Raises:
        UsageError: no such trunk; the nearest is named.
    """
    if name not in TRUNKS:
        close = difflib.get_close_matches(name, list(TRUNKS), n=1, cutoff=0.5)
        mend = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(TRUNKS)}"
        raise UsageError(f"no trunk is called {name!r}", where="backbone", mend=mend)
    return TRUNKS[name]()


def levels_from(trunk: Trunk, stride: int = 4) -> tuple[Level, ...]:
    """The levels of at least that stride: a pyramid stands on C2 and coarser ones."""
    return tuple(level for level in trunk.levels if level.stride >= stride)
