"""Every detector on real pictures under one budget: AP, training time, and time a picture with its parts.

    python benchmarks/detectors.py --root DATA                    all that are not recorded yet, 20 minutes each
    python benchmarks/detectors.py --root DATA --only fast_rcnn_small --minutes 42
    python benchmarks/detectors.py --list | --table | --time

DATA holds the folders `bccd` and `pennfudan`. The budget is processor time: 20 minutes are 20 minutes of two cores, or
40 of one, whatever else the machine does (beside other work: `taskset -c 0` and `--threads 1`). Of a model a few steps
of each stage are timed first; then as many passes are trained by `bestiary train` as fit, the stages in the proportion
of their recipe. Stages without gradients take what they need: `share` of the budget is left to the others. Proposals
are found once, beside the budget, and their time is recorded apart. The last weights are measured on the test pictures.
`--time` times predictions again, with a cold cache.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runs

RESULTS = Path(__file__).parent / "results" / "detectors.json"
PICTURES_TIMED = 20
NUMBERS = ("AP", "AP50", "AP75", "AR100")


@dataclass(frozen=True)
class Row:
    """One model on one data set, with flags of `bestiary train`.

    Attributes:
        data: folder.
        model: name in the zoo.
        flags: of `bestiary train`.
        share: of the budget that stages with gradients have; the rest is for the others.
        start: folder among the kept runs that gives the weights to start from.
        name: of the row, where it is not the model's.
        minutes: its share of the budget, as a factor.
    """

    data: str
    model: str
    flags: tuple[str, ...] = ()
    share: float = 1.0
    start: str = ""
    name: str = ""
    minutes: float = 1.0


UPSIDE_DOWN = ("--vertical-flip", "0.5")
"""Blood cells have no up."""

NO_PRIORS = ("--dimension-priors", "false", "--direct-location", "false", "--passthrough", "false")
CONNECTED = ("--convolutional", "false", "--size", "448")
MANY_SIZES = ("--train-sizes", "320,352,384,416,448,480")
RUNGS: dict[str, tuple[str, ...]] = {
    "YOLO": ("--batch-norm", "false", *CONNECTED),
    "batch norm": CONNECTED,
    "hi-res classifier": CONNECTED,
    "convolutional, anchor boxes": ("--darknet19", "false", *NO_PRIORS),
    "new network": NO_PRIORS,
    "dimension priors, location prediction": ("--passthrough", "false"),
    "passthrough": (),
    "multi-scale": MANY_SIZES,
    "hi-res detector": (*MANY_SIZES, "--size", "544"),
}
"""The nine columns of YOLOv2's table 2, each with half the budget."""

HI_RES_CLASSIFIER = "scene15_yolo_v1_classifier_448"
"""A quarter-width classifier trained at 224, and at last at 448: docs/models/yolo_v2.md has the two commands."""

LADDER = [
    Row(
        "bccd",
        "yolo_v2_ladder",
        (*UPSIDE_DOWN, *flags),
        start=HI_RES_CLASSIFIER if rung == "hi-res classifier" else "",
        name=f"ladder {number}: {rung}",
        minutes=0.5,
    )
    for number, (rung, flags) in enumerate(RUNGS.items(), 1)
]

ROWS = [
    Row("bccd", "viola_jones"),
    Row("bccd", "hog_svm"),
    Row("bccd", "dpm"),
    Row("bccd", "sliding_window_small", UPSIDE_DOWN),
    Row("bccd", "rcnn_small", UPSIDE_DOWN, share=0.5),
    Row("bccd", "spp_net_small", UPSIDE_DOWN, share=0.6, start="bccd_rcnn_small"),
    Row("bccd", "fast_rcnn_small", UPSIDE_DOWN),
    Row("bccd", "faster_rcnn_small", UPSIDE_DOWN),
    Row("bccd", "faster_rcnn_small_4step", UPSIDE_DOWN),
    Row("bccd", "r_fcn_small", UPSIDE_DOWN),
    Row("bccd", "fasterrcnn_resnet18_fpn", UPSIDE_DOWN),
    Row("bccd", "yolo_v1_small", UPSIDE_DOWN),
    Row("bccd", "yolo_v2_small", UPSIDE_DOWN),
    Row("bccd", "ssd300_small", UPSIDE_DOWN),
    Row("bccd", "ssd300_mobilenet_small", UPSIDE_DOWN),
    Row("bccd", "retinanet_resnet18_fpn", UPSIDE_DOWN),
    Row("bccd", "corner_net_small", UPSIDE_DOWN),
    Row("pennfudan", "viola_jones"),
    Row("pennfudan", "hog_svm"),
    Row("pennfudan", "dpm"),
    Row("pennfudan", "faster_rcnn_small"),
    Row("pennfudan", "fasterrcnn_resnet18_fpn"),
    *LADDER,
]
SPLITS = {"bccd": ("train+val", "none"), "pennfudan": ("train", "val")}
"""To learn from and to validate on. Penn-Fudan is in one piece: the fifth that is set aside is what is measured."""


