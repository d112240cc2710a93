"""What the loop tells while it runs, and to whom."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bestiary.training.settings import Settings


@dataclass(frozen=True)
class Start:
    """The run begins, or goes on.

    Attributes:
        folder: of the run.
        settings: the effective ones.
        identity: what is trained.
        facts: one sentence each about device, precision, parameters and pictures.
        history: rows of the epochs that an earlier call finished.
        step: optimiser steps already done.
        total_steps: optimiser steps of the whole run.
    """

    folder: Path
    settings: Settings
    identity: dict[str, Any]
    facts: dict[str, str]
    history: list[dict[str, Any]]
    step: int
    total_steps: int


@dataclass(frozen=True)
class Step:
    """One optimiser step was done.

    Attributes:
        epoch: 1-based.
        step: steps done so far.
        total_steps: steps of the whole run.
        loss: mean over the step's pictures.
        lr: learning rate of the step.
        gradient_norm: of all parameters together, before clipping; NaN in fp16, whose scaler looks after it.
        images: pictures of the step, all processes together.
    """

    epoch: int
    step: int
    total_steps: int
    loss: float
    lr: float
    gradient_norm: float
    images: int


@dataclass(frozen=True)
class Epoch:
    """One epoch was done, validated if it was due, and saved.

    Attributes:
        row: the line of results.csv: epoch, step, lr, images_per_s, seconds, train/..., val/... and the scores.
        step: steps done so far.
        best: whether it is the best so far.
        history: all rows, this one last.
    """

    row: dict[str, Any]
    step: int
    best: bool
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class End:
    """The run stopped.

    Attributes:
        why: "epochs", "steps", "minutes", "patience" or "interrupted".
        history: all rows.
        notes: what the user should know (skipped steps, say).
    """

    why: str
    history: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


class Callback:
    """Anything that listens: override what you need. Called on the first process only; what it raises stops the run."""

    def on_start(self, event: Start) -> None:
        """Before the first step."""

    def on_step(self, event: Step) -> None:
        """After each optimiser step: called often, so it must be quick."""

    def on_epoch(self, event: Epoch) -> None:
        """After each epoch."""

    def on_end(self, event: End) -> None:
        """After the last epoch; not called when an error stops the run."""

    def close(self) -> None:
        """Whatever happened, the run is over: let go of files and screens."""
