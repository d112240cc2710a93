"""A run's weights and state: when written, what goes into them, and how a run is taken up again."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from bestiary.system import System
from bestiary.training.checkpoint import read_state, write_model, write_state
from bestiary.training.ema import WeightAverage
from bestiary.training.engine import Engine
from bestiary.training.evaluation import Validation
from bestiary.training.progress import (
    Progress,
    load_state_tensors,
    model_tensors,
    plain_scores,
    progress_facts,
    progress_from,
    require_same_run,
    state_tensors,
)
from bestiary.training.run import RunFolder
from bestiary.training.settings import Settings


@dataclass(frozen=True, eq=False)
class Keeper:
    """Writes and reads a run's checkpoints. Only the first process writes; all read.

    Attributes:
        folder: of the run.
        settings: of the run.
        identity: of the model.
        engine: processes.
        system: its weights while training.
        optimiser: over the trainable parameters.
        average: of the weights; None without.
        batches: of one process and epoch.
    """

    folder: RunFolder
    settings: Settings
    identity: dict[str, Any]
    engine: Engine
    system: System
    optimiser: Optimizer
    average: WeightAverage | None
    batches: int

    @contextmanager
    def measured_weights(self) -> Iterator[None]:
        """Within the block the system holds the weights that are measured and saved: the average, if there is one."""
        with self.average.in_place() if self.average is not None else nullcontext():
            yield

    def write_weights(self, path: Path, progress: Progress, found: Validation | None) -> None:
        """Write a model file of the measured weights; `found` is what they scored."""
        if not self.engine.is_first:
            return
        facts = {
            **self.identity,
            "settings": self.settings.to_dict(),
            "scores": plain_scores(found.scores) if found is not None else None,
            "val_loss": found.loss if found is not None else None,
            "epoch": progress.epoch + 1 if progress.batch else progress.epoch,
            "step": progress.step,
            "averaged": self.average is not None,
        }
        with self.measured_weights():
            write_model(path, model_tensors(self.system), facts)

    def keep_epoch(self, progress: Progress) -> None:
        """Write the weights of the epoch that ended and remove the oldest, so that `keep` of them stay."""
        if not self.settings.keep or not self.engine.is_first:
            return
        self.write_weights(self.folder.of_epoch(progress.epoch), progress, None)
        for old in sorted(self.folder.path.glob("epoch-*.safetensors"))[: -self.settings.keep]:
            old.unlink()

    def write_state(self, progress: Progress) -> None:
        """Write all that the run needs to go on. Called by all processes together: they add up what they have seen."""
        totals = self.engine.totals({**progress.sums, "": float(progress.weight)})
        if not self.engine.is_first:
            return
        weight = int(totals.pop(""))
        whole = dataclasses.replace(progress, sums=totals, weight=weight)
        scaler = self.engine.accelerator.scaler
        facts = {
            "progress": progress_facts(whole),
            "settings": self.settings.to_dict(),
            "identity": self.identity,
            "batches": self.batches,
            "world": self.engine.world,
            "updates": self.average.updates if self.average is not None else 0,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        write_state(self.folder.state, state_tensors(self.system, self.optimiser, self.average), facts)

    def restore(self) -> Progress:
        """Put weights, optimiser, average and scaler back as the state file holds them, and say how far the run had
        come.

        Raises:
            CheckpointError: the file is broken or of another model.
            UsageError: the settings make it another run.
        """
        tensors, facts = read_state(self.folder.state)
        where = str(self.folder.state)
        identity = json.loads(json.dumps(self.identity))
        require_same_run(facts, self.settings, identity, self.batches, self.engine.world, where)
        load_state_tensors(tensors, self.system, self.optimiser, self.average, facts["updates"])
        scaler = self.engine.accelerator.scaler
        if scaler is not None and facts["scaler"]:
            scaler.load_state_dict(facts["scaler"])
        progress = progress_from(facts["progress"])
        if not self.engine.is_first:
            progress.sums, progress.weight = {}, 0  # the file holds the sums of all processes
        return progress
