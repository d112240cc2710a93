"""Losses and gradients that are not finite: found before the weights move, named, and kept to be played again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bestiary.errors import BestiaryError, TrainingError
from bestiary.system import System
from bestiary.training.bundle import Played, write_bundle
from bestiary.training.settings import Settings

MOST_SKIPPED = 20
"""Steps skipped in a row after which even `skip` stops: the weights themselves are beyond help."""


@dataclass
class Guard:
    """Watches every step.

    Attributes:
        settings: whether to stop or skip.
        folder: of the run; bundles go into folders of it.
        identity: of the model.
        in_a_row: steps skipped since the last good one.
        notes: one line for each skipped step, for the end of the run.
    """

    settings: Settings
    folder: Path
    identity: dict[str, Any]
    in_a_row: int = 0
    notes: list[str] = field(default_factory=list)
    _buffers: list[Tensor] = field(default_factory=list)

    def before(self, system: nn.Module) -> None:
        """Remember the running statistics, which a forward pass on a bad batch would spoil, if steps may be skipped."""
        if self.settings.on_nonfinite == "skip":
            live = [b for b in system.buffers() if b.is_floating_point()]
            if len(self._buffers) != len(live):
                self._buffers = [b.clone() for b in live]
            elif live:
                torch._foreach_copy_(self._buffers, live)

    def bad_step(self, system: System, played: Sequence[Played], epoch: int, step: int, writes: bool) -> None:
        """Handle a step whose loss or gradient is not finite; returns only if it is to be skipped.

        Args:
            system: with the weights before the step, and the gradients.
            played: the step's batches on this process.
            epoch: 1-based.
            step: 1-based number of the step.
            writes: whether this process saw it and so writes the bundle.

        Raises:
            TrainingError: the run stops here; it names terms, pictures and the bundle.
        """
        found = describe(system, played)
        if self.settings.on_nonfinite == "skip":
            self._restore(system)
            self.in_a_row += 1
            self.notes.append(f"step {step} (epoch {epoch}) was skipped: {found}")
            if self.in_a_row < MOST_SKIPPED:
                return
        where = f"epoch {epoch}, step {step}"
        mend = "Often it is a learning rate that is too high, warm-up too short, or a picture with broken truth"
        if writes:
            facts = {"epoch": epoch, "step": step, "found": found, "settings": self.settings.to_dict()}
            folder = self.folder / f"nonfinite-step-{step:07d}"
            try:
                write_bundle(folder, system, self.identity, list(played), facts)
                mend += f". To see it again: python {folder / 'reproduce.py'}"
            except BestiaryError as error:
                mend += f". The step could not be kept: {error}"
        if self.in_a_row >= MOST_SKIPPED:
            found = f"{self.in_a_row} steps in a row had to be skipped, the last: {found}"
        raise TrainingError(found, where=where, mend=mend)

    def good_step(self) -> None:
        """The step was finite."""
        self.in_a_row = 0

    def _restore(self, system: nn.Module) -> None:
        live = [b for b in system.buffers() if b.is_floating_point()]
        if live:
            torch._foreach_copy_(live, self._buffers)


def describe(system: nn.Module, played: Sequence[Played]) -> str:
    """Which terms of which pictures are not finite; or, if all are, in which parameters the gradient is not."""
    for one in played:
        bad = {name: float(value) for name, value in one.terms.items() if not math.isfinite(float(value))}
        if bad:
            terms = ", ".join(f"{name} is {value}" for name, value in bad.items())
            return f"the loss is not finite: {terms}; pictures {', '.join(one.batch.names)}"
    names = [n for n, p in system.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if not names:
        return "the loss or gradient of another process is not finite"
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    pictures = ", ".join(name for one in played for name in one.batch.names)
    return f"the gradient is not finite in {shown}, though the loss is; pictures {pictures}"
