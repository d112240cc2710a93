"""Every classifier on real pictures under one budget: accuracy, training time, speed and size, by the command line.

    python benchmarks/classifiers.py --root DATA                    all that are not recorded yet, 10 minutes each
    python benchmarks/classifiers.py --root DATA --only resnet18_cifar --minutes 40
    python benchmarks/classifiers.py --list | --table

DATA holds the folders `cifar10` and `scene15`. The budget is processor time: 10 minutes are 10 minutes of `--threads`
cores, whatever else the machine does. Of each model a few steps are timed first, as the difference of a longer and a
shorter run; the steps that fit the budget are then trained by `bestiary train`, schedule and all, on the training
pictures alone, and the last weights are measured on the test pictures. Systems that are fitted have no budget. What is
measured goes to
benchmarks/results/classifiers.json after each model. Runs from a copy of the source too (PYTHONPATH); `--commit` then
says which it is.
"""

import argparse
import csv
import json
import math
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "classifiers.json"
CALIBRATION_STEPS = (10, 50)
"""Of the shorter and the longer run."""

SMALL = ("--resize", "128", "--crop", "112")
"""How nets made for 224 pixels see the 200 pixels of scene15 in a short time."""


@dataclass(frozen=True)
class Row:
    """One model on one data set, with flags of `bestiary train`."""

    data: str
    model: str
    flags: tuple[str, ...] = ()


ROWS = [
    Row("cifar10", "nearest_neighbour"),
    Row("cifar10", "colour_histogram"),
    Row("cifar10", "eigenfaces"),
    Row("cifar10", "bag_of_words_tfidf"),
    Row("cifar10", "bag_of_words_svm"),
    Row("cifar10", "spatial_pyramid"),
    Row("cifar10", "spatial_pyramid_linear"),
    Row("cifar10", "constellation"),
    Row("cifar10", "alexnet_cifar"),
    Row("cifar10", "zfnet_cifar"),
    Row("cifar10", "vgg11_bn_cifar"),
    Row("cifar10", "googlenet_cifar"),
    Row("cifar10", "resnet18_cifar"),
    Row("cifar10", "squeezenet_cifar"),
    Row("cifar10", "squeezenext_cifar"),
    Row("cifar10", "mobilenet_v1_cifar"),
    Row("cifar10", "mobilenet_v2_cifar"),
    Row("cifar10", "mobilenet_v3_cifar"),
    Row("cifar10", "shufflenet_v1_cifar"),
    Row("cifar10", "shufflenet_v2_cifar"),
    Row("cifar10", "darknet19_cifar"),
    Row("scene15", "nearest_neighbour"),
    Row("scene15", "colour_histogram"),
    Row("scene15", "eigenfaces"),
    Row("scene15", "bag_of_words_tfidf"),
    Row("scene15", "bag_of_words_svm"),
    Row("scene15", "spatial_pyramid"),
    Row("scene15", "spatial_pyramid_linear"),
    Row("scene15", "spatial_pyramid_linear"),
    Row("scene15", "image_search"),
    Row("scene15", "sift_fit"),
    Row("scene15", "constellation"),
    Row("scene15", "alexnet", SMALL),
    Row("scene15", "zfnet", SMALL),
    Row("scene15", "vgg11_bn", SMALL),
    Row("scene15", "googlenet", SMALL),
    Row("scene15", "resnet18", SMALL),
    Row("scene15", "squeezenet1_1", SMALL),
    Row("scene15", "squeezenext23", SMALL),
    Row("scene15", "mobilenet_v1", SMALL),
    Row("scene15", "mobilenet_v2", SMALL),
    Row("scene15", "mobilenet_v3_small", SMALL),
    Row("scene15", "shufflenet_v1_g3", SMALL),
    Row("scene15", "shufflenet_v2_x1_0", SMALL),
    Row("scene15", "darknet19", SMALL),
]


def key_of(row: Row, minutes: float) -> str:
    """Where a row stands in the results."""
    return f"{row.data}/{row.model}" + ("" if minutes == 10 else f"/{minutes:g} minutes")


def command(row: Row, root: Path, out: Path, words: list[str]) -> list[str]:
    """The words of one `bestiary train`."""
    data = ["--data", str(root / row.data), "--out", str(out), "--val-split", "none", "--json"]
    return ["train", row.model, *data, *row.flags, *words]


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
    """Of the loop alone, without starting and measuring."""
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        return sum(float(line["seconds"]) for line in csv.DictReader(file))


