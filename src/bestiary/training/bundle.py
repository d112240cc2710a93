"""A folder that shows a failed step again: weights, batch, seed and settings, and the command that plays it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bestiary.data.loader import Batch
from bestiary.errors import CheckpointError
from bestiary.pictures.encode import write_image
from bestiary.records import Camera, Losses, Objects, Record, Target
from bestiary.system import System
from bestiary.training.checkpoint import read_model, read_state, write_atomically, write_model, write_state
from bestiary.training.seeding import seed_generators

NESTED: dict[str, type[Record]] = {"objects": Objects, "camera": Camera}

SCRIPT = '''"""Plays the step again that went wrong: python reproduce.py"""

from pathlib import Path

import bestiary
from bestiary.training.bundle import replay

folder = Path(__file__).resolve().parent
for number, losses in enumerate(replay(folder, bestiary.load(folder / "model.safetensors"))):
    for name, value in losses.terms.items():
        print(f"batch {number}: {name} = {float(value)}")
'''


@dataclass(frozen=True, eq=False)
class Played:
    """One batch of a step and what came of it.

    Attributes:
        batch: pictures and truth.
        terms: its loss, term by term, detached.
        seed: of the global generators before its forward pass.
    """

    batch: Batch
    terms: dict[str, Tensor]
    seed: int


def write_bundle(
    folder: Path, system: System, identity: Mapping[str, Any], played: list[Played], facts: Mapping[str, Any]
) -> Path:
    """Write everything that plays a step again into `folder`.

    Args:
        folder: made if needed.
        system: with the weights before the step.
        identity: of the model; see `checkpoint.write_model`.
        played: the step's batches.
        facts: plain JSON: where in the run, what was found, the settings.

    Returns:
        the folder.
    """
    state = {name: value for name, value in system.state_dict().items() if isinstance(value, Tensor)}
    write_model(folder / "model.safetensors", state, identity)
    found = []
    for number, one in enumerate(played):
        tensors, described = flatten_batch(one.batch)
        write_state(folder / f"batch-{number}.safetensors", tensors, {"seed": one.seed, **described})
        terms = {name: str(float(value)) for name, value in one.terms.items()}
        found.append({"names": one.batch.names, "seed": one.seed, "terms": terms})
        for at, image in enumerate(one.batch.images):
            if image.shape[0] in (1, 3):
                write_image(folder / "pictures" / f"{number}-{at}.png", image.cpu())
    write_atomically(folder / "facts.json", json.dumps({**facts, "batches": found}, indent=2) + "\n")
    write_atomically(folder / "reproduce.py", SCRIPT)
    return folder


def replay(folder: Path, system: System) -> list[Losses]:
    """The losses of a bundle's batches, played on the CPU in float32 with the seeds of the run.

    Args:
        folder: what `write_bundle` wrote.
        system: of the bundle's kind; it gets the bundle's weights.

    Raises:
        CheckpointError: the folder holds no bundle.
    """
    state, _ = read_model(folder / "model.safetensors")
    system.load_state_dict(state)
    system.train()
    files = sorted(folder.glob("batch-*.safetensors"), key=lambda p: int(p.stem.rpartition("-")[2]))
    if not files:
        raise CheckpointError("there is no batch-0.safetensors", where=str(folder))
    losses = []
    for file in files:
        tensors, described = read_state(file)
        batch = unflatten_batch(tensors, described)
        seed_generators(described["seed"], torch.device("cpu"))
        losses.append(system.loss(batch.images, batch.targets))
    return losses


def flatten_batch(batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch as named tensors (`0/image`, `0/target/objects/labels`) and the plain JSON of what is no tensor."""
    tensors: dict[str, Tensor] = {}
    plain: list[dict[str, Any]] = []
    for number, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        tensors[f"{number}/image"] = image
        rest: dict[str, Any] = {}
        for f in dataclasses.fields(target):
            value = getattr(target, f.name)
            if isinstance(value, Record):
                tensors |= {f"{number}/target/{f.name}/{name}": t for name, t in _tensors(value).items()}
            elif isinstance(value, Tensor):
                tensors[f"{number}/target/{f.name}"] = value
            elif value is not None:
                rest[f.name] = value
        plain.append(rest)
    return tensors, {"names": batch.names, "indices": batch.indices, "targets": plain}


def unflatten_batch(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Batch:
    """The batch that `flatten_batch` took apart."""
    targets = []
    for number, rest in enumerate(described["targets"]):
        prefix = f"{number}/target/"
        fields: dict[str, Any] = dict(rest)
        nested: dict[str, dict[str, Tensor]] = {}
        for key in (k for k in tensors if k.startswith(prefix)):
            outer, _, inner = key.removeprefix(prefix).partition("/")
            if inner:
                nested.setdefault(outer, {})[inner] = tensors[key]
            else:
                fields[outer] = tensors[key]
        fields |= {name: NESTED[name](**parts) for name, parts in nested.items()}
        targets.append(Target(**fields))
    images = [tensors[f"{number}/image"] for number in range(len(targets))]
    return Batch(images, targets, list(described["names"]), list(described["indices"]))


def _tensors(record: Record) -> dict[str, Tensor]:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
