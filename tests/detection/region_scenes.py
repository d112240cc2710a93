"""Squares and discs on noise, windows all over the picture, and a trunk of two convolutions: what systems that judge
regions learn from in a second or two.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.geometry.boxes import pairwise_iou
from bestiary.predictions import Detections
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Objects, Sample, Target

CATEGORIES = ["square", "disc"]
COLOURS = torch.tensor([[220, 200, 40], [40, 120, 230]], dtype=torch.uint8)
SIDE = 48


class Windows(Proposer):
    """Squares of some sizes on a grid."""

    name = "windows"

    def __init__(self, sides: tuple[int, ...] = (12, 16, 20), step: int = 3) -> None:
        super().__init__()
        self.sides, self.step = sides, step

    def settings(self) -> Mapping[str, Any]:
        return {"sides": self.sides, "step": self.step}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        height, width = image.shape[-2:]
        rows = [
            [x, y, x + side, y + side]
            for side in self.sides
            for y in range(0, height - side + 1, self.step)
            for x in range(0, width - side + 1, self.step)
        ]
        boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 4)
        return Proposals(boxes, torch.linspace(1, 0, len(boxes)))


def scene(seed: int) -> Sample:
    """One to four shapes, each in a quarter of its own."""
    chance = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=chance))

    image = (torch.rand(3, SIDE, SIDE, generator=chance) * 60).to(torch.uint8)
    centres = torch.arange(SIDE) + 0.5
    boxes, labels = [], []
    for quarter in range(draw(1, 5)):
        side, label, room = draw(12, 21), draw(0, 2), SIDE // 2
        x, y = (quarter % 2) * room + draw(0, room - side + 1), (quarter // 2) * room + draw(0, room - side + 1)
        across, down = (centres - x - side / 2)[None], (centres - y - side / 2)[:, None]
        inside = torch.maximum(across.abs(), down.abs()) < side / 2
        image[:, inside if label == 0 else across**2 + down**2 < side**2 / 4] = COLOURS[label][:, None]
        boxes.append([x, y, x + side, y + side])
        labels.append(label)
    objects = Objects(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels))
    return Sample(
        image, Target(objects=objects, proposals_xyxy=Windows().find(image).boxes_xyxy), f"{seed}", (SIDE,) * 2
    )


def trunk() -> Chain:
    """Two convolutions, each with norm and pool: stride 4, 16 channels."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip
    return Chain(layers, {7: Level("C2", 16, 4)})


def judge(found: list[Detections], samples: list[Sample], sure: float = 0.5) -> tuple[float, float, float]:
    """Recall and precision of the answers above `sure`, and the mean IoU of objects with their best answer."""
    hits, objects, right, answers, overlaps = 0, 0, 0, 0, 0.0
    for detections, sample in zip(found, samples, strict=True):
        truth = sample.target.objects
        assert truth is not None
        chosen = detections.scores > sure
        boxes, labels = detections.boxes_xyxy[chosen], detections.labels[chosen]
        iou = pairwise_iou(truth.boxes_xyxy, boxes) * (truth.labels[:, None] == labels)
        best = torch.cat([iou, torch.zeros(len(iou), 1)], 1).max(1).values
        hits, objects = hits + int((best > 0.5).sum()), objects + len(best)
        right, answers = right + int((iou > 0.5).any(0).sum()), answers + len(boxes)
        overlaps += float(best.sum())
    return hits / objects, right / max(1, answers), overlaps / objects
