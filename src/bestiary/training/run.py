"""The folder of a run and what stands in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.errors import CheckpointError, UsageError
from bestiary.metrics.scores import Scores
from bestiary.training.checkpoint import write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Names of a run's files.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Weights of the last epoch."""
        return self.path / "last.safetensors"

    @property
    def state(self) -> Path:
        """What a run needs to go on."""
        return self.path / "last.state.safetensors"

    @property
    def settings(self) -> Path:
        """Effective settings, with the identity of the model."""
        return self.path / "settings.json"

    @property
    def results(self) -> Path:
        """One row an epoch."""
        return self.path / "results.csv"

    @property
    def curves(self) -> Path:
        """Losses and scores over the epochs."""
        return self.path / "curves.png"

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.path / "tensorboard"

    def of_epoch(self, epoch: int) -> Path:
        """Weights of one epoch (1-based), where `keep` asks for them."""
        return self.path / f"epoch-{epoch:04d}.safetensors"

    def claim(self, resume: bool) -> None:
        """Make sure that a new run overwrites nothing, and that a resumed one is there.

        Raises:
            UsageError: a new run, but the folder holds one.
            CheckpointError: a resumed run, but the folder holds none.
        """
        there = [p.name for p in (self.state, self.last, self.best, self.results, self.settings) if p.exists()]
        if resume and not self.state.exists():
            raise CheckpointError(f"there is no run to resume (no {self.state.name})", where=str(self.path))
        if there and not resume:
            mend = "Choose another folder, or resume the run"
            raise UsageError(f"the folder holds a run already ({', '.join(there)})", where=str(self.path), mend=mend)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder cannot be made ({error})", where=str(self.path)) from error

    def write_settings(self, settings: Mapping[str, Any], identity: dict[str, Any], facts: dict[str, str]) -> None:
        """Save what this run is."""
        content = {"settings": dict(settings), "identity": identity, "facts": facts}
        write_atomically(self.settings, json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class Run:
    """A finished, or stopped, run.

    Attributes:
        folder: where everything stands.
        best: weights of the best epoch.
        last: weights of the last epoch.
        history: one row an epoch, as in results.csv.
        scores: those of the best epoch (with details if this call ran that epoch); None without an evaluator.
        stopped: why: "epochs", "steps", "minutes", "patience" or "interrupted".
    """

    folder: Path
    best: Path
    last: Path
    history: list[dict[str, Any]]
    scores: Scores | None
    stopped: str
