"""Runs of `bestiary` by its command line: their results, their time, and a file of results that can be gone on with."""

import argparse
import csv
import json
import math
import os
import platform
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CORES = 2
"""A budget of minutes is of so many cores."""

INTERRUPTED = 130
"""Exit code of a training that was asked to stop."""

CALIBRATION_STEPS = (4, 16)
"""Of the shorter and the longer run that tell what a step takes."""


class StoppedError(Exception):
    """A run was asked to stop and has saved its state.

    Attributes:
        wall: seconds by the clock until then, and
        processor: of the processors.
    """

    def __init__(self, wall: float = 0.0, processor: float = 0.0) -> None:
        super().__init__("interrupted")
        self.wall, self.processor = wall, processor


def call(words: list[str], threads: int) -> tuple[dict[str, Any], float, float]:
    """The command's JSON, and its seconds by the clock and of the processors, all its processes together.

    SIGINT and SIGTERM are passed on to the command.

    Raises:
        StoppedError: it ended because of them.
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    whole = [sys.executable, "-m", "bestiary", *words]
    # In a session of its own: a signal to this one's group would reach it twice, and the second time ends it at once.
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    with passing_on(process):
        out, _ = process.communicate()
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if process.returncode == INTERRUPTED:
        raise StoppedError(wall, spent)
    if process.returncode:
        raise RuntimeError(f"`bestiary {shlex.join(words)}` ended with {process.returncode}")
    return json.loads(out.splitlines()[-1]), wall, spent


@contextmanager
def passing_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """Within the block what asks this process to stop asks that one."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(n, lambda *_: process.send_signal(signal.SIGINT)) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@dataclass(frozen=True)
class Trained:
    """One `bestiary train`, in however many sittings.

    Attributes:
        document: its JSON.
        words: of the command.
        facts: what the words follow from.
        wall: seconds by the clock, and
        processor: of the processors, of all sittings together.
        sittings: one more than the times it was interrupted.
    """

    document: dict[str, Any]
    words: list[str]
    facts: dict[str, Any]
    wall: float
    processor: float
    sittings: int

    def spent(self) -> dict[str, Any]:
        """Minutes, and the facts, as they are recorded."""
        minutes = {"command_minutes": self.wall / 60, "processor_minutes": self.processor / 60}
        return {**minutes, **({"sittings": self.sittings} if self.sittings > 1 else {}), **self.facts}

    def public(self, root: Path) -> str:
        """The command as a reader types it beside the data: without this machine's folders."""
        words = list(self.words)
        words[words.index("--out") + 1] = "RUN"
        at = words.index("--data") + 1
        words[at] = str(Path(words[at]).relative_to(root))
        if "--weights" in words:
            at = words.index("--weights") + 1
            words[at] = str(Path("RUNS", *Path(words[at]).parts[-2:]))
        return "bestiary " + shlex.join(words)


def train(folder: Path, plan: Callable[[], tuple[list[str], dict[str, Any]]], threads: int) -> Trained:
    """Train by the words that `plan` gives, with the facts that they follow from. What was interrupted in this folder
    goes on by the words that it began with.

    Raises:
        StoppedError: as of `call`; the same call goes on.
        RuntimeError: it failed.
    """
    path = folder / "interrupted.json"
    begun = read(path)
    if not begun:
        for left in folder.glob("calibration-*"):  # of a call that was interrupted before the training
            shutil.rmtree(left)
        words, facts = plan()
        begun = {"words": words, "facts": facts, "wall": 0.0, "processor": 0.0, "sittings": 0}
    words = [*begun["words"], *(["--resume"] if begun["sittings"] else [])]
    begun["sittings"] += 1
    try:
        document, wall, processor = call(words, threads)
    except StoppedError as stop:
        begun["wall"] += stop.wall
        begun["processor"] += stop.processor
        if any(folder.rglob("last.state.*")):
            write(path, begun)
        else:  # it had not begun to learn, or is fitted
            shutil.rmtree(folder / "run", ignore_errors=True)
        raise
    path.unlink(missing_ok=True)
    return Trained(
        document,
        begun["words"],
        begun["facts"],
        begun["wall"] + wall,
        begun["processor"] + processor,
        begun["sittings"],
    )


