"""A system without gradients fitted, and left in the same kind of folder as a trained one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bestiary.data.loader import Pictures
from bestiary.errors import TrainingError, UsageError
from bestiary.records import Sample
from bestiary.system import FittedSystem, System
from bestiary.training.checkpoint import write_atomically, write_model
from bestiary.training.run import Run, RunFolder


@dataclass(frozen=True)
class FitSettings:
    """How a system is fitted.

    Attributes:
        seed: of everything random.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"got {self.seed}, wanted 0 or more", where="seed")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of every field."""
        return {"seed": self.seed}


class Samples(Sequence[Sample]):
    """A map-style data set as the sequence that systems are fitted to; every access decodes a picture."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int | slice) -> Any:
        """The sample, or a list of them."""
        if isinstance(index, slice):
            return [self.pictures[i] for i in range(len(self))[index]]
        return self.pictures[range(len(self))[index]]


Learn = Callable[[Sequence[Sample], int, Callable[[str], None]], None]
"""What fits: handed the samples, the seed, and whom to tell how far it is."""


def fit(
    system: System,
    pictures: Pictures,
    settings: FitSettings,
    *,
    out: Path,
    identity: Mapping[str, Any],
    learn: Learn | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Fit `system` and write its weights, settings and time to a run folder.

    Args:
        system: fitted in place.
        pictures: what is learned from.
        settings: see `FitSettings`.
        out: the run's folder; must not hold a run.
        identity: what a checkpoint must say to rebuild the system.
        learn: fits it; its own `fit` if None.
        say: told how far it is.

    Raises:
        UsageError: the folder holds a run, there are too few samples, or nothing that fits.
        TrainingError: no pictures.
        CheckpointError: a file cannot be written.
    """
    if len(pictures) == 0:
        raise TrainingError("there is no picture to fit to", mend="Is the split empty?")
    if learn is None and not isinstance(system, FittedSystem):
        raise UsageError("the system is trained, not fitted", where=system.model_name or None)
    folder = RunFolder(out)
    folder.claim(resume=False)
    begun = time.monotonic()
    with torch.no_grad():
        (learn or system.fit)(Samples(pictures), settings.seed, say)  # type: ignore[union-attr, operator]
    seconds = time.monotonic() - begun
    facts = {"pictures": f"{len(pictures):,}", "seconds": f"{seconds:.1f}"}
    folder.write_settings(settings.to_dict(), dict(identity), facts)
    state = system.state_dict()
    for path in (folder.best, folder.last):
        write_model(path, state, identity)
    row = {"epoch": 1, "step": 1, "images_per_s": len(pictures) / seconds if seconds else 0.0, "seconds": seconds}
    write_atomically(folder.results, ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    return Run(folder.path, folder.best, folder.last, [row], None, "fitted")
