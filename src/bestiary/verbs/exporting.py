"""A trained model as a graph that other runtimes run, checked before it stands there."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from jaxtyping import Shaped
from torch import Tensor

from bestiary.deploy.graphs import Placement
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.deploy.parity import Parity, check_parity
from bestiary.deploy.sessions import RUNTIMES, require_runtimes
from bestiary.deploy.sidecar import sidecar_path
from bestiary.errors import ExportError, UsageError
from bestiary.pictures.decode import read_image
from bestiary.system import System
from bestiary.training.checkpoint import write_atomically
from bestiary.verbs.models import checkpoint_of, load


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the ONNX graph.
        sidecar_path: categories, inputs, outputs, preprocessing.
        parity_path: the check, case by case.
        parity: its verdict.
        notes: what the graph does not do as the model does.
    """

    path: Path
    sidecar_path: Path
    parity_path: Path
    parity: Parity
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """One line a runtime and case, and the verdict."""
        rows = [("runtime", "input", "batch", "largest difference", "boxes", "verdict")]
        for r in self.parity.results:
            a = r.agreement
            boxes = "" if a.boxes is None else f"{a.boxes[0]} / {a.boxes[1]}"
            batch = str(len(r.sizes_hw))
            rows.append((r.runtime, r.case, batch, f"{a.max_abs:.2g}", boxes, "passed" if a.passed else "failed"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, f"parity: {self.parity.verdict}", *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        paths = {"path": str(self.path), "sidecar": str(self.sidecar_path), "parity": str(self.parity_path)}
        return {**paths, "notes": list(self.notes), **self.parity.to_dict()}


def export(
    checkpoint: str | Path | System,
    to: str | Path | None = None,
    runtimes: Sequence[str] = RUNTIMES,
    picture: str | Path | Shaped[Tensor, "C H W"] | None = None,
    nms: Placement = "inside",
) -> ExportReport:
    """Write `NAME.onnx`, `NAME.json` (the sidecar) and `NAME.parity.json` (the check).

    What stood at `NAME.onnx` before is replaced only by a graph that passed; one that fails is kept as
    `NAME.failed.onnx` with `NAME.failed.parity.json` to look at.

    Args:
        checkpoint: a file, a run folder, or a model in memory.
        to: the graph's file (`.onnx`), or a folder; beside the checkpoint if not given.
        runtimes: where the graph must say what the model says.
        picture: a real picture for the check; without it one of the built-in world.
        nms: inside: the suppression of a detector is part of the graph; outside: left to the runner, of one-stage
            detectors alone. The sidecar says how it is done.

    Raises:
        ExportError: the model cannot be exported, or the graph does not equal it.
        CheckpointError: the checkpoint is missing or broken.
        MissingExtraError: a package of the extra `export` is not installed.
        UsageError: no such runtime; a target that is no `.onnx`; a model in memory without `to`.
    """
    require_runtimes(runtimes)
    if nms not in get_args(Placement):
        raise UsageError(f"got {nms!r}, wanted inside or outside", where="nms")
    path = _target(checkpoint, to)
    system = checkpoint if isinstance(checkpoint, System) else load(checkpoint)
    if not isinstance(system, System):
        raise UsageError("got a graph, wanted a checkpoint: it is exported already", where=str(checkpoint))
    image = read_image(Path(picture)) if isinstance(picture, str | Path) else picture
    graph = exported_module(system, nms)
    # The runtimes know the format by the name's end.
    trial = path.with_name(f".{path.stem}.{os.getpid()}.onnx")
    try:
        sidecar = write_graph(graph, trial)
        parity = check_parity(graph, trial, sidecar, runtimes, image)
        if not parity.passed:
            failed = path.with_name(f"{path.stem}.failed.onnx")
            _write_parity(parity, failed)
            os.replace(trial, failed)
            mend = f"The graph and the check are kept at {failed} and {_parity_path(failed)}"
            raise ExportError(f"the graph does not equal the model ({parity.verdict})", where=str(path), mend=mend)
        sidecar = replace(sidecar, parity={"verdict": parity.verdict, "file": _parity_path(path).name})
        os.replace(trial, path)
        sidecar.write(sidecar_path(path))
        _write_parity(parity, path)
    except OSError as error:
        raise ExportError(f"it could not be written: {error}", where=str(path), mend="Free some space") from error
    finally:
        trial.unlink(missing_ok=True)
    return ExportReport(path, sidecar_path(path), _parity_path(path), parity, graph.notes)


def _target(checkpoint: str | Path | System, to: str | Path | None) -> Path:
    if isinstance(checkpoint, System):
        if to is None:
            raise UsageError("a model in memory has no file to write beside", where="to", mend="Name the .onnx file")
        stem = checkpoint.model_name or type(checkpoint).__name__.lower()
        beside = Path(to) / f"{stem}.onnx"
    else:
        beside = checkpoint_of(checkpoint).with_suffix(".onnx")
        if Path(checkpoint).suffix == ".onnx":
            raise UsageError("got a graph, wanted a checkpoint: it is exported already", where=str(checkpoint))
    if to is None:
        return beside
    path = Path(to)
    if path.is_dir():
        return path / beside.name
    if path.suffix != ".onnx":
        raise UsageError(f"got {str(to)!r}, wanted a file that ends in .onnx, or a folder", where="to")
    return path


def _parity_path(graph: Path) -> Path:
    return graph.with_name(f"{graph.stem}.parity.json")


def _write_parity(parity: Parity, graph: Path) -> None:
    document = {"graph": graph.name, **parity.to_dict()}
    write_atomically(_parity_path(graph), json.dumps(document, indent=2) + "\n")
