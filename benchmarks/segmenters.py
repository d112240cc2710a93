"""Every dense labeller on real pictures under one budget: PA, MPA, mean IoU, fwIoU, training time, time a picture.

    python benchmarks/segmenters.py --root DATA                      all that are not recorded yet, 15 minutes each
    python benchmarks/segmenters.py --root DATA --only unet_padded_small --minutes 90 --short-side 240
    python benchmarks/segmenters.py --root DATA --keep RUNS --only "ladder: FCN-8s" --seed 1
    python benchmarks/segmenters.py --list | --table | --time

DATA holds the folders `camvid` and `isbi2012`. The budget is processor time: 15 minutes are 15 minutes of two cores, or
30 of one, whatever else the machine does (beside other work: `taskset -c 0` and `--threads 1`). Pictures are seen at
half of CamVid's size: a shorter side of 180 pixels, or what `--short-side` says. Of a model a few steps of each stage
are timed first; then as many are trained by `bestiary train` as fit, the stages in the proportion of their recipe. The
last weights are measured on CamVid's test pictures, in their own size; of ISBI's 30 slices the fifth that is set aside.
Further looks of the same weights (a dense CRF, mirror images, scales) are measured by `bestiary eval`. Several seeds of
a row become one line of the table, with their deviation. `--clock` takes the budget by the clock, as on a machine with
a GPU, where processors wait. `--time` times predictions of kept runs again, on a quiet machine.
"""

import argparse
import shlex
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import runs

RESULTS = Path(__file__).parent / "results" / "segmenters.json"
MINUTES = 15.0
SHORT_SIDE = 180
PICTURES_TIMED = 20
NUMBERS = {
    "PA": "pixel_accuracy",
    "MPA": "mean_pixel_accuracy",
    "mIoU": "mean_iou",
    "fwIoU": "frequency_weighted_iou",
}
"""Column of the table, and the score's name."""


@dataclass(frozen=True)
class Row:
    """One model on one data set, with flags of `bestiary train`.

    Attributes:
        data: folder.
        model: name in the zoo.
        flags: of `bestiary train`.
        looks: name of a further look at test time, and its flags of `bestiary eval`.
        start: folder among the kept runs that gives the weights to start from.
        name: of the row, where it is not the model's.
        share: of the budget that stages with gradients have; the rest is for the others.
    """

    data: str
    model: str
    flags: tuple[str, ...] = ()
    looks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    start: str = ""
    name: str = ""
    share: float = 1.0

    @property
    def title(self) -> str:
        """What the row is called."""
        return self.name or self.model


def crf(name: str) -> dict[str, tuple[str, ...]]:
    """A dense CRF on the probabilities, with the numbers published for a system."""
    return {"dense CRF": ("--crf", name)}


SCALES = {"scales and mirror": ("--test-scales", "0.75,1,1.25", "--test-flip")}
CELLS = ("--vertical-flip", "0.5", "--short-side", "256")
"""Tissue has no up, and membranes of two pixels bear no more than half the size."""

CLASSIFIER = "scene15_vgg11_bn_half"
"""The kept run of `benchmarks/classifiers.py --data scene15 --only vgg11_bn_half`: what the ladder starts from."""

RUNGS: dict[str, tuple[str, ...]] = {
    "32s-fixed": ("fcn32s_small", "--train-only", "score_fr"),
    "32s": ("fcn32s_small",),
    "16s": ("fcn16s_small",),
    "8s": ("fcn8s_small",),
}
"""Long, Shelhamer and Darrell's, each of which is expected above the one before; of the first only the scores learn."""

LADDER = [
    Row("camvid", model, tuple(flags), start=CLASSIFIER, name=f"ladder: FCN-{rung}", share=1 / 3)
    for rung, (model, *flags) in RUNGS.items()
]
"""All from the same classifier and each for a third of the budget, so that nets are compared and not their times."""

ROWS = [
    Row("camvid", "pixel_windows_small"),
    Row("camvid", "farabet_small"),
    Row("camvid", "recurrent_cnn_small"),
    Row("camvid", "hypercolumns_small"),
    Row("camvid", "zoom_out_small"),
    Row("camvid", "fcn32s_small"),
    Row("camvid", "fcn16s_small"),
    Row("camvid", "fcn8s_small"),
    Row("camvid", "fcn_resnet18"),
    Row("camvid", "deconv_net_small"),
    Row("camvid", "segnet_small"),
    Row("camvid", "segnet_basic_small"),
    Row("camvid", "segnet_basic"),
    Row("camvid", "unet_padded_small"),
    Row("camvid", "unet_small", ("--in-channels", "3")),
    Row("camvid", "dilation_small"),
    Row("camvid", "deeplab_v1_small", looks=crf("deeplab_v1")),
    Row("camvid", "deeplab_v2_small", looks=crf("deeplab_v2")),
    Row("camvid", "deeplab_v3_resnet18", looks=SCALES),
    Row("camvid", "deeplab_v3_plus_resnet18", looks=SCALES),
    Row("camvid", "psp_net_resnet18", looks=SCALES),
    Row("camvid", "refine_net_resnet18", looks=SCALES),
    Row("camvid", "dfn_resnet18", looks=SCALES),
    Row("camvid", "exfuse_resnet18", looks=SCALES),
    Row("isbi2012", "pixel_windows_small", CELLS),
    Row("isbi2012", "unet_small", CELLS),
    Row("isbi2012", "unet_padded_small", CELLS),
    *LADDER,
]
MEMBRANES = {
    "Rand F": "rand_f",
    "information F": "info_f",
    "warping error": "warping_error",
    "pixel error": "pixel_error",
}
"""Of ISBI's own scores those in the table, each at the best of its thresholds."""
SPLITS = {"camvid": ("train", "none"), "isbi2012": ("train", "val")}
"""To learn from and to validate on. ISBI's slices are in one piece: the fifth that is set aside is what is measured."""


