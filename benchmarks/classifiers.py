"""Every classifier on real pictures under one budget: accuracy, training time, speed and size, by the command line.

    python benchmarks/classifiers.py --root DATA                    all that are not recorded yet, 10 minutes each
    python benchmarks/classifiers.py --root DATA --only resnet18_cifar --minutes 40
    python benchmarks/classifiers.py --list | --table

DATA holds the folders `cifar10` and `scene15`. The budget is processor time: 10 minutes are 10 minutes of two cores, or
20 of one, whatever else the machine does. Threads that wait for each other spin, and their spinning counts: beside
other work give the runs a core of their own (`taskset -c 0`, `--threads 1`). Of each model a few steps are timed first,
as the difference of a longer and a shorter run; the steps that fit the budget are then trained by `bestiary train`,
schedule and all, on the training pictures alone, and the last weights are measured on the test pictures. Systems that
are fitted have no budget. What is measured goes to benchmarks/results/classifiers.json after each model. Runs from a
copy of the source too (PYTHONPATH); `--commit` then says which it is.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runs

RESULTS = Path(__file__).parent / "results" / "classifiers.json"
CALIBRATION_STEPS = (10, 50)
"""Of the shorter and the longer run."""

SMALL = ("--resize", "128", "--crop", "112", "--resize-range", "none", "--area", "0.25,1")
"""How nets made for 224 pixels see the 200 pixels of scene15 in a short time."""


def briefly(lr: float = 0.001) -> tuple[str, ...]:
    """The one schedule of every network on scene15, chosen beforehand. The papers' are for a million pictures and
    hundreds of thousands of steps, and were not tried in the few thousand of the budget.
    """
    batches = ("--batch", "32", "--accumulate", "1", "--channels-last", "yes")
    rate = ("--optimizer", "adamw", "--lr", str(lr), "--weight-decay", "0.05", "--clip-norm", "1")
    rest = ("--betas", "0.9,0.999", "--ema", "none", "--schedule", "cosine", "--warmup-steps", "100", "--workers", "1")
    return (*SMALL, *batches, *rate, *rest)


BRIEF = briefly()
WITHOUT_NORM = briefly(0.0003)
"""For networks without batch norm, as SqueezeNet's recipe advises for short runs; not tuned."""


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
    Row("scene15", "image_search"),
    Row("scene15", "sift_fit"),
    Row("scene15", "constellation"),
    Row("scene15", "alexnet", WITHOUT_NORM),
    Row("scene15", "zfnet", WITHOUT_NORM),
    Row("scene15", "vgg11_bn", BRIEF),
    Row("scene15", "vgg11_bn_half", BRIEF),
    Row("scene15", "googlenet", BRIEF),
    Row("scene15", "resnet18", BRIEF),
    Row("scene15", "squeezenet1_1", WITHOUT_NORM),
    Row("scene15", "squeezenext23", BRIEF),
    Row("scene15", "mobilenet_v1", BRIEF),
    Row("scene15", "mobilenet_v2", BRIEF),
    Row("scene15", "mobilenet_v3_small", BRIEF),
    Row("scene15", "shufflenet_v1_g3", BRIEF),
    Row("scene15", "shufflenet_v2_x1_0", BRIEF),
    Row("scene15", "darknet19", BRIEF),
]


def key_of(row: Row, minutes: float) -> str:
    """Where a row stands in the results."""
    return f"{row.data}/{row.model}" + ("" if minutes == 10 else f"/{minutes:g} minutes")


def command(row: Row, root: Path, out: Path, words: list[str]) -> list[str]:
    """The words of one `bestiary train`."""
    data = ["--data", str(root / row.data), "--out", str(out), "--val-split", "none", "--json"]
    return ["train", row.model, *data, *row.flags, *words]


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
        spent.append(runs.call(command(row, root, folder / f"calibration-{steps}", words), threads)[2])
    seconds = (spent[1] - spent[0]) / (CALIBRATION_STEPS[1] - CALIBRATION_STEPS[0])
    return max(1, int(60 * minutes * runs.CORES / seconds)), an_epoch, seconds


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
    out, has_steps = folder / "run", isinstance(zoo.recipe_of(row.model).settings, Settings)

    def plan() -> tuple[list[str], dict[str, Any]]:
        words = ["--seed", str(seed)]
        if not has_steps:
            return command(row, root, out, words), {}
        steps, an_epoch, seconds = steps_that_fit(row, root, minutes, threads, folder)
        words += ["--steps", str(steps), "--epochs", str(math.ceil(steps / an_epoch))]
        facts = {"steps": steps, "epochs": steps / an_epoch, "processor_seconds_a_step": seconds}
        return command(row, root, out, words), facts

    trained = runs.train(folder, plan, threads)
    values = trained.document["scores"][0]["values"]
    model = bestiary.load(out)
    state = model.state_dict()  # type: ignore[attr-defined]
    # of a fitted system whatever it keeps, be it the pictures themselves
    learned = set(state) if not has_steps else {name for name, _ in model.named_parameters()}  # type: ignore[attr-defined]
    return {
        "headline": f"top-1 {values['top1']:.3f}",
        "top1": values["top1"],
        "top5": values.get("top5"),
        "training_minutes": runs.seconds_trained(out) / 60,
        **trained.spent(),
        "inference_ms": inference_ms(model, root, row.data),
        "parameters": sum(v.numel() for name, v in state.items() if name in learned),
        "megabytes": (out / "last.safetensors").stat().st_size / 1e6,
        "command": trained.public(root),
    }


def time_again(rows: list[Row], options: argparse.Namespace) -> None:
    """Predictions of recorded networks timed once more, with fresh parameters, on which the time does not depend."""
    import torch

    from bestiary import zoo
    from bestiary.cli.flags import parse_fields
    from bestiary.recipes.recipe import Recipe
    from bestiary.training.settings import Settings
    from bestiary.verbs.datasets import open_split

    torch.set_num_threads(options.threads)
    results = runs.read(options.out)
    for row in rows:
        recipe: Recipe = zoo.recipe_of(row.model).with_fields(
            parse_fields(row.flags, zoo.recipe_of(row.model).fields())
        )
        if key_of(row, options.minutes) not in results or not isinstance(recipe.settings, Settings):
            continue
        categories = open_split(options.root / row.data, "test", "classification").categories
        taken = zoo.find(row.model).takes()
        sizes = {name: value for name, value in recipe.pictures.arguments().items() if name in taken}
        model = zoo.build(row.model, tuple(categories), sizes).eval().to(memory_format=torch.channels_last)
        results[key_of(row, options.minutes)]["inference_ms"] = inference_ms(model, options.root, row.data)
    runs.write(options.out, results)


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
    flags = runs.parser(__doc__, 10.0, RESULTS)
    flags.add_argument("--inference", action="store_true", help="time the predictions of recorded networks again")
    options = flags.parse_args()
    if options.table:
        print(table(runs.read(options.out)))
        return
    rows = [r for r in ROWS if options.data in (None, r.data) and (not options.only or r.model in options.only)]

    def measuring(row: Row) -> Callable[[Path], dict[str, Any]]:
        return lambda folder: measure(row, options.root, options.minutes, options.threads, options.seed, folder)

    if options.inference:
        time_again(rows, options)
        return
    runs.run_all([(key_of(row, options.minutes), row.model, measuring(row)) for row in rows], options)


if __name__ == "__main__":
    main()
