"""A model trained on a data set: data, recipe, loop, measurement, report."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from bestiary import zoo
from bestiary.array_cache import ArrayCache, cache_folder
from bestiary.errors import DataError, UsageError
from bestiary.metrics.scores import Scores
from bestiary.recipes.recipe import Recipe
from bestiary.training import fitting, loop
from bestiary.training.engine import rank_and_world
from bestiary.training.fitting import FitSettings
from bestiary.training.seeding import generators_kept, seed_generators
from bestiary.verbs.datasets import HELD_OUT, Data, Samples, dataset_name, open_split, splits_of
from bestiary.verbs.evaluating import evaluate
from bestiary.verbs.label_pictures import join_labels
from bestiary.verbs.models import load, load_weights
from bestiary.verbs.staging import Lesson

CPU = torch.device("cpu")
FRESH = 67280421310721
"""What torch seeds its generator with in a new process: seed 0 draws the parameters that a model made there has."""


@dataclass(frozen=True)
class Splits:
    """Which parts of the data serve what.

    Attributes:
        train: learned from; `train+val` joins two.
        val: the best checkpoint is chosen by it, None for no choice; if the data has no such split, a fifth of the
            training pictures is set aside (always the same ones) and this is said.
        test: measured once at the end, None for none; the validation split if the data has no such split.
        labels: other data, whose pictures have a class and no boxes, for systems that learn from both (YOLO9000): its
            `train` split, or all of data in one piece. The categories are those of both.
    """

    train: str = "train"
    val: str | None = "val"
    test: str | None = "test"
    labels: Data | None = None


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        folder: holds everything.
        best: checkpoint with the best score on the validation split (the last one if there was none).
        last: checkpoint after the last step.
        scores: of `best` on the measured split, one a protocol.
        report: the HTML file; None if nothing was measured.
        history: one dictionary an epoch.
        stopped: why the loop ended: "epochs", "steps", "minutes", "patience" or "interrupted".
    """

    folder: Path
    best: Path
    last: Path
    scores: list[Scores] = field(default_factory=list)
    report: Path | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "folder": str(self.folder),
            "best": str(self.best),
            "last": str(self.last),
            "report": None if self.report is None else str(self.report),
            "stopped": self.stopped,
            "epochs": len(self.history),
            "scores": [s.to_dict() for s in self.scores],
        }


def train(
    model: str,
    data: Data,
    *,
    validation: Data | None = None,
    format: str | None = None,
    recipe: Recipe | None = None,
    splits: Splits = Splits(),
    weights: str | Path | None = None,
    offline: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    cache: str | Path | Literal[False] | None = None,
    say: Callable[[str], None] = lambda _: None,
    **fields: Any,
) -> TrainedRun:
    """Train a model of the zoo, choose the best checkpoint, measure it, and write a report. An interrupt (SIGINT,
    SIGTERM) ends a run with gradients after the step it is in: it can be resumed, and nothing is measured.

    Args:
        model: its name.
        data: a folder, an annotation file, `world`, or an open data set to train on.
        validation: an open data set to validate on, where `data` is one too.
        format: the reader's name; found by itself if None.
        recipe: how to train; the model's own if None.
        splits: which parts of the data serve what.
        weights: start from "published" weights or a checkpoint; a head for other classes starts fresh, in one
            announced line.
        offline: never fetch published weights; a missing file is an error that says where to put it.
        out: the run's folder; `runs/TASK/MODEL`, numbered, if None.
        resume: go on with the run in `out`, exactly where it stopped.
        cache: folder in which proposals are kept from run to run; the user's cache folder if None; False keeps none.
        say: told in plain lines what is done.
        fields: fields of the recipe (`epochs=10, lr=0.01`). Their names and types are checked against the recipe's
            typed fields: this is the one place in the library where keywords are open, because each model's recipe has
            its own.

    Raises:
        UsageError: an unknown model or field (the nearest is named), or a run folder already taken.
        DataError: the data cannot be read or holds nothing to learn.
        TrainingError: a loss is not finite, or the disk is full.
    """
    say = say if rank_and_world()[0] == 0 else _silence
    recipe = (recipe or zoo.recipe_of(model)).with_fields(fields)
    splits = _splits_there(data, splits, recipe, format, say)
    lesson = lesson_of(model, data, recipe, splits, validation=validation, format=format, say=say)
    system, categories = lesson.system, lesson.system.categories
    if weights is not None:
        say(load_weights(system, weights, offline=offline).summary())
    system.observe(fitting.Samples(lesson.training), say)
    folder = _run_folder(out, recipe.task, model, resume)
    say(f"{model}: {len(categories)} classes ({', '.join(categories[:8])}{', ...' if len(categories) > 8 else ''})")
    say(
        f"training on {len(lesson.training):,} pictures"
        + (f", validating on {len(lesson.held_out):,}" if lesson.held_out is not None else "")
        + f"; run: {folder}"
    )
    kept = None if cache is False else ArrayCache(cache_folder() if cache is None else cache)
    run = lesson.with_proposals(kept).run(folder, resume)
    if run.stopped == "interrupted":  # who interrupts does not want to wait
        say(f"interrupted, nothing is measured; the same command with --out {folder} --resume goes on")
        return TrainedRun(run.folder, run.best, run.last, history=run.history, stopped=run.stopped)
    return _measure(run, model, data, lesson.held_out, splits, recipe, format, say)


