"""A training step and a prediction of Faster R-CNN on ResNet-18 with a pyramid, beside torchvision's where installed.

    OMP_NUM_THREADS=2 python benchmarks/faster_rcnn.py

Four pictures of 320 x 427 with 15 objects each; the loss and its backward pass alone stand beside the whole step. "same
work" has torchvision's numbers of proposals and sampled regions, the others our small form's. All take turns, so that a
slow moment hits all; the result is the median, the first two left out. Writes benchmarks/results/faster_rcnn.json.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from bestiary.detection.faster_rcnn import PUBLISHED, fasterrcnn_resnet18_fpn
from bestiary.records import Objects, Target

BATCH, SIZE_HW, OBJECTS, TURNS = 4, (320, 427), 15, 9


def truth() -> list[Target]:
    targets = []
    for _ in range(BATCH):
        low = torch.rand(OBJECTS, 2) * torch.tensor([380.0, 270.0])
        boxes = torch.cat([low, low + 5 + 40 * torch.rand(OBJECTS, 2)], 1)
        targets.append(Target(objects=Objects(boxes, torch.randint(0, 3, (OBJECTS,)))))
    return targets


class Contestant:
    """A system in training, timed part by part.

    Args:
        loss: total loss of the batch.
        predict: detections of the batch.
    """

    def __init__(self, system: nn.Module, loss: Callable[[], Tensor], predict: Callable[[], object]) -> None:
        self.system, self.loss, self.predict = system, loss, predict
        self.optimiser = torch.optim.SGD(system.parameters(), lr=0.005, momentum=0.9)
        self.times: dict[str, list[float]] = {"loss": [], "backward": [], "step": [], "predict one": []}

    def turn(self) -> None:
        self.system.train()
        marks = [time.perf_counter()]
        total = self.loss()
        marks.append(time.perf_counter())
        self.optimiser.zero_grad()
        total.backward()
        marks.append(time.perf_counter())
        self.optimiser.step()
        marks.append(time.perf_counter())
        self.system.eval()
        with torch.no_grad():
            self.predict()
        marks.append(time.perf_counter())
        self.times["loss"].append(marks[1] - marks[0])
        self.times["backward"].append(marks[2] - marks[1])
        self.times["step"].append(marks[3] - marks[0])
        self.times["predict one"].append((marks[4] - marks[3]) / BATCH)

    def medians(self) -> dict[str, float]:
        return {name: round(statistics.median(values[2:]), 4) for name, values in self.times.items()}


def ours(images: Tensor, targets: list[Target], same_work: bool, channels_last: bool, bf16: bool) -> Contestant:
    system = fasterrcnn_resnet18_fpn(["a", "b", "c"], min_size=320, max_size=533)
    if same_work:
        system.proposals, system.regions = PUBLISHED
    if channels_last:
        system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return system.loss(images, targets).total

    return Contestant(system, loss, lambda: system.predict(images, batch=BATCH))


def torchvisions(images: Tensor, targets: list[Target]) -> Contestant | None:
    try:
        from torchvision.models.detection import FasterRCNN as Theirs
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    except (ImportError, RuntimeError):
        return None
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    system = Theirs(backbone, num_classes=4, min_size=320, max_size=533)
    pixels = list(images.float() / 255)
    objects = [t.objects for t in targets if t.objects is not None]
    truths = [{"boxes": o.boxes_xyxy, "labels": o.labels + 1} for o in objects]
    return Contestant(system, lambda: sum(system(pixels, truths).values(), torch.zeros(())), lambda: system(pixels))


def main() -> None:
    torch.manual_seed(0)
    images, targets = torch.randint(0, 256, (BATCH, 3, *SIZE_HW), dtype=torch.uint8), truth()
    forms = {
        "same work, contiguous": (True, False, False),
        "same work, channels last": (True, True, False),
        "contiguous": (False, False, False),
        "channels last": (False, True, False),
        "channels last, bf16": (False, True, True),
    }
    contestants = {name: ours(images, targets, *form) for name, form in forms.items()}
    peer = torchvisions(images, targets)
    if peer is not None:
        contestants["torchvision"] = peer
    for _ in range(TURNS):
        for contestant in contestants.values():
            contestant.turn()
    seconds = {name: contestant.medians() for name, contestant in contestants.items()}
    print(json.dumps(seconds, indent=1))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.platform()} {platform.processor()}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "batch": BATCH,
        "size_hw": SIZE_HW,
        "seconds": seconds,
        "torchvision's step over ours": {
            name: round(seconds["torchvision"]["step"] / values["step"], 2)
            for name, values in seconds.items()
            if "torchvision" in seconds and name != "torchvision"
        },
    }
    path = Path(__file__).parent / "results" / "faster_rcnn.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
