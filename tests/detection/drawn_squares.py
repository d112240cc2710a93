"""A detector on one map small enough to learn within seconds, and two pictures of two squares."""

import torch
from torch import Tensor

from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.detection.faster_rcnn import FasterRCNN
from bestiary.detection.faster_rcnn_single import SMALL_PROPOSALS, Parts, build
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.box import BoxHead
from bestiary.ops.region_modules import RoIPool
from bestiary.predictions import Detections
from bestiary.records import Objects, Target

CATEGORIES = ["ant", "bee"]


def tiny(kind: type[FasterRCNN] = FasterRCNN, seed: int = 0) -> FasterRCNN:
    torch.manual_seed(seed)
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, maps=("C4",), width=0.125)
    parts = Parts(trunk, BoxHead(trunk.channels, 7, 64), RoIPool(7, 1 / 16), SMALL_PROPOSALS, hidden=64)
    return build(parts, CATEGORIES, (96, 160), (32.0, 48.0), kind=kind)


def squares() -> tuple[Tensor, list[Target]]:
    pictures, targets = torch.zeros(2, 3, 96, 96), []
    for picture, (x, y) in zip(pictures, ((6, 30), (40, 50)), strict=True):
        picture[0, y : y + 40, x : x + 40] = 1.0
        picture[1, 6:42, 54:90] = 1.0
        boxes = torch.tensor([[x, y, x + 40, y + 40], [54, 6, 90, 42]], dtype=torch.float32)
        targets.append(Target(objects=Objects(boxes, torch.tensor([0, 1]))))
    return pictures, targets


def learn(system: FasterRCNN, turns: int) -> list[float]:
    """Losses of so many steps on both pictures, the last fifth of them small, of whatever parameters may learn."""
    parameters, losses = [p for p in system.parameters() if p.requires_grad], []
    optimiser = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)
    for turn in range(turns):
        optimiser.param_groups[0]["lr"] = 0.01 if turn >= 0.8 * turns else 0.05
        optimiser.zero_grad()
        loss = system.loss(*squares()).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        losses.append(loss.item())
    return losses


def overlaps_of_the_surest(system: FasterRCNN) -> list[float]:
    """IoU of each object with the surest answer of its category, 0 where there is none above 0.3."""
    overlaps = []
    pictures, targets = squares()
    for picture, target in zip(pictures, targets, strict=True):
        (found,) = system.predict(picture)
        assert isinstance(found, Detections)
        assert target.objects is not None
        for box, label in zip(target.objects.boxes_xyxy, target.objects.labels, strict=True):
            own = found.above(0.3).boxes_xyxy[found.above(0.3).labels == label]
            overlaps.append(float(pairwise_iou(box[None], own[:1])[0, 0]) if len(own) else 0.0)
    return overlaps
