"""The compact nets as tables, for tests that all of them must pass."""

from collections.abc import Callable
from functools import partial

from torch import nn

from bestiary.backbones import (
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    squeezenext,
)

PARAMETERS = {
    squeezenet.squeezenet1_0: 1_248_424,
    squeezenet.squeezenet1_1: 1_235_496,
    squeezenet.squeezenet1_0_simple_bypass: 1_248_424,
    squeezenet.squeezenet1_0_complex_bypass: 1_589_672,
    squeezenext.squeezenext23: 718_280,
    squeezenext.squeezenext23_grouped: 544_072,
    squeezenext.squeezenext23v5: 931_016,
    squeezenext.squeezenext23_x2: 2_362_728,
    squeezenext.squeezenext23v5_x2: 3_223_912,
    mobilenet_v1.mobilenet_v1: 4_231_976,
    mobilenet_v1.mobilenet_v1_x0_75: 2_585_560,
    mobilenet_v1.mobilenet_v1_x0_5: 1_331_592,
    mobilenet_v1.mobilenet_v1_x0_25: 470_072,
    mobilenet_v2.mobilenet_v2: 3_504_872,
    mobilenet_v3.mobilenet_v3_large: 5_483_032,
    mobilenet_v3.mobilenet_v3_small: 2_542_856,
    shufflenet_v1.shufflenet_v1_g1: 1_531_936,
    shufflenet_v1.shufflenet_v1_g2: 1_733_848,
    shufflenet_v1.shufflenet_v1_g3: 1_865_728,
    shufflenet_v1.shufflenet_v1_g4: 1_968_344,
    shufflenet_v1.shufflenet_v1_g8: 2_434_768,
    shufflenet_v2.shufflenet_v2_x0_5: 1_366_792,
    shufflenet_v2.shufflenet_v2_x1_0: 2_278_604,
    shufflenet_v2.shufflenet_v2_x1_5: 3_503_624,
    shufflenet_v2.shufflenet_v2_x2_0: 7_393_996,
}
"""Constructor -> parameters with 1,000 categories, as published; those of the complex bypass follow from its rule."""

CIFAR = [
    squeezenet.squeezenet_cifar,
    squeezenext.squeezenext_cifar,
    mobilenet_v1.mobilenet_v1_cifar,
    mobilenet_v2.mobilenet_v2_cifar,
    mobilenet_v3.mobilenet_v3_cifar,
    shufflenet_v1.shufflenet_v1_cifar,
    shufflenet_v2.shufflenet_v2_cifar,
]

TRUNKS: dict[str, Callable[..., nn.Module]] = {
    "squeezenet1_0": partial(squeezenet.SqueezeNet, squeezenet.V1_0),
    "squeezenet1_1": partial(squeezenet.SqueezeNet, squeezenet.V1_1),
    "squeezenet_cifar": partial(squeezenet.SqueezeNet, squeezenet.CIFAR),
    "squeezenext23": partial(squeezenext.SqueezeNext, squeezenext.VARIANTS["squeezenext23"]),
    "squeezenext23v5": partial(squeezenext.SqueezeNext, squeezenext.VARIANTS["squeezenext23v5"]),
    "mobilenet_v1": partial(mobilenet_v1.MobileNetV1, 0.25),
    "mobilenet_v2": partial(mobilenet_v2.MobileNetV2, 0.35),
    "mobilenet_v3_large": partial(mobilenet_v3.MobileNetV3, mobilenet_v3.LARGE, 0.35),
    "mobilenet_v3_small": partial(mobilenet_v3.MobileNetV3, mobilenet_v3.SMALL, 0.35),
    "shufflenet_v1": partial(shufflenet_v1.ShuffleNetV1, 3),
    "shufflenet_v2": partial(shufflenet_v2.ShuffleNetV2, shufflenet_v2.X0_5),
}
"""Narrow forms of the trunks; each takes `in_channels`."""
