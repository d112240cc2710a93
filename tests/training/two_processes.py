"""Started by test_distributed.py under torchrun: what two processes do together. Writes what it finds."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from loop_parts import Accuracy, TinyClassifier, pictures, tiny, train_batches, val_batches

from bestiary.errors import TrainingError
from bestiary.records import Losses
from bestiary.training import logs, loop
from bestiary.training.engine import rank_and_world
from bestiary.training.settings import Settings

FIELDS = {"device": "cpu", "precision": "fp32", "tensorboard": False, "lr": 0.1, "epochs": 2}


class Unlucky(TinyClassifier):
    """Its loss, not its gradient, is not a number where picture 005 is: only one process can see it."""

    def loss(self, images: Any, targets: Any) -> Losses:
        losses = super().loss(images, targets)
        bad = any(torch.equal(image, pictures(6)[5].image) for image in images)
        return Losses({**losses.terms, "extra": torch.tensor(float("nan"))}) if bad else losses


class Branches(TinyClassifier):
    """A part of it has no gradient on the second process."""

    def loss(self, images: Any, targets: Any) -> Losses:
        losses = super().loss(images, targets)
        return (
            losses
            if rank_and_world()[0] == 0
            else Losses({"class": losses.terms["class"].detach() + self.head.bias.sum()})
        )


def go(folder: Path, system: TinyClassifier, plain: bool = False, resume: bool = False, **fields: Any) -> loop.Run:
    rank, world = rank_and_world()
    samples = {"rank": rank, "world": world}
    batches = train_batches(16, 4, **samples)
    batches._fetch.transform = None if plain else batches._fetch.transform
    values = Settings.from_dict({**FIELDS, **fields})
    measured = (val_batches(7, 2, **samples), values)
    return loop.train(system, batches, *measured, out=folder, make_evaluator=Accuracy, resume=resume, quiet=True)


def main(root: Path) -> None:
    logs.draw_curves = lambda path, _: path.touch()  # type: ignore[assignment]
    rank, _ = rank_and_world()
    found: dict[str, Any] = {}
    finished = go(root / "plain", tiny())
    assert finished.scores is not None
    found["names"] = finished.scores.details["names"]
    found["loss"] = [row["train/loss"] for row in finished.history]
    found["val"] = [row["val/loss"] for row in finished.history]
    go(root / "accumulated", tiny(), accumulate=2)
    whole = go(root / "whole", tiny(dropout=0.5, norm=True), ema=0.9)
    found["whole_val"] = whole.history[-1]["val/loss"]
    found["whole"] = [row["train/loss"] for row in whole.history]
    found["stopped"] = go(root / "parts", tiny(dropout=0.5, norm=True), ema=0.9, minutes=1e-9).stopped
    parts = go(root / "parts", tiny(dropout=0.5, norm=True), ema=0.9, resume=True)
    found["parts"] = [row["train/loss"] for row in parts.history]
    go(root / "branches", Branches())
    try:
        go(root / "unlucky", Unlucky(), plain=True)
    except TrainingError as error:
        found["error"] = str(error)
    (root / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