def key_of(row: Row, options: argparse.Namespace) -> str:
    """Where a row stands in the results."""
    parts = [row.data, row.title]
    parts += [] if options.minutes == MINUTES else [f"{options.minutes:g} minutes"]
    parts += [] if options.short_side == SHORT_SIDE else [f"{options.short_side} pixels"]
    parts += ["by the clock"] if options.clock else []
    parts += [] if options.seed == 0 else [f"seed {options.seed}"]
    return "/".join(parts)


def milliseconds_a_picture(model: Any, root: Path, data: str) -> float:
    """Of predicting one picture, decoded already, resizing there and back included: the median, after two that are not
    counted."""
    import torch

    from bestiary.system import evaluation_mode
    from bestiary.verbs.datasets import open_split, splits_of

    there = splits_of(root / data)
    split = "test" if "test" in there else there[0]
    test = open_split(root / data, split, "segmentation", categories=model.categories)
    images = [test[i].image for i in range(0, len(test), max(1, len(test) // PICTURES_TIMED))][:PICTURES_TIMED]
    times: list[float] = []
    with evaluation_mode(model), torch.inference_mode():
        for image in [images[0], images[0], *images]:
            begin = time.perf_counter()
            model.predict_images([image])
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[2:])


def scores_of(document: dict[str, Any]) -> dict[str, float]:
    """The table's numbers out of what a verb says of its run."""
    values = document["scores"][0]["values"]
    return {column: values[name] for column, name in NUMBERS.items()}


def membranes_of(row: Row, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """ISBI's own scores of the pictures that were set aside, for its slices."""
    if row.data != "isbi2012":
        return {}
    words = ["eval", str(out), "--data", str(options.root / row.data), "--split", "val", "--protocol", "isbi", "--json"]
    document, _, _ = runs.call(words, options.threads)
    return {"isbi": document["scores"][0]["values"]}


def look_again(row: Row, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same weights, measured with each further look: scores and seconds of the command."""
    found: dict[str, Any] = {}
    for name, flags in row.looks.items():
        words = ["eval", str(out), "--data", str(options.root / row.data), "--protocol", "iou"]
        document, wall, _ = runs.call([*words, *flags, "--json"], options.threads)
        found[name] = {**scores_of(document), "command_minutes": wall / 60, "flags": shlex.join(flags)}
    return found


def measure(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, measure, time: everything that is recorded of one row."""
    import torch

    import bestiary
    from bestiary.verbs.training import Splits

    train, val = SPLITS[row.data]
    flags = list(row.flags)
    flags += [] if "--short-side" in flags else ["--short-side", str(options.short_side)]
    seconds = row.share * 60 * options.minutes * (1 if options.clock else runs.CORES)
    data, out, splits = options.root / row.data, folder / "run", Splits(train, None if val == "none" else val, None)

    def plan() -> tuple[list[str], dict[str, Any]]:
        budget, facts = runs.flags_in_budget(row.model, flags, data, splits, folder, seconds, options)
        words = ["train", row.model, "--data", str(data), "--out", str(out), *flags, *budget]
        if val != "none" and budget:  # only the last weights, so that nothing is chosen by what is measured
            words += ["--evaluate-every", "1000000"]
        words += ["--train-split", train, "--val-split", val, "--seed", str(options.seed), "--json"]
        words += ["--weights", str(options.keep / row.start / "run")] if row.start else []
        return words, facts

    trained = runs.train(folder, plan, options.threads)
    torch.set_num_threads(options.threads)
    model: Any = bestiary.load(out)
    scores = scores_of(trained.document)
    return {
        "headline": f"mIoU {scores['mIoU']:.3f}",
        **scores,
        "per_class": {name: found["iou"] for name, found in trained.document["scores"][0]["per_class"].items()},
        "training_minutes": runs.seconds_trained(out) / 60,
        **trained.spent(),
        "looks": look_again(row, out, options),
        **membranes_of(row, out, options),
        "trained_on": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "milliseconds_a_picture": milliseconds_a_picture(model, options.root, row.data),
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": (out / "last.safetensors").stat().st_size / 1e6,
        "command": trained.public(options.root),
    }


def time_again(rows: list[Row], options: argparse.Namespace) -> None:
    """Predictions of kept runs timed once more."""
    import torch

    import bestiary

    torch.set_num_threads(options.threads)
    results = runs.read(options.out)
    for row in rows:
        key = key_of(row, options)
        folder = options.keep / key.replace("/", "_") / "run"
        if key in results and folder.is_dir():
            results[key]["milliseconds_a_picture"] = milliseconds_a_picture(
                bestiary.load(folder), options.root, row.data
            )
            runs.write(options.out, results)


def joined(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results of each row, one a seed."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, found in results.items():
        name = "/".join(part for part in key.split("/") if not part.startswith("seed "))
        rows.setdefault(name, []).append(found)
    return rows


def of_seeds(numbers: list[float]) -> str:
    """Their mean, with the deviation where there are several."""
    mean = f"{statistics.mean(numbers):.3f}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.3f}"


def table(results: dict[str, Any]) -> str:
    """Markdown, the best of each data set first; further looks stand under their row."""
    lines: list[str] = []
    rows = joined(results)
    for data in dict.fromkeys(key.split("/")[0] for key in rows):
        here = [(key.split("/", 1)[1], found) for key, found in rows.items() if key.split("/")[0] == data]
        lines += ["", f"**{data}**", ""]
        lines.append(
            f"| model | {' | '.join(NUMBERS)} | seeds | processor minutes | steps | ms a picture | parameters | MB |"
        )
        lines.append("|---" * (len(NUMBERS) + 7) + "|")
        for name, found in sorted(here, key=lambda row: -statistics.mean(one["mIoU"] for one in row[1])):
            first = found[0]
            numbers = " | ".join(of_seeds([one[number] for one in found]) for number in NUMBERS)
            steps = " + ".join(f"{n:,}" for n in first.get("steps", [])) or "fitted"
            lines.append(
                f"| `{name}` | {numbers} | {len(found)} | {statistics.mean(f['processor_minutes'] for f in found):.1f} "
                f"| {steps} | {first['milliseconds_a_picture']:.0f} | {first['parameters']:,} "
                f"| {first['megabytes']:.1f} |"
            )
            for look in first["looks"]:
                again = " | ".join(of_seeds([one["looks"][look][number] for one in found]) for number in NUMBERS)
                lines.append(f"| &nbsp; + {look} | {again} | {len(found)} | | | | | |")
        lines += membrane_table([(name, found) for name, found in here if all("isbi" in one for one in found)])
    return "\n".join([*lines[1:], *ladder(rows)])


def membrane_table(rows: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    """Markdown of ISBI's own scores, the best division into cells first."""
    if not rows:
        return []
    lines = ["", f"| model | {' | '.join(MEMBRANES)} |", "|---" * (len(MEMBRANES) + 1) + "|"]
    for name, found in sorted(rows, key=lambda row: -statistics.mean(one["isbi"]["rand_f"] for one in row[1])):
        numbers = [of_seeds([one["isbi"][number] for one in found]) for number in MEMBRANES.values()]
        lines.append(f"| `{name}` | {' | '.join(numbers)} |")
    return lines


def ladder(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Whether each rung of the FCN ladder lies above the one before, seed by seed."""
    titles = [row.title for row in LADDER]
    rungs = [rows.get(f"camvid/{name}", []) for name in titles]
    if not all(rungs) or len({len(rung) for rung in rungs}) != 1:
        return []
    by_seed = [dict(zip((one["seed"] for one in rung), rung, strict=True)) for rung in rungs]
    said = []
    for (lower, upper), (name, above) in zip(pairwise(by_seed), pairwise(titles), strict=True):
        count = sum(upper[seed]["mIoU"] > lower[seed]["mIoU"] for seed in lower if seed in upper)
        said.append(f"{above} above {name} in {count} of {len(lower)}")
    return ["", "The ladder, seed by seed: " + "; ".join(said) + "."]


def main() -> None:
    flags = runs.parser(__doc__, MINUTES, RESULTS)
    flags.add_argument("--short-side", type=int, default=SHORT_SIDE, help="of the pictures that the networks see")
    flags.add_argument("--clock", action="store_true", help="the budget is of the clock, not of the processors")
    flags.add_argument("--time", action="store_true", help="time the predictions of kept runs again")
    options = flags.parse_args()
    if options.table:
        print(table(runs.read(options.out)))
        return
    wanted = set(options.only or ())
    rows = [r for r in ROWS if options.data in (None, r.data) and (not wanted or wanted & {r.model, r.title})]
    if options.time:
        if options.keep is None or options.root is None:
            raise SystemExit("--time wants --keep FOLDER, where the runs are, and --root FOLDER")
        time_again(rows, options)
        return

    def measuring(row: Row) -> Callable[[Path], dict[str, Any]]:
        return lambda folder: measure(row, options, folder)

    runs.run_all([(key_of(row, options), row.model, measuring(row)) for row in rows], options)


if __name__ == "__main__":
    main()
