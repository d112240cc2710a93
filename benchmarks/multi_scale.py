"""Four ways to objects of many sizes, side by side: one trunk, as many steps each.

    python benchmarks/multi_scale.py --root DATA                      all that are not recorded yet
    python benchmarks/multi_scale.py --root DATA --steps 500 --only "filter pyramid"
    python benchmarks/multi_scale.py --list | --table

DATA holds the folders of the data sets. Every form is Faster R-CNN on the half-width VGG-11 from random weights, with
batches of 4: one anchor size on one map; then the same with pictures of many scales, with several filters, with several
anchors, and with a feature pyramid. Their steps cost different times, which are recorded: the comparison is of equally
many updates, and the table gives what they cost. The last weights are measured on the test pictures.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectors
import runs

RESULTS = Path(__file__).parent / "results" / "multi_scale.json"
ONE_SIZE = ("--anchor-sizes", "64")
THREE_SIZES = ("--anchor-sizes", "32,64,128")
NUMBERS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")


@dataclass(frozen=True)
class Strategy:
    """One way, as flags of `bestiary train`.

    Attributes:
        name: of the way.
        model: in the zoo.
        flags: beside the number of steps.
    """

    name: str
    model: str
    flags: tuple[str, ...] = ()


STRATEGIES = [
    Strategy("one size", "faster_rcnn_small", ONE_SIZE),
    Strategy(
        "image pyramid",
        "faster_rcnn_small",
        (*ONE_SIZE, "--train-short-sides", "160,226,320,452", "--longest", "752", "--test-scales", "0.5,0.707,1,1.414"),
    ),
    Strategy("filter pyramid", "faster_rcnn_small", (*THREE_SIZES, "--rpn-kernels", "3,5,7")),
    Strategy("anchor pyramid", "faster_rcnn_small", THREE_SIZES),
    Strategy("feature pyramid", "fasterrcnn_fpn", ("--backbone", "vgg11_bn_half", "--channels-last")),
]
DATA = ("bccd", "pennfudan")


def measure(data: str, way: Strategy, options: Any, folder: Path) -> dict[str, Any]:
    """Train, measure, time."""
    import torch

    import bestiary

    out = folder / "run"
    lengths = ["--steps", str(options.steps), "--epochs", "10000", "--checkpoint-every", "10000"]
    base = [*way.flags, *lengths, "--lr", "0.02", "--batch", "4", "--seed", str(options.seed), "--val-split", "none"]
    words = ["train", way.model, "--data", str(options.root / data), "--out", str(out), *base, "--json"]
    document, wall, processor = runs.call(words, options.threads)
    values = document["scores"][0]["values"]
    torch.set_num_threads(options.threads)
    model = bestiary.load(out)
    return {
        "headline": f"AP {values['AP']:.3f}",
        **{name: values[name] for name in NUMBERS if name in values},
        "steps": options.steps,
        "processor_seconds_a_step": processor / options.steps,
        "command_minutes": wall / 60,
        "processor_minutes": processor / 60,
        "seconds_a_picture": detectors.seconds_a_picture(model, options.root, data),
        "parameters": sum(p.numel() for p in model.parameters()),  # type: ignore[attr-defined]
        "command": "bestiary " + shlex.join(["train", way.model, "--data", data, *base]),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown, in the order of the strategies."""
    lines = []
    for data in dict.fromkeys(key.split("/")[0] for key in results):
        lines += ["", f"**{data}**", "", "| strategy | " + " | ".join(NUMBERS) + " | s a step | s a picture |"]
        lines.append("|---" * (len(NUMBERS) + 3) + "|")
        for way in STRATEGIES:
            found = results.get(f"{data}/{way.name}")
            if found is not None:
                numbers = " | ".join(f"{found[n]:.3f}" if n in found else "" for n in NUMBERS)
                whole = found["seconds_a_picture"]["all"]
                lines.append(f"| {way.name} | {numbers} | {found['processor_seconds_a_step']:.2f} | {whole:.3f} |")
    return "\n".join(lines[1:])


def main() -> None:
    flags = runs.parser(__doc__, 0.0, RESULTS)
    flags.add_argument("--steps", type=int, default=800)
    options = flags.parse_args()
    if options.table:
        print(table(runs.read(options.out)))
        return

    def measuring(data: str, way: Strategy) -> Callable[[Path], dict[str, Any]]:
        return lambda folder: measure(data, way, options, folder)

    wanted = [
        (f"{data}/{way.name}", way.model, measuring(data, way))
        for data in DATA
        for way in STRATEGIES
        if options.data in (None, data) and (not options.only or way.name in options.only)
    ]
    runs.run_all(wanted, options)


if __name__ == "__main__":
    main()
