"""Validation: the loss and the scores of a system on pictures it was not trained on, on all processes."""

import math
from dataclasses import dataclass, replace

import torch

from bestiary.metrics.scores import Scores
from bestiary.system import System
from bestiary.training.contracts import Batches, MakeEvaluator
from bestiary.training.engine import Engine
from bestiary.training.seeding import VALIDATION, batch_seed, generators_kept, seed_generators


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        terms: loss terms, means over the pictures.
        loss: their sum; NaN where there was no picture.
        scores: None without an evaluator.
    """

    terms: dict[str, float]
    loss: float
    scores: Scores | None

    @property
    def value(self) -> float:
        """What systems are chosen by, higher is better: the headline score, else the negative loss."""
        return -self.loss if self.scores is None else self.scores.value


def validate(
    system: System, batches: Batches, engine: Engine, seed: int, make_evaluator: MakeEvaluator | None
) -> Validation:
    """Measure `system` in evaluation mode, in float32, without touching its mode, its statistics or any random
    generator.

    Pictures come as they lie on disk: predictions are scored in original pixels; the loss is
    `system.validation_loss`. Systems that sample in their loss draw the same in every validation.

    Raises:
        BestiaryError: what the loader or the system says of a picture.
    """
    evaluator = make_evaluator() if make_evaluator is not None else None
    sums: dict[str, float] = {}
    pictures = 0
    was_training = {module: module.training for module in system.modules()}
    system.eval()
    try:
        with generators_kept(engine.device), torch.no_grad():
            for number, batch in enumerate(batches.iterate(0)):
                seed_generators(batch_seed(seed, VALIDATION, 0, number, engine.rank), engine.device)
                moved = batch.to(engine.device)
                losses = system.validation_loss(moved.images, moved.targets)
                for name, value in losses.terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
                pictures += len(batch)
                if evaluator is not None:
                    found = system.predict_images(moved.images)
                    named = [replace(p.to("cpu"), name=name) for p, name in zip(found, batch.names, strict=True)]
                    evaluator.update(named, batch.targets)
    finally:
        for module, training in was_training.items():
            module.training = training
    totals = engine.totals({**sums, "": float(pictures)})
    pictures = max(1.0, totals.pop(""))
    means = {name: value / pictures for name, value in totals.items()}
    scores = None
    if evaluator is not None:
        parts = engine.gather(evaluator)
        if parts is not None:
            for part in parts[1:]:
                evaluator.merge(part)
            scores = evaluator.compute()
        scores = engine.from_first(scores)
    return Validation(means, sum(means.values(), 0.0) if means else math.nan, scores)