def flags_in_budget(
    model: str, flags: Sequence[str], data: Path, splits: Any, folder: Path, seconds: float, options: argparse.Namespace
) -> tuple[list[str], dict[str, Any]]:
    """Flags of `bestiary train` that make the training fit `seconds`, and what they follow from.

    A few steps of each stage with gradients are timed, as the difference of a longer and a shorter run; then the stages
    get as many steps as fit, in the proportion of their recipe. None of either for systems without such stages.

    Args:
        model: its name.
        flags: that the row gives already.
        data: the data set.
        splits: `verbs.training.Splits` that the training reads.
        folder: for the short runs.
        seconds: of processor time, all threads together; of the clock where the options have `clock`.
        options: of `parser`.
    """
    import torch

    from bestiary import zoo
    from bestiary.array_cache import ArrayCache, cache_folder
    from bestiary.cli.flags import parse_fields
    from bestiary.recipes.recipe import Stage
    from bestiary.training.settings import Settings
    from bestiary.verbs.datasets import splits_of
    from bestiary.verbs.training import lesson_of

    torch.set_num_threads(options.threads)
    recipe = zoo.recipe_of(model)
    recipe = recipe.with_fields(parse_fields(flags, recipe.fields()))
    several = recipe.stages or (Stage("", recipe.settings),)
    stages = [(s.name, s.settings) for s in several if isinstance(s.settings, Settings)]
    if not stages:
        return [], {}
    if splits_of(data) == ["all"]:  # as the verb does with data in one piece
        splits = replace(splits, train="all")
    lesson = lesson_of(model, data, recipe, splits)
    now = time.perf_counter if getattr(options, "clock", False) else spent
    begin = now()
    lesson = lesson.with_proposals(ArrayCache(cache_folder()))
    proposals, a_step = now() - begin, list[float]()
    for name, settings in stages:
        lesson.system.begin_stage(name)
        times: list[float] = []
        for steps in (1, *CALIBRATION_STEPS):  # the first compiles what is not yet
            begin = now()
            own: dict[str, Any] = {"workers": 0, "tensorboard": False, "evaluate_every": 1_000_000}
            short = replace(settings, steps=steps, epochs=steps, **own)
            one = replace(lesson, recipe=replace(recipe, stages=(), settings=short))
            if one.run(folder / f"calibration-{name}-{steps}", resume=False).stopped == "interrupted":
                raise StoppedError
            times.append(now() - begin)
        a_step.append((times[2] - times[1]) / (CALIBRATION_STEPS[1] - CALIBRATION_STEPS[0]))
    pictures = len(lesson.training)
    per_epoch = [max(1, pictures // (one.batch * one.accumulate)) for _, one in stages]
    wanted = [one.epochs * n for (_, one), n in zip(stages, per_epoch, strict=True)]
    whole = sum(n * t for n, t in zip(wanted, a_step, strict=True))
    steps = [max(1, int(n * seconds / whole)) for n in wanted]
    made = []
    for (name, _), number, n in zip(stages, steps, per_epoch, strict=True):
        prefix = f"--{name}." if name else "--"
        made += [f"{prefix}steps", str(number), f"{prefix}epochs", str(math.ceil(number / n))]
    return made, {"steps": steps, "seconds_a_step": a_step, "seconds_of_proposals": proposals}


def spent() -> float:
    """Seconds of the processors so far, of this process and those that it waited for."""
    whos = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whos))


def seconds_trained(run: Path) -> float:
    """Of the loops alone, all stages together, without starting and measuring."""
    total = 0.0
    for path in sorted(run.rglob("results.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            total += sum(float(line["seconds"]) for line in csv.DictReader(file))
    return total


def parser(description: str | None, minutes: float, results: Path) -> argparse.ArgumentParser:
    """The flags that every table of runs has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path, help="folder that holds the data sets")
    made.add_argument("--data", help="only this data set")
    made.add_argument("--only", nargs="*", help="only these models")
    made.add_argument("--minutes", type=float, default=minutes)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--again", action="store_true", help="measure what is recorded already, too")
    made.add_argument("--keep", type=Path, help="keep the runs in this folder")
    made.add_argument("--commit", help="of a source that is no repository")
    made.add_argument("--out", type=Path, default=results)
    made.add_argument("--list", action="store_true")
    made.add_argument("--table", action="store_true")
    return made


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    """When, where, and which source."""
    commit = options.commit or git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "threads": options.threads,
        "seed": options.seed,
        "minutes": options.minutes,
        "commit": commit,
    }


def git(*words: str) -> str:
    """What git says of this folder; nothing where it is no repository."""
    done = subprocess.run(["git", "-C", Path(__file__).parent, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def read(path: Path) -> dict[str, Any]:
    """What was recorded so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, results: dict[str, Any]) -> None:
    """All that was recorded, or what stood there before."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def run_all(
    wanted: list[tuple[str, str, Callable[[Path], dict[str, Any]]]], options: argparse.Namespace
) -> dict[str, Any]:
    """Measure what is to do, row by row, and write each down at once; a model that fails is named and left out. SIGINT
    and SIGTERM end it after a step of the training that is under way; kept, that goes on with the next call.

    Args:
        wanted: key in the results, model, and what measures it, given a folder for its runs.
        options: of `parser`.
    """
    from bestiary import zoo

    results = read(options.out)
    for key, model, measure in wanted:
        state = "recorded" if key in results else "to do" if model in zoo.ZOO else "not in the zoo"
        if options.list:
            print(f"{key}: {state}")
            continue
        if not (state == "to do" or (state == "recorded" and options.again)):
            continue
        if options.root is None:
            raise SystemExit("no data was given: add --root FOLDER")
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.keep / key.replace("/", "_") if options.keep else Path(scratch)
            try:
                found = measure(folder)
            except StoppedError:
                how = "the same command goes on" if options.keep else "not kept"
                print(f"{key}: interrupted: {how}", flush=True)
                break
            except (RuntimeError, OSError, KeyError) as error:
                print(f"{key}: failed: {error}", flush=True)
                continue
        results[key] = {**found, **surroundings(options)}
        write(options.out, results)
        print(f"{key}: {found['headline']} after {found['processor_minutes']:.1f} processor minutes", flush=True)
    return results