def steps_that_fit(row: Row, root: Path, minutes: float, threads: int, folder: Path) -> tuple[int, int, float]:
    """Steps of the budget, steps of one pass over the pictures, and processor seconds of a step."""
    from bestiary import zoo
    from bestiary.cli.flags import parse_fields
    from bestiary.verbs.datasets import open_split

    recipe = zoo.recipe_of(row.model)
    settings: Any = recipe.with_fields(parse_fields(row.flags, recipe.fields())).settings
    pictures = len(open_split(root / row.data, "train", "classification"))
    an_epoch = max(1, math.ceil((pictures // settings.batch or 1) / settings.accumulate))
    spent = []
    for steps in CALIBRATION_STEPS:
        words = ["--steps", str(steps), "--epochs", str(steps), "--test-split", "none"]
        spent.append(call(command(row, root, folder / f"calibration-{steps}", words), threads)[2])
    seconds = (spent[1] - spent[0]) / (CALIBRATION_STEPS[1] - CALIBRATION_STEPS[0])
    return max(1, int(60 * minutes * threads / seconds)), an_epoch, seconds


def inference_ms(model: Any, root: Path, data: str) -> dict[str, float]:
    """Milliseconds a picture, decoded already, at batch 1 and 16: the median of ten, after one that is not counted."""
    import torch

    from bestiary.system import evaluation_mode
    from bestiary.verbs.datasets import open_split

    test = open_split(root / data, "test", "classification", categories=model.categories)
    images = [test[i].image for i in range(0, len(test), max(1, len(test) // 16))][:16]
    found: dict[str, float] = {}
    with evaluation_mode(model), torch.inference_mode():
        for batch in (1, 16):
            times: list[float] = []
            for i in range(11):
                given = images if batch == 16 else [images[i]]
                begin = time.perf_counter()
                model.predict_images(given)
                times.append(1000 * (time.perf_counter() - begin) / batch)
            found[str(batch)] = statistics.median(times[1:])
    return found


def measure(row: Row, root: Path, minutes: float, threads: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train, measure, time: everything that is recorded of one row."""
    import torch

    import bestiary
    from bestiary import zoo
    from bestiary.training.settings import Settings

    torch.set_num_threads(threads)
    words, plan = ["--seed", str(seed)], {}
    if isinstance(zoo.recipe_of(row.model).settings, Settings):
        steps, an_epoch, seconds = steps_that_fit(row, root, minutes, threads, folder)
        plan = {"steps": steps, "epochs": steps / an_epoch, "processor_seconds_a_step": seconds}
        words += ["--steps", str(steps), "--epochs", str(math.ceil(steps / an_epoch))]
    out = folder / "run"
    full = command(row, root, out, words)
    document, wall, processor = call(full, threads)
    model = bestiary.load(out)
    state = model.state_dict()  # type: ignore[attr-defined]
    # of a fitted system whatever it keeps, be it the pictures themselves
    learned = set(state) if not plan else {name for name, _ in model.named_parameters()}  # type: ignore[attr-defined]
    public = command(row, Path(), Path("RUN"), words)
    return {
        "top1": document["scores"][0]["values"]["top1"],
        "top5": document["scores"][0]["values"].get("top5"),
        "training_minutes": seconds_trained(out) / 60,
        "command_minutes": wall / 60,
        "processor_minutes": processor / 60,
        **plan,
        "inference_ms": inference_ms(model, root, row.data),
        "parameters": sum(v.numel() for name, v in state.items() if name in learned),
        "megabytes": (out / "last.safetensors").stat().st_size / 1e6,
        "command": "bestiary " + shlex.join(public),
    }


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


def table(results: dict[str, Any]) -> str:
    """Markdown, the best of each data set first."""
    lines: list[str] = []
    for data in dict.fromkeys(key.split("/")[0] for key in results):
        rows = [(key.split("/", 1)[1], found) for key, found in results.items() if key.split("/")[0] == data]
        lines += ["", f"**{data}**", ""]
        lines.append("| model | top-1 | top-5 | processor minutes | ms a picture, batch 1 / 16 | parameters | MB |")
        lines.append("|---|---|---|---|---|---|---|")
        for name, found in sorted(rows, key=lambda row: -row[1]["top1"]):
            one, sixteen = found["inference_ms"]["1"], found["inference_ms"]["16"]
            top5 = "" if found["top5"] is None else f"{100 * found['top5']:.1f} %"
            lines.append(
                f"| `{name}` | {100 * found['top1']:.1f} % | {top5} | {found['processor_minutes']:.1f} | "
                f"{one:.2f} / {sixteen:.2f} | {found['parameters']:,} | {found['megabytes']:.1f} |"
            )
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds cifar10 and scene15")
    parser.add_argument("--data", help="only this data set")
    parser.add_argument("--only", nargs="*", help="only these models")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure what is recorded already, too")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    parser.add_argument("--commit", help="of a source that is no repository")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.table:
        print(table(results))
        return
    from bestiary import zoo

    wanted = [r for r in ROWS if options.data in (None, r.data) and (not options.only or r.model in options.only)]
    for row in wanted:
        key = key_of(row, options.minutes)
        state = "recorded" if key in results else "to do" if row.model in zoo.ZOO else "not in the zoo"
        if options.list:
            print(f"{key}: {state}")
        elif state == "to do" or (state == "recorded" and options.again):
            run_one(row, key, options, results)


def run_one(row: Row, key: str, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure one row and write it down at once; a model that fails is named and left out."""
    if options.root is None:
        raise SystemExit("no data was given: add --root FOLDER")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep / key.replace("/", "_") if options.keep else Path(scratch)
        try:
            found = measure(row, options.root, options.minutes, options.threads, options.seed, folder)
        except (RuntimeError, OSError, KeyError) as error:
            print(f"{key}: failed: {error}")
            return
    results[key] = {**found, **surroundings(options)}
    partial = options.out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    partial.replace(options.out)
    print(f"{key}: top-1 {found['top1']:.3f} after {found['processor_minutes']:.1f} processor minutes")


if __name__ == "__main__":
    main()