def key_of(row: Row, minutes: float) -> str:
    """Where a row stands in the results."""
    return f"{row.data}/{row.name or row.model}" + ("" if minutes == 20 else f"/{minutes:g} minutes")


def splits_of(row: Row) -> Any:
    """Of the row's data."""
    from bestiary.verbs.training import Splits

    train, val = SPLITS[row.data]
    return Splits(train, None if val == "none" else val, None)


def seconds_a_picture(model: Any, root: Path, data: str) -> dict[str, float]:
    """Seconds of predicting one picture, decoded already, with its parts where the system tells them: medians."""
    import torch

    from bestiary.system import evaluation_mode
    from bestiary.verbs.datasets import open_split

    test = open_split(root / data, "test", "detection", categories=model.categories)
    images = [test[i].image for i in range(0, len(test), max(1, len(test) // PICTURES_TIMED))][:PICTURES_TIMED]
    if (proposer := getattr(model, "proposer", None)) is not None:
        proposer.cache = None
    parts, found = getattr(model, "parts", None), []
    with evaluation_mode(model), torch.inference_mode():
        for number, image in enumerate([images[0], *images]):
            if parts is not None:
                parts.clear()
            begin = time.perf_counter()
            model.predict_images([image])
            whole = time.perf_counter() - begin
            if number:
                found.append({"all": whole, **({} if parts is None else parts.seconds)})
    return {name: statistics.median(f.get(name, 0.0) for f in found) for name in found[-1]}


def measure(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, measure, time: everything that is recorded of one row."""
    import torch

    import bestiary

    seconds = row.share * row.minutes * 60 * options.minutes * runs.CORES
    data, out = options.root / row.data, folder / "run"

    def plan() -> tuple[list[str], dict[str, Any]]:
        flags, facts = runs.flags_in_budget(row.model, row.flags, data, splits_of(row), folder, seconds, options)
        train, val = SPLITS[row.data]
        words = ["train", row.model, "--data", str(data), "--out", str(out), *row.flags, *flags]
        words += ["--train-split", train, "--val-split", val]
        if val != "none" and flags:  # only the last weights, so that nothing is chosen by what is measured
            words += ["--evaluate-every", "1000000"]
        words += ["--seed", str(options.seed), "--json"]
        words += ["--weights", str(options.keep / row.start / "run")] if row.start else []
        return words, facts

    trained = runs.train(folder, plan, options.threads)
    values = trained.document["scores"][0]["values"]
    torch.set_num_threads(options.threads)
    model = bestiary.load(out)
    return {
        "headline": f"AP {values['AP']:.3f}",
        **{name: values[name] for name in NUMBERS},
        **trained.spent(),
        "seconds_a_picture": seconds_a_picture(model, options.root, row.data),
        "parameters": sum(p.numel() for p in model.parameters()),  # type: ignore[attr-defined]
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
        key = key_of(row, options.minutes)
        if key in results:
            model = bestiary.load(options.keep / key.replace("/", "_") / "run")
            results[key]["seconds_a_picture"] = seconds_a_picture(model, options.root, row.data)
    runs.write(options.out, results)


def table(results: dict[str, Any]) -> str:
    """Markdown, the best of each data set first."""
    lines: list[str] = []
    for data in dict.fromkeys(key.split("/")[0] for key in results):
        rows = [(key.split("/", 1)[1], found) for key, found in results.items() if key.split("/")[0] == data]
        lines += ["", f"**{data}**", ""]
        lines.append("| model | AP | AP50 | AP75 | AR100 | processor minutes | seconds a picture | of which |")
        lines.append("|---|---|---|---|---|---|---|---|")
        for name, found in sorted(rows, key=lambda row: -row[1]["AP"]):
            numbers = " | ".join(f"{found[number]:.3f}" for number in NUMBERS)
            parts = dict(found["seconds_a_picture"])
            whole = parts.pop("all")
            told = ", ".join(f"{part} {seconds:.3f}" for part, seconds in parts.items())
            lines.append(f"| `{name}` | {numbers} | {found['processor_minutes']:.1f} | {whole:.3f} | {told} |")
    return "\n".join(lines[1:])


def main() -> None:
    flags = runs.parser(__doc__, 20.0, RESULTS)
    flags.add_argument("--time", action="store_true", help="time the predictions of kept runs again")
    flags.add_argument("--name", help="of the rows with a name of their own, those that begin so (`ladder 3`)")
    options = flags.parse_args()
    if options.table:
        print(table(runs.read(options.out)))
        return
    rows = [r for r in ROWS if options.data in (None, r.data) and (not options.only or r.model in options.only)]
    if options.name is not None:
        rows = [r for r in rows if r.name.startswith(options.name)]
    if options.time:
        time_again(rows, options)
        return

    def measuring(row: Row) -> Callable[[Path], dict[str, Any]]:
        return lambda folder: measure(row, options, folder)

    runs.run_all([(key_of(row, options.minutes), row.model, measuring(row)) for row in rows], options)


if __name__ == "__main__":
    main()
