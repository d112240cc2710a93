"""How far a run has come: everything of its state that is not a tensor, and the state file as a whole."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bestiary.errors import CheckpointError, UsageError
from bestiary.metrics.scores import Scores
from bestiary.system import System
from bestiary.training.ema import WeightAverage
from bestiary.training.optimisers import load_optimiser_tensors, optimiser_tensors
from bestiary.training.settings import FREE_ON_RESUME, Settings


@dataclass
class Progress:
    """Counters of a run.

    Attributes:
        epoch: epochs finished; also the 0-based number of the one that runs.
        batch: batches of the running epoch that are done.
        step: optimiser steps done.
        images: pictures of the running epoch, all processes together.
        weight: pictures of the running epoch that `sums` is of, on this process.
        sums: loss terms of the running epoch, each times its pictures.
        seconds: time of the running epoch so far, without validation.
        best_value: best score so far (higher is better).
        best_epoch: 1-based epoch of it; 0 before any.
        best_scores: plain JSON of it.
        history: rows of the finished epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    weight: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best_value: float = -math.inf
    best_epoch: int = 0
    best_scores: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def add_terms(self, terms: Sequence[tuple[str, int]], values: Sequence[float]) -> None:
        """Take in loss terms: their names with the number of pictures each is the mean of, and their values."""
        for (name, pictures), value in zip(terms, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value * pictures

    def close_epoch(self, row: dict[str, Any]) -> None:
        """Count the running epoch as done."""
        self.history.append(row)
        self.epoch += 1
        self.batch, self.images, self.weight, self.sums, self.seconds = 0, 0, 0, {}, 0.0


def state_tensors(system: System, optimiser: Optimizer, average: WeightAverage | None) -> dict[str, Tensor]:
    """All tensors of a run's state: `model/...`, `optimiser/...`, `average/...`."""
    tensors = {f"model/{name}": value for name, value in model_tensors(system).items()}
    tensors |= {f"optimiser/{name}": value for name, value in optimiser_tensors(optimiser).items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.averages.items()}
    return tensors


def load_state_tensors(
    tensors: Mapping[str, Tensor], system: System, optimiser: Optimizer, average: WeightAverage | None, updates: int
) -> None:
    """Put back what `state_tensors` gave.

    Raises:
        CheckpointError: the state is of another model, optimiser or set of frozen parts.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "average": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    own = model_tensors(system)
    for name in own.keys() | parts["model"].keys():
        if name not in own or name not in parts["model"] or own[name].shape != parts["model"][name].shape:
            saved = tuple(parts["model"][name].shape) if name in parts["model"] else "nothing"
            wanted = tuple(own[name].shape) if name in own else "nothing"
            raise CheckpointError(f"the state holds {saved} for {name!r}, wanted {wanted}: it is of another model")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(parts["model"][name])
    load_optimiser_tensors(optimiser, parts["optimiser"])
    if average is not None:
        average.load(parts["average"], updates)


def model_tensors(system: System) -> dict[str, Tensor]:
    """A system's parameters and persistent buffers, sharing memory with it."""
    return {name: value for name, value in system.state_dict().items() if isinstance(value, Tensor)}


def require_same_run(
    saved: Mapping[str, Any], settings: Settings, identity: Mapping[str, Any], batches: int, world: int, where: str
) -> None:
    """Make sure that a run goes on as it began.

    Args:
        saved: facts of the state file: "settings", "identity", "batches" (of one process and epoch), "world".
        settings: those of the continuation.
        identity: of the model now.
        batches: of the loader that was handed in.
        world: processes now.
        where: the state file.

    Raises:
        UsageError: a setting that makes the run another run differs; all of them are listed.
        CheckpointError: another model or other categories; or, within an epoch, the number of batches or processes
        differs, so that its position means nothing.
    """
    before, now = saved["settings"], settings.to_dict()
    changed = [n for n in now if n not in FREE_ON_RESUME and n in before and before[n] != now[n]]
    if changed:
        listed = "; ".join(f"{n} was {before[n]!r}, is {now[n]!r}" for n in changed)
        free = ", ".join(sorted(FREE_ON_RESUME))
        raise UsageError(listed, where=where, mend=f"A resumed run may change only {free}; else start a new run")
    for name in ("model", "categories"):
        if saved["identity"].get(name) != identity.get(name):
            message = f"the run's {name} was {saved['identity'].get(name)!r}, now it is {identity.get(name)!r}"
            raise CheckpointError(message, where=where)
    got, wanted = (batches, world), (saved["batches"], saved["world"])
    if saved["progress"]["batch"] and got != wanted:
        message = f"the run stopped within an epoch of {wanted[0]} batches on {wanted[1]} processes; now they are {got}"
        raise CheckpointError(message, where=where, mend="Resume with the same data and as many processes")


def plain_scores(scores: Scores | None) -> dict[str, Any] | None:
    """Plain JSON of the numbers and their protocol; curves and matrices would weigh more than a small model."""
    return {**scores.to_dict(), "details": {}} if scores is not None else None


def progress_facts(progress: Progress) -> dict[str, Any]:
    """Plain JSON of a progress; numbers keep all their bits."""
    return dataclasses.asdict(progress)


def progress_from(facts: Mapping[str, Any]) -> Progress:
    """The progress that `progress_facts` gave."""
    return Progress(**facts)
