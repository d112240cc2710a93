"""The whole road in a few minutes: draw a little world, train a detector on it, measure it, predict on unseen
pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary import draw
from bestiary.data.world import World
from bestiary.metrics.scores import Scores
from bestiary.pictures.encode import write_image
from bestiary.records import Sample
from bestiary.verbs.evaluating import evaluate
from bestiary.verbs.models import load
from bestiary.verbs.training import Splits, train

MODEL = "fasterrcnn_resnet18_fpn"
SIZE_HW = (160, 160)
STEPS_A_MINUTE = 75
"""Training steps of four pictures that two cores of a 2024 server processor do in a minute."""


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
    training = World(4 * steps, seed=0, size_hw=SIZE_HW, split="train")
    say(f"drawing a world of {len(training.categories)} kinds of things: {', '.join(training.categories)}")
    say(f"training {MODEL} from scratch for {steps} steps of 4 pictures")
    run = train(
        MODEL,
        training,
        splits=Splits(val=None, test=None),
        out=folder,
        say=lambda _: None,
        epochs=1,
        lr=0.02,
        warmup_steps=min(30, steps // 3),
        short_side=SIZE_HW[0],
        longest=SIZE_HW[1],
        tensorboard=False,
        workers=0,
    )
    model = load(run.last)
    unseen = World(60, seed=1, size_hw=SIZE_HW, split="test")
    say(f"measuring on {len(unseen)} unseen pictures")
    facts = {
        "model": MODEL,
        "data": "world, the built-in procedural pictures",
        "training": f"{steps} steps of 4 pictures",
    }
    measured = evaluate(model, unseen, "test", report=folder / "report.html", facts=facts, history=run.history)
    pictures = folder / "unseen.png"
    write_image(pictures, draw.grid([_beside(model, unseen[i], unseen.categories) for i in range(8)], columns=2))
    say(f"predictions on unseen pictures: {pictures}")
    return DemoRun(folder, run.last, folder / "report.html", pictures, measured.scores)


def _beside(model: Any, sample: Sample, categories: Any) -> Any:
    prediction = model.predict(sample.image)[0].above(0.5)
    truth = draw.target(sample.image, sample.target, tuple(categories))
    return draw.side_by_side(truth, prediction.draw(sample.image), ("truth", "prediction"))
