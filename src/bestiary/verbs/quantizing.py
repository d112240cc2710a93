"""An exported graph in fewer bits, and what that costs in accuracy on the user's data, written beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.deploy.quantize import quantize_graph
from bestiary.deploy.runtimes import GraphPredictor, open_graph
from bestiary.deploy.sidecar import read_sidecar
from bestiary.errors import UsageError
from bestiary.metrics.scores import Scores
from bestiary.training.checkpoint import write_atomically
from bestiary.verbs.datasets import Data, dataset_name, open_split
from bestiary.verbs.evaluating import evaluate
from bestiary.verbs.protocols import chosen_protocols


@dataclass(frozen=True)
class QuantizeReport:
    """What was written and measured.

    Attributes:
        path: the eight-bit graph, with its sidecar beside it.
        accuracy_path: the scores as JSON.
        scores: precision -> what the graph reaches in it, float32 first.
        facts: data, split, pictures that gave the ranges.
    """

    path: Path
    accuracy_path: Path
    scores: dict[str, Scores]
    facts: dict[str, Any]

    @property
    def lost(self) -> dict[str, float]:
        """The headline's number in float32 less that in each other precision."""
        exact = self.scores["float32"].value
        return {name: exact - found.value for name, found in self.scores.items() if name != "float32"}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        first = self.scores["float32"]
        return {
            "graph": self.path.name,
            **self.facts,
            "headline": first.headline,
            "protocol": first.protocol,
            "scores": {name: found.values for name, found in self.scores.items()},
            "lost": self.lost,
        }

    def table(self) -> str:
        """One line a precision."""
        headline, lost = self.scores["float32"].headline, self.lost
        lines = [f"{'precision':<10}  {headline:<8}  lost"]
        for name, found in self.scores.items():
            lines.append(f"{name:<10}  {found.value:<8.4f}  {f'{lost[name]:+.4f}' if name in lost else ''}".rstrip())
        return "\n".join(lines)


def quantize(
    graph: str | Path,
    data: Data,
    calibrate: str = "train",
    split: str = "val",
    pictures: int = 64,
    format: str | None = None,
    threads: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> QuantizeReport:
    """Write `NAME.int8.onnx`, its sidecar, and `NAME.int8.accuracy.json`: the scores of the float32 graph, of the same
    in bfloat16 and of the eight-bit one, all in OpenVINO, and what each loses.

    Args:
        graph: an exported graph.
        data: the user's: folder, annotation file, `world`, or an open data set.
        calibrate: split whose pictures give the ranges.
        split: split that is measured on.
        pictures: so many at most give the ranges, evenly spread over the split.
        format: the reader's name; found by itself if None.
        threads: of the runtime; None for as many as torch uses.
        say: told what is being done.

    Raises:
        UsageError: no picture is wanted.
        CheckpointError, DataError, ExportError, MissingExtraError: as their parts.
    """
    path = Path(graph)
    if pictures < 1:
        raise UsageError(f"got {pictures}, wanted 1 or more", where="pictures")
    sidecar = read_sidecar(path)
    seen = open_split(data, calibrate, sidecar.task, format, sidecar.categories, say)
    count = min(pictures, len(seen))
    chosen = [seen[i * len(seen) // count].image for i in range(count)]
    to = path.with_name(f"{path.stem}.int8.onnx")
    say(f"int8: ranges from {count} pictures of {calibrate}")
    quantize_graph(path, chosen, to)
    scores: dict[str, Scores] = {}
    chief = list(chosen_protocols(sidecar.task))[:1]
    for name, file, precision in (
        ("float32", path, "float32"),
        ("bfloat16", path, "bfloat16"),
        ("int8", to, "float32"),
    ):
        opened: GraphPredictor = open_graph(file, "openvino", threads, precision)
        scores[name] = evaluate(opened, data, split, format, protocols=chief).scores[0]
        say(f"{name}: {scores[name].headline} {scores[name].value:.4f}")
    facts = {"data": dataset_name(data), "split": split, "calibrated_on": calibrate, "calibration_pictures": count}
    report = QuantizeReport(to, to.with_name(f"{path.stem}.int8.accuracy.json"), scores, facts)
    write_atomically(report.accuracy_path, json.dumps(report.to_dict(), indent=2) + "\n")
    return report
