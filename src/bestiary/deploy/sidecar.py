"""`NAME.json` beside `NAME.onnx`: all that a runner must know to use the graph without this library."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.errors import CheckpointError
from bestiary.training.checkpoint import write_atomically

SCHEMA = 1
"""Version of the sidecar's layout; a reader refuses what is newer than itself."""

TEXT = ("model", "task", "bestiary", "sha256")
LISTS = ("categories", "inputs", "outputs")
TABLES = ("arguments", "normalisation", "preparation")


@dataclass(frozen=True)
class Sidecar:
    """What the file says.

    Attributes:
        model: name in the zoo, "" if it has none.
        task: "classification", "detection", "segmentation".
        categories: K names; labels index them.
        inputs: name, type, shape and meaning of each input.
        outputs: likewise.
        preparation: how a picture becomes an input; "kind" names the rule, "rule" says it in words.
        normalisation: mean and std, for information: it is inside the graph.
        arguments: of the model's constructor.
        bestiary: version that exported it.
        sha256: of the graph's file.
        parity: verdict of the check beside it.
        decoding: what a runner has to do with the outputs; None for nothing.
        learned: of which pictures; see `verbs.datasets.has_learned`. None where the model does not say.
    """

    model: str
    task: str
    categories: tuple[str, ...]
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    preparation: Mapping[str, Any]
    normalisation: Mapping[str, Any]
    arguments: Mapping[str, Any]
    bestiary: str
    sha256: str
    parity: Mapping[str, Any] | None = None
    decoding: Mapping[str, Any] | None = None
    learned: Mapping[str, Any] | None = None

    def write(self, path: Path) -> Path:
        """Write it as JSON, atomically."""
        document = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def sidecar_path(graph: Path) -> Path:
    """Where the sidecar of a graph stands."""
    return graph.with_suffix(".json")


def read_sidecar(graph: Path) -> Sidecar:
    """The sidecar of the graph at `graph`.

    Raises:
        CheckpointError: no such graph; the sidecar is missing, broken, newer than this version, or of another graph.
    """
    if not graph.is_file():
        mend = "`bestiary export CHECKPOINT` makes one"
        raise CheckpointError("there is no such graph", where=str(graph), mend=mend)
    path = sidecar_path(graph)
    again = "Copy it from where the graph was exported, or export again with `bestiary export CHECKPOINT`"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"the graph's sidecar {path.name} is missing: it holds the categories and the preprocessing"
        raise CheckpointError(message, where=str(graph), mend=again) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the sidecar is broken ({error})", where=str(path), mend=again) from error
    sidecar = _parse(document, path, again)
    if graph.suffix == ".onnx" and file_digest(graph) != sidecar.sha256:
        message = f"the graph is not the one that {path.name} describes: its SHA-256 differs"
        raise CheckpointError(message, where=str(graph), mend=again)
    return sidecar


def _parse(document: Any, path: Path, again: str) -> Sidecar:
    if not isinstance(document, Mapping) or not isinstance(document.get("schema"), int):
        raise CheckpointError("it is not the sidecar of a graph: it has no schema", where=str(path), mend=again)
    if document["schema"] > SCHEMA:
        message = f"it has schema {document['schema']}, this version reads up to {SCHEMA}"
        raise CheckpointError(message, where=str(path), mend="Upgrade bestiary")
    wanted = [*((n, str) for n in TEXT), *((n, list) for n in LISTS), *((n, Mapping) for n in TABLES)]
    for name, kind in wanted:
        if not isinstance(document.get(name), kind):
            message = f"got {document.get(name)!r}, wanted a {'JSON object' if kind is Mapping else kind.__name__}"
            raise CheckpointError(message, where=f"{path}: {name}", mend=again)
    fields = {f.name: document.get(f.name) for f in dataclasses.fields(Sidecar)}
    return Sidecar(**{**fields, **{name: tuple(document[name]) for name in LISTS}})


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
