"""RetinaNet's decoding: from the maps of a picture of 800 x 1344 with 91 outputs an anchor to its answers."""

from types import ModuleType
from typing import Any

import torch
from benchmarks.op_cases import Case, Peers
from torch import Tensor

from bestiary.detection.retinanet import RawLevels, retinanet_resnet50_fpn

PIXELS_HW, PICTURE_HW = (800, 1344), (800, 1333)
MAPS_HW = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))


def cases(peers: Peers) -> list[Case]:
    torch.manual_seed(0)
    # Of 18 million scores some thousands are above the threshold.
    logits = tuple(torch.randn(1, 819, *size) * 0.7 - 5 for size in MAPS_HW)
    deltas = tuple(torch.randn(1, 36, *size) * 0.1 for size in MAPS_HW)
    system, raw = retinanet_resnet50_fpn().eval(), RawLevels(logits, deltas)
    peer = None if peers.vision is None else _Peer(peers.vision, logits, deltas)
    return [Case("RetinaNet decoding, 800x1344, 91 outputs", lambda: system.decode(raw, PIXELS_HW, [PICTURE_HW]), peer)]


class _Peer:
    """torchvision's post-processing of the same maps, which includes bringing them to a row an anchor."""

    def __init__(self, vision: ModuleType, logits: tuple[Tensor, ...], deltas: tuple[Tensor, ...]) -> None:
        detection: Any = vision.models.detection
        self.network = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).eval()
        images = detection.image_list.ImageList(torch.zeros(1, 3, *PIXELS_HW), [PICTURE_HW])
        self.anchors = self.network.anchor_generator(images, [torch.zeros(1, 1, *size) for size in MAPS_HW])[0]
        self.maps = logits, deltas

    @torch.no_grad()
    def __call__(self) -> object:
        outputs = {
            "cls_logits": [_rows(level, 91) for level in self.maps[0]],
            "bbox_regression": [_rows(level, 4) for level in self.maps[1]],
        }
        anchors = list(self.anchors.split([level.shape[1] for level in outputs["bbox_regression"]]))
        return self.network.postprocess_detections(outputs, [anchors], [PICTURE_HW])


def _rows(level: Tensor, numbers: int) -> Tensor:
    batch, _, height, width = level.shape
    return level.view(batch, -1, numbers, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, numbers)
