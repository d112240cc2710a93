"""A training step and a prediction of Faster R-CNN on ResNet-18 with a pyramid, in both memory layouts.

    OMP_NUM_THREADS=2 python benchmarks/faster_rcnn.py

Four pictures of 320 x 427 with 15 objects each; the loss and its backward pass alone stand beside the whole step. The
result is the median of the turns, the first two left out. Writes benchmarks/results/faster_rcnn.json.
"""

import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from bestiary.detection.faster_rcnn import FasterRCNN, fasterrcnn_resnet18_fpn
from bestiary.records import Objects, Target

BATCH, SIZE_HW, OBJECTS, TURNS = 4, (320, 427), 15, 9


def truth() -> list[Target]:
    targets = []
    for _ in range(BATCH):
        low = torch.rand(OBJECTS, 2) * torch.tensor([380.0, 270.0])
        boxes = torch.cat([low, low + 5 + 40 * torch.rand(OBJECTS, 2)], 1)
        targets.append(Target(objects=Objects(boxes, torch.randint(0, 3, (OBJECTS,)))))
    return targets


def measure(system: FasterRCNN, images: Tensor, targets: list[Target]) -> dict[str, float]:
    optimiser = torch.optim.SGD(system.parameters(), lr=0.005, momentum=0.9)
    times: dict[str, list[float]] = {"loss": [], "backward": [], "step": [], "predict one": []}
    for _ in range(TURNS):
        system.train()
        marks = [time.perf_counter()]
        total = system.loss(images, targets).total
        marks.append(time.perf_counter())
        optimiser.zero_grad()
        total.backward()
        marks.append(time.perf_counter())
        optimiser.step()
        marks.append(time.perf_counter())
        system.predict(images, batch=BATCH)
        marks.append(time.perf_counter())
        times["loss"].append(marks[1] - marks[0])
        times["backward"].append(marks[2] - marks[1])
        times["step"].append(marks[3] - marks[0])
        times["predict one"].append((marks[4] - marks[3]) / BATCH)
    return {name: round(statistics.median(values[2:]), 4) for name, values in times.items()}


def main() -> None:
    torch.manual_seed(0)
    images, targets = torch.randint(0, 256, (BATCH, 3, *SIZE_HW), dtype=torch.uint8), truth()
    seconds = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        system = fasterrcnn_resnet18_fpn(["a", "b", "c"], min_size=320, max_size=533)
        seconds[name] = measure(system.to(memory_format=layout), images, targets)  # type: ignore[call-overload]
        print(name, seconds[name])
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.platform()} {platform.processor()}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "batch": BATCH,
        "size_hw": SIZE_HW,
        "seconds": seconds,
    }
    path = Path(__file__).parent / "results" / "faster_rcnn.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
