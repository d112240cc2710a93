"""Runs of `bestiary` by its command line: their results, their time, and a file of results that can be gone on with."""

import argparse
import csv
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CORES = 2
"""A budget of minutes is of so many cores."""


def call(words: list[str], threads: int) -> tuple[dict[str, Any], float, float]:
    """The command's JSON, and its seconds by the clock and of the processors, all its processes together."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bestiary", *words], stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"`bestiary {shlex.join(words)}` ended with {done.returncode}")
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), wall, spent


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
    """Measure what is to do, row by row, and write each down at once; a model that fails is named and left out.

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
            except (RuntimeError, OSError, KeyError) as error:
                print(f"{key}: failed: {error}", flush=True)
                continue
        results[key] = {**found, **surroundings(options)}
        write(options.out, results)
        print(f"{key}: {found['headline']} after {found['processor_minutes']:.1f} processor minutes", flush=True)
    return results
