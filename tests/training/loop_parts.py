"""Small systems, pictures and evaluators for the tests of the loop."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bestiary.data.loader import Batch, Loader
from bestiary.metrics.scores import Scores
from bestiary.predictions import Classification
from bestiary.records import Losses, Sample, Target
from bestiary.system import Images, System


class TinyClassifier(System):
    """Two layers; dropout and a norm if asked for."""

    task: ClassVar[str] = "classification"

    def __init__(self, dropout: float = 0.0, norm: bool = False, categories: Sequence[str] = ("dark", "light")) -> None:
        super().__init__(categories)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, len(self.categories))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.dropout(self.stem(pixels).mean((2, 3))))

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        logits = self(torch.stack(list(images)).float() / 255)
        labels = torch.tensor([t.label for t in targets], device=logits.device)
        weights = self.head.weight.square().mean() * 0.01
        return Losses({"class": nn.functional.cross_entropy(logits, labels), "weights": weights})

    def predict_images(self, images: Sequence[Tensor]) -> list[Classification]:
        probs = self(torch.stack(list(images)).float() / 255).softmax(-1)
        return [Classification(p, (8, 8), self.categories) for p in probs]


def tiny(seed: int = 0, dropout: float = 0.0, norm: bool = False) -> TinyClassifier:
    torch.manual_seed(seed)
    return TinyClassifier(dropout, norm)


def pictures(count: int = 16) -> list[Sample]:
    """Noise of two brightnesses; the label says which."""
    samples = []
    for number in range(count):
        rng = np.random.default_rng(number)
        label = number % 2
        image = torch.from_numpy(rng.integers(60 * label, 160 + 60 * label, (3, 8, 8)).astype(np.uint8))
        samples.append(Sample(image, Target(label=label), f"{number:03d}.png", (8, 8)))
    return samples


def brighten(sample: Sample, rng: np.random.Generator) -> Sample:
    image = (sample.image.float() * rng.uniform(0.8, 1.0)).to(torch.uint8)
    return Sample(image, sample.target, sample.name, sample.original_size_hw)


def train_batches(count: int = 16, batch: int = 4, rank: int = 0, world: int = 1, workers: int = 0) -> Loader:
    return Loader(pictures(count), batch, brighten, seed=1, shuffle=True, rank=rank, world=world, workers=workers)


def val_batches(count: int = 6, batch: int = 4, rank: int = 0, world: int = 1) -> Loader:
    return Loader(pictures(count), batch, rank=rank, world=world)


class FixedBatches:
    """The same batches in every epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        return iter(self.batches[start_batch:])


class Accuracy:
    """Share of right labels; counts what it saw."""

    def __init__(self) -> None:
        self.right = self.seen = 0
        self.names: list[str] = []

    def update(self, predictions: Sequence[Classification], targets: Sequence[Target]) -> None:
        self.right += sum(p.label == t.label for p, t in zip(predictions, targets, strict=True))
        self.seen += len(targets)
        self.names += [p.name for p in predictions]

    def merge(self, other: "Accuracy") -> None:
        self.right, self.seen, self.names = self.right + other.right, self.seen + other.seen, self.names + other.names

    def compute(self) -> Scores:
        values = {"top1": self.right / max(1, self.seen), "pictures": float(self.seen)}
        return Scores("top1", values, "share of right labels", details={"names": self.names})
