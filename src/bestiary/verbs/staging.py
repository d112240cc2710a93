"""Training in stages: each from where the one before ended, in its own folder of the run, each resumable.

RUN/1-finetune/, RUN/2-svm/ ... are runs of their own. RUN/stages.json names those that are done; when all are, what the
last one left is RUN's own checkpoint.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bestiary.array_cache import ArrayCache
from bestiary.data.loader import Loader, Pictures
from bestiary.data.with_proposals import WithProposals
from bestiary.errors import CheckpointError, UsageError
from bestiary.layers.learned import make_room
from bestiary.proposals.proposer import Proposer
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.system import System
from bestiary.training import fitting, loop
from bestiary.training.checkpoint import read_model, write_atomically, write_model
from bestiary.training.engine import rank_and_world
from bestiary.training.fitting import FitSettings
from bestiary.training.run import Run, RunFolder
from bestiary.training.sampling import Sampler, class_balanced, repeat_factor
from bestiary.training.settings import Settings
from bestiary.verbs.datasets import Samples
from bestiary.verbs.evaluating import evaluators
from bestiary.verbs.models import identity_of

STOPPED_EARLY = ("minutes", "interrupted")
"""Why a stage ended before its end."""

DEFAULT_COUNT = 2000
"""Proposals a picture, of systems that do not say."""

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
    """What a system learns from, and how.

    Attributes:
        system: trained in place.
        recipe: how.
        training: pictures to learn from.
        held_out: pictures to choose the best checkpoint by; None for none.
        say: told in plain lines what is done.
        learned: of which pictures, for the checkpoint; see `verbs.datasets.has_learned`.
    """

    system: System
    recipe: Recipe
    training: Samples
    held_out: Samples | None
    say: Say
    learned: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_proposals(self, cache: ArrayCache | None) -> "Lesson":
        """The lesson with proposals at every picture, if the system learns from such; found now, and kept in `cache`.

        A method that learns is fitted to the training pictures first.
        """
        proposer, settings = getattr(self.system, "proposer", None), self.recipe.settings
        if not isinstance(proposer, Proposer):
            return self
        if not proposer.is_ready:
            proposer.fit(fitting.Samples(self.training), settings.seed, self.say)
        proposer.cache = cache
        count = int(getattr(self.system, "proposal_count", DEFAULT_COUNT))
        parts = [WithProposals(part, proposer, count) for part in (self.training, self.held_out) if part is not None]
        for part in parts:
            part.prepare(self.say)
        return dataclasses.replace(self, training=parts[0], held_out=parts[1] if len(parts) > 1 else None)

    def run(self, folder: Path, resume: bool) -> Run:
        """All of it, in a folder."""
        if self.recipe.stages:
            return self._all_stages(folder, resume)
        return self._one(Stage("", self.recipe.settings), folder, resume)

    def _identity(self) -> dict[str, Any]:
        return {**identity_of(self.system), "recipe": self.recipe.to_dict(), "learned": dict(self.learned)}

    def _one(self, stage: Stage, folder: Path, resume: bool) -> Run:
        """The only stage, or one of several."""
        system, identity = self.system, self._identity()
        if isinstance(stage.settings, FitSettings):
            if resume:
                mend = "Start it anew, in another folder"
                raise UsageError("a system that is fitted has nothing to resume", mend=mend)
            learn = partial(system.fit_stage, stage.name) if stage.name else None
            return fitting.fit(
                system, self.training, stage.settings, out=folder, identity=identity, learn=learn, say=self.say
            )
        training, held_out = self._loaders(stage.settings)
        task, categories = self.recipe.task, system.categories
        return loop.train(
            system,
            training,
            held_out,
            stage.settings,
            out=folder,
            make_evaluator=(lambda: evaluators(task, categories)[0]) if stage.is_scored else None,
            identity=identity,
            resume=resume,
        )

    def _loaders(self, settings: Settings) -> tuple[Loader, Loader | None]:
        rank, world = rank_and_world()
        pairs = tuple(getattr(self.training, "joint_pairs", None) or ())
        training = Loader(
            self.training,
            batch=settings.batch,
            transform=self.recipe.pictures.train_transform(pairs),
            seed=settings.seed,
            shuffle=True,
            workers=settings.workers,
            sampler=_sampler(self.training, self.recipe.task, settings),
            drop_last=len(self.training) > settings.batch * world,
            rank=rank,
            world=world,
            cache_bytes=0,
        )
        if self.held_out is None:
            return training, None
        batch = settings.batch if self.recipe.task == "classification" else 1
        return training, Loader(self.held_out, batch=batch, workers=0, rank=rank, world=world)

    def _all_stages(self, folder: Path, resume: bool) -> Run:
        run, stages = _StagedFolder(folder), self.recipe.stages
        run.claim(resume)
        done = run.done() if resume else []
        trainable = {name: parameter.requires_grad for name, parameter in self.system.named_parameters()}
        history: list[dict[str, Any]] = []
        for number, stage in enumerate(stages, 1):
            own = folder / f"{number}-{stage.name}"
            if stage.name in done:
                self._take_up(own)
                self.say(f"stage {number} of {len(stages)}, {stage.name}: done before")
                continue
            self.say(f"stage {number} of {len(stages)}, {stage.name}" + (f": {stage.note}" if stage.note else ""))
            for name, parameter in self.system.named_parameters():
                parameter.requires_grad_(trainable[name])
            self.system.begin_stage(stage.name)
            found = self._one(stage, own, resume=resume and isinstance(stage.settings, Settings) and _begun(own))
            history += [{**row, "stage": stage.name} for row in found.history]
            if found.stopped in STOPPED_EARLY:
                return dataclasses.replace(found, folder=folder, history=history)
            self._take_up(own)
            done.append(stage.name)
            run.write_done(done)
        for name, parameter in self.system.named_parameters():
            parameter.requires_grad_(trainable[name])
        return self._close(run, history)

    def _take_up(self, folder: Path) -> None:
        """Go on from the best weights of a stage."""
        state, _ = read_model(RunFolder(folder).best)
        make_room(self.system, state)
        self.system.load_state_dict(state)

    def _close(self, run: "_StagedFolder", history: list[dict[str, Any]]) -> Run:
        identity = self._identity()
        state = self.system.state_dict()
        for path in (run.files.best, run.files.last):
            if rank_and_world()[0] == 0:
                write_model(path, state, identity)
        return Run(run.files.path, run.files.best, run.files.last, history, None, "stages")


class _StagedFolder:
    """The folder of a run with stages."""

    def __init__(self, path: Path) -> None:
        self.files, self.stages = RunFolder(path), path / "stages.json"

    def claim(self, resume: bool) -> None:
        """Make sure that a new run overwrites nothing, and that a resumed one is there."""
        if rank_and_world()[0] != 0:
            return
        if resume and not self.stages.exists():
            raise CheckpointError(f"there is no run to resume (no {self.stages.name})", where=str(self.files.path))
        if not resume:
            if self.stages.exists():
                mend = "Choose another folder, or resume the run"
                raise UsageError(
                    f"the folder holds a run already ({self.stages.name})", where=str(self.files.path), mend=mend
                )
            self.files.claim(resume=False)
            self.write_done([])

    def done(self) -> list[str]:
        """Names of the stages that are done."""
        try:
            return [str(name) for name in json.loads(self.stages.read_text(encoding="utf-8"))["done"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"it cannot be read ({error})", where=str(self.stages)) from error

    def write_done(self, names: Sequence[str]) -> None:
        """Say which are done."""
        if rank_and_world()[0] == 0:
            write_atomically(self.stages, json.dumps({"done": list(names)}, indent=2) + "\n")


def _begun(folder: Path) -> bool:
    return RunFolder(folder).state.exists()


def _sampler(dataset: Pictures, task: str, settings: Settings) -> Sampler | None:
    balance, seed = settings.balance, settings.seed
    if balance == "none":
        return None
    labels = getattr(dataset, "labels_per_picture", None)
    if labels is None:
        raise UsageError(f"--balance {balance} needs a data set read from files", mend="Use --balance none")
    if balance == "classes":
        if task != "classification":
            raise UsageError(
                "--balance classes is for classification", mend="Use --balance repeat for pictures with objects"
            )
        return class_balanced([next(iter(found)) for found in labels()], seed)
    return repeat_factor(labels(), seed, threshold=0.3)
