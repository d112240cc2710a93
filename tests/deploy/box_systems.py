"""Small detectors of every kind, with weights that find many boxes of different scores."""

from collections.abc import Callable

import torch

from bestiary.backbones.resnet import VARIANTS, frozen_norm
from bestiary.detection.corner_net import CornerNet, corner_net_small
from bestiary.detection.faster_rcnn_alternating import faster_rcnn_small_4step
from bestiary.detection.faster_rcnn_single import build, c4_parts, faster_rcnn_small
from bestiary.detection.r_fcn import r_fcn_small
from bestiary.detection.retinanet import retinanet_resnet18_fpn
from bestiary.detection.ssd import ssd300_small
from bestiary.detection.yolo_v1 import yolo_v1_small
from bestiary.detection.yolo_v2 import yolo_v2_small
from bestiary.heads.detection import Detector

NAMES = ("cat", "dog", "bird")
SIZES = {"min_size": 96, "max_size": 160}
STEEPER = {
    "roi_heads.box_predictor.cls_score.weight": 60,
    "position_maps.rfcn_cls.weight": 30,
    "position_maps.rfcn_bbox.weight": 10,
    "head.classification_head.cls_logits.weight": 4,
    "head.regression_head.bbox_reg.weight": 10,
}
"""Factors on weights: a random head says nearly the same everywhere."""


def c4_small() -> Detector:
    """One map of ResNet-18, whose last stage is the box head; no norm does anything yet, and features are large."""
    system = build(c4_parts(VARIANTS["resnet18"], frozen_norm, 5), NAMES, (96, 160), (32.0, 64.0, 128.0))
    with torch.no_grad():
        system.roi_heads.box_predictor.cls_score.weight.mul_(0.05)
    return system


MAKE: dict[str, Callable[[], Detector]] = {
    "faster_rcnn_small": lambda: faster_rcnn_small(NAMES, **SIZES),
    "faster_rcnn_small_4step": lambda: faster_rcnn_small_4step(NAMES, **SIZES),
    "faster_rcnn_c4": c4_small,
    "r_fcn_small": lambda: r_fcn_small(NAMES, **SIZES),
    # no map of a single row or column: the exporter takes a side of one for a constant
    "retinanet": lambda: retinanet_resnet18_fpn(NAMES, min_size=192, max_size=320),
    "ssd": lambda: ssd300_small(NAMES),
    "yolo_v1": lambda: yolo_v1_small(NAMES, size=96),
    "yolo_v2": lambda: yolo_v2_small(NAMES, size=96),
    "corner_net": lambda: corner_net_small(NAMES, min_size=95, max_size=159),
}
TWO_STAGE = ("faster_rcnn_small", "faster_rcnn_small_4step", "faster_rcnn_c4", "r_fcn_small")
ONE_STAGE = tuple(name for name in MAKE if name not in TWO_STAGE)


def box_system(name: str) -> Detector:
    """In evaluation mode."""
    torch.manual_seed(3)
    system = MAKE[name]().eval()
    with torch.no_grad():
        for path, parameter in system.named_parameters():
            parameter.mul_(STEEPER.get(path, 1))
            if path == "head.classification_head.cls_logits.bias":
                parameter.zero_()
        if isinstance(system, CornerNet):
            _corners_everywhere(system)
    return system


def _corners_everywhere(system: CornerNet) -> None:
    """Probable corners whose tags are all the same."""
    for heads in (system.top_left, system.bottom_right):
        for name, parameter in heads.named_parameters():
            if ".heat.1." in f".{name}":
                parameter.mul_(10 if name.endswith("weight") else 0)
            elif ".tag.1." in f".{name}":
                parameter.zero_()
