"""The whole road in a few minutes: draw a little world, train a detector on it, measure it, predict on unseen
pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from bestiary import draw
from bestiary.data.world import World
from bestiary.metrics.scores import Scores
from bestiary.pictures.encode import write_image
from bestiary.records import Sample
from bestiary.system import Predictor
from bestiary.verbs.evaluating import best_threshold, evaluate
from bestiary.verbs.models import load
from bestiary.verbs.training import Splits, train

MODEL = "fasterrcnn_resnet18_fpn"
SIDE = 128
"""Side of the pictures that are learned from; those shown are drawn twice as large."""

OBJECTS = (1, 4)
BATCH = 6
STEPS_A_MINUTE = 100
"""Training steps that two cores of a 2024 server processor do in a minute."""

FIELDS = {"optimizer": "adamw", "lr": 4e-4, "weight_decay": 0.01, "clip_norm": 5.0, "warmup_steps": 30}
"""What learns fastest in two minutes; the recipe's SGD needs longer."""


@dataclass(frozen=True)
class DemoRun:
    """What the demo made: the run's folder, the checkpoint, its scores on unseen pictures, and the report."""

    folder: Path
    best: Path
    report: Path
    pictures: Path
    scores: list[Scores]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        paths = {name: str(getattr(self, name)) for name in ("folder", "best", "report", "pictures")}
        return {**paths, "scores": [s.to_dict() for s in self.scores]}


def demo(out: Path, minutes: float = 2.0, say: Callable[[str], None] = lambda _: None) -> DemoRun:
    """Train on the procedural `world`, evaluate, predict on pictures never seen, write a report.

    Args:
        out: a folder; numbered if it exists.
        minutes: how long to train on two cores; the number of steps follows from it, so that the result does not
            depend on the machine.
        say: told in plain lines what is done.
    """
    folder, number = out, 1
    while folder.exists():
        number += 1
        folder = out.with_name(f"{out.name}{number}")
    steps = max(8, int(minutes * STEPS_A_MINUTE))
    training = World(BATCH * steps, seed=0, size_hw=(SIDE, SIDE), objects=OBJECTS)
    say(f"drawing a world of {len(training.categories)} kinds of things: {', '.join(training.categories)}")
    say(f"training {MODEL} from scratch for {steps} steps of {BATCH} pictures")
    sizes = {"short_side": SIDE, "longest": SIDE, "batch": BATCH, "epochs": 1, "workers": 0}
    fields = {**FIELDS, **sizes, "warmup_steps": min(30, steps // 3), "channels_last": True, "tensorboard": False}
    run = train(MODEL, training, splits=Splits(val=None, test=None), out=folder, **fields)
    model = load(run.last)
    unseen = World(60, seed=1, size_hw=(2 * SIDE, 2 * SIDE), split="test", objects=OBJECTS)
    say(f"measuring on {len(unseen)} unseen pictures")
    facts = {
        "model": MODEL,
        "data": "world, the built-in procedural pictures",
        "training": f"{steps} steps of {BATCH} pictures",
    }
    measured = evaluate(model, unseen, "test", report=folder / "report.html", facts=facts, history=run.history)
    threshold = best_threshold(measured.scores[0])
    pictures = folder / "unseen.png"
    sheet = [_beside(model, unseen[i], unseen.categories, threshold) for i in range(8)]
    write_image(pictures, draw.grid(sheet, columns=2))
    say(f"predictions on unseen pictures: {pictures}")
    return DemoRun(folder, run.last, folder / "report.html", pictures, measured.scores)


def _beside(model: Predictor, sample: Sample, categories: Sequence[str], threshold: float) -> UInt8[Tensor, "3 H W"]:
    prediction = model.predict(sample.image)[0].above(threshold)  # type: ignore[union-attr]
    truth = draw.target(sample.image, sample.target, tuple(categories))
    return draw.side_by_side(truth, prediction.draw(sample.image), ("truth", "prediction"))