def lesson_of(
    model: str,
    data: Data,
    recipe: Recipe,
    splits: Splits,
    *,
    validation: Data | None = None,
    format: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Lesson:
    """A fresh model of the zoo, its parameters drawn by the recipe's seed, the pictures that it learns from, and how;
    arguments and errors as of `train`.
    """
    training, held_out = _open_both(data, validation, splits, recipe.task, format, say)
    if splits.labels is not None:
        training, held_out = join_labels(training, held_out, splits.labels, say=say)
    if not training.categories:
        mend = "`bestiary check` shows what was read"
        raise DataError("the data names no class to learn", where=str(data), mend=mend)
    arguments = {**_channels(zoo.find(model), training, say), **_arguments(zoo.find(model), recipe)}
    with generators_kept(CPU):
        seed_generators(FRESH + recipe.settings.seed, CPU)
        system = zoo.build(model, tuple(training.categories), arguments)
    if splits.labels is not None and not system.learns_from_labels:
        mend = "yolo9000 learns from both"
        raise UsageError("it learns nothing from pictures with a label alone", where=f"labels, {model}", mend=mend)
    learned = {
        "data": dataset_name(data),
        "split": splits.train,
        "set_aside": validation is None and held_out is not None,
    }
    return Lesson(system, recipe, training, held_out, say, learned)


def _silence(_: str) -> None:
    """Of several processes only the first talks."""


def _splits_there(data: Data, splits: Splits, recipe: Recipe, format: str | None, say: Callable[[str], None]) -> Splits:
    """Data in one piece are trained on as such; pictures for validation are needed where something is chosen by them,
    or where there are no others to measure by.
    """
    if not isinstance(data, str | Path):
        return splits
    there = splits_of(data, format)
    if splits.train == "train" and there == ["all"]:
        say("the data is in one piece: all of it serves, less what is set aside")
        splits = dataclasses.replace(splits, train="all")
    is_measured = splits.test is None or all(part in there for part in splits.test.split("+"))
    settings = [stage.settings for stage in recipe.stages] or [recipe.settings]
    if all(isinstance(one, FitSettings) for one in settings) and is_measured:
        splits = dataclasses.replace(splits, val=None)
    return splits


def _open_both(
    data: Data,
    validation: Data | None,
    splits: Splits,
    task: str,
    format: str | None,
    say: Callable[[str], None],
) -> tuple[Samples, Samples | None]:
    training = open_split(data, splits.train, task, format, None, say)
    if validation is not None:
        return training, open_split(validation, splits.val or "val", task, format, training.categories, say)
    if splits.val is None or not isinstance(data, str | Path):
        return training, None
    if all(part in splits_of(data, format) for part in splits.val.split("+")):
        return training, open_split(data, splits.val, task, format, training.categories, say)
    say(f"the data has no split {splits.val!r}: a fifth of {splits.train!r} is set aside for validation")
    return set_aside(training, HELD_OUT)


def set_aside(dataset: Samples, fraction: float) -> tuple[Samples, Samples]:
    """Two disjoint parts of a data set, chosen by the hash of each picture's name: always the same ones."""
    from bestiary.data.dataset import Dataset, split_by_name

    if not isinstance(dataset, Dataset):
        raise UsageError("only a data set read from files can be split by name", mend="Hand over `validation` too")
    return split_by_name(dataset, fraction)


def _arguments(entry: zoo.Entry, recipe: Recipe) -> dict[str, Any]:
    taken = entry.takes()
    sizes = {name: value for name, value in recipe.pictures.arguments().items() if name in taken}
    return {**sizes, **recipe.arguments}


def _channels(entry: zoo.Entry, training: Samples, say: Callable[[str], None]) -> dict[str, Any]:
    """`in_channels` as many as the pictures have, where these are neither grey nor colours."""
    if "in_channels" not in entry.takes() or not len(training):
        return {}
    channels = int(training[0].image.shape[0])
    if channels in (1, 3):
        return {}
    say(f"the pictures have {channels} channels: in_channels is {channels}, unless it was given")
    return {"in_channels": channels}


def _run_folder(out: str | Path | None, task: str, model: str, resume: bool) -> Path:
    if out is not None:
        return Path(out)
    if resume:
        raise UsageError("--resume needs --out", mend="Name the folder of the run to go on with")
    if rank_and_world()[1] > 1:
        raise UsageError("several processes need --out", mend="Name one folder for all of them")
    number, folder = 1, Path("runs") / task / model
    while folder.exists():
        number += 1
        folder = Path("runs") / task / f"{model}{number}"
    return folder


def _measure(
    run: loop.Run,
    model: str,
    data: Data,
    held_out: Samples | None,
    splits: Splits,
    recipe: Recipe,
    format: str | None,
    say: Callable[[str], None],
) -> TrainedRun:
    finished = TrainedRun(run.folder, run.best, run.last, history=run.history, stopped=run.stopped)
    if rank_and_world()[0] != 0 or splits.test is None:
        return finished
    measured, split = _measured_split(data, held_out, splits, format)
    if measured is None:
        return finished
    say(f"measuring {run.best.name} on {split}")
    facts = {"model": model, "data": dataset_name(data)}
    report = run.folder / "report.html"
    result = evaluate(
        load(run.best),
        measured,
        split,
        format,
        report=report,
        facts=facts,
        history=run.history,
        say=say,  # type: ignore[arg-type]
    )
    return TrainedRun(run.folder, run.best, run.last, result.scores, result.report, run.history, run.stopped)


def _measured_split(
    data: Data,
    held_out: Samples | None,
    splits: Splits,
    format: str | None,
) -> tuple[Data | None, str]:
    if isinstance(data, str | Path) and splits.test is not None:
        known: Sequence[str] = splits_of(data, format)
        if all(part in known for part in splits.test.split("+")):
            return data, splits.test
    return held_out, splits.val or "val"
