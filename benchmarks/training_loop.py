"""What the loop adds to a step of plain torch, on a model so small that nothing else is left.

    OMP_NUM_THREADS=1 python benchmarks/training_loop.py

The plain loop does what nobody can leave out: forward, backward, step, and one look at the loss. Both are measured in
turns in one process; the result is the median of the turns. Writes benchmarks/results/training_loop.json.
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from bestiary.data.loader import Batch
from bestiary.predictions import Prediction
from bestiary.records import Losses, Target
from bestiary.system import Images, System
from bestiary.training.loop import train
from bestiary.training.settings import Settings

STEPS, TURNS = 2000, 5


class Perceptron(System):
    task: ClassVar[str] = "classification"

    def __init__(self) -> None:
        super().__init__(("a", "b"))
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        labels = torch.tensor([t.label for t in targets])
        return Losses({"class": nn.functional.cross_entropy(self(torch.stack(list(images))), labels)})

    def predict_images(self, images: Sequence[Tensor]) -> list[Prediction]:
        raise NotImplementedError


class Repeated:
    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        return (self.batch for _ in range(start_batch, self.count))


def plain(batch: Batch) -> float:
    torch.manual_seed(0)
    system = Perceptron()
    optimiser = torch.optim.SGD(system.parameters(), lr=0.01, momentum=0.9, fused=True)
    begun = time.perf_counter()
    for _ in range(STEPS):
        loss = system.loss(batch.images, batch.targets).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
    return (time.perf_counter() - begun) / STEPS * 1e6


def ours(batch: Batch, extra: dict[str, object]) -> float:
    torch.manual_seed(0)
    fields = {"epochs": 1, "precision": "fp32", "device": "cpu", "tensorboard": False, **extra}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = train(Perceptron(), Repeated(batch, STEPS), None, Settings.from_dict(fields), out=out, quiet=True)
    return run.history[0]["seconds"] / STEPS * 1e6


def main() -> None:
    batch = Batch([torch.rand(3, 2, 2)], [Target(label=1)], ["a"], [0])
    variants: dict[str, dict[str, object]] = {
        "loop": {},
        "loop, clipping and averaging": {"clip_norm": 1.0, "ema": 0.999},
        "loop, skipping": {"on_nonfinite": "skip"},
    }
    times: dict[str, list[float]] = {name: [] for name in ("plain torch", *variants)}
    for _ in range(TURNS):
        times["plain torch"].append(plain(batch))
        for name, extra in variants.items():
            times[name].append(ours(batch, extra))
    medians = {name: statistics.median(values) for name, values in times.items()}
    added = {name: medians[name] - medians["plain torch"] for name in variants}
    for name, value in medians.items():
        print(f"{name:32s} {value:8.1f} us/step" + (f"  (+{added[name]:.1f})" if name in added else ""))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.platform()} {platform.processor()}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "steps": STEPS,
        "turns": TURNS,
        "microseconds_per_step": medians,
        "added_microseconds": added,
    }
    path = Path(__file__).parent / "results" / "training_loop.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
