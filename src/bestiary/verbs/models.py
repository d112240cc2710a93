"""Models by name and by file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch

from bestiary import zoo
from bestiary.errors import CheckpointError, UsageError
from bestiary.heads.pixel_ensemble import EnsembleRule, PixelEnsemble
from bestiary.heads.pixel_views import ViewMerge
from bestiary.heads.segmentation import PixelSystem
from bestiary.heads.suppression import SuppressionKind
from bestiary.heads.test_time import Merge
from bestiary.heads.views import View
from bestiary.layers.learned import make_room
from bestiary.recipes.recipe import convert
from bestiary.system import FittedSystem, Predictor, System
from bestiary.training.checkpoint import read_model, write_model
from bestiary.weights.caffe import load_caffe
from bestiary.weights.darknet import load_darknet
from bestiary.weights.load import LoadReport, load_published, load_state, read_state
from bestiary.weights.registry import is_published

RUNTIMES = ("torch", "onnxruntime", "openvino")


def create(
    name: str,
    categories: Sequence[str] | None = None,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> System:
    """A model by name, in evaluation mode.

    Args:
        name: one of `list_models()`.
        categories: the user's class names; None gives the published layout (ImageNet's 1,000 classes, COCO's 91
            outputs).
        weights: None for fresh parameters; "published" for the newest registered file of that name, or a registered
            name (`resnet50.imagenet1k_v1`; `bestiary info` lists them); or a file: a checkpoint of this library, a
            safetensors or a pickled state that holds tensors only, Darknet's `.weights`, or Caffe's
            `.caffemodel`.
        arguments: further arguments of the constructor.
        offline: never touch the network; a missing file is an error that says where to put it.

    Raises:
        UsageError: unknown name or argument (the nearest is named).
        CheckpointError: the weights are missing, broken, unsafe or do not fit.
    """
    system = zoo.build(name, categories, arguments)
    if weights is not None:
        load_weights(system, weights, offline=offline)
    return system.eval()


def load_weights(system: System, weights: str | Path, *, offline: bool = False) -> LoadReport:
    """Load published weights, a checkpoint or a state; a head for other categories keeps its fresh parameters."""
    name = system.model_name if str(weights) == "published" else str(weights)
    if str(weights) == "published" or is_published(name):
        report = load_published(system, name, offline=offline)
        # no entries of a state, so the constructor must be told when it is rebuilt
        system.arguments = {**system.arguments, **report.arguments}
        return report
    path = checkpoint_of(weights)
    if path.suffix == ".weights":
        return load_darknet(system, path)
    if path.suffix == ".caffemodel":
        return load_caffe(system, path)
    state = read_state(path)
    make_room(system, state)
    return load_state(system, state, system.model_name, where=str(path))


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best (else the last) one of a run folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    return path / "best.safetensors" if (path / "best.safetensors").exists() else path / "last.safetensors"


def load(
    path: str | Path,
    runtime: str = "torch",
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
) -> Predictor:
    """A trained or exported model from its file, ready to predict.

    Args:
        path: a checkpoint (`best.safetensors`, or a run folder that holds one), or an exported graph (`.onnx`).
        runtime: "torch" for checkpoints; "onnxruntime" or "openvino" for graphs. A checkpoint with another runtime than
            torch uses the graph of the same name beside it.
        device: where a torch model goes.
        threads: of a graph's runtime; None for as many as torch uses.
        precision: of a graph: "float32", or "bfloat16" in OpenVINO.

    Raises:
        CheckpointError: no such file, or it is broken or foreign.
        UsageError: no such runtime or precision, or one of a graph's for a checkpoint.
    """
    if runtime not in RUNTIMES:
        raise UsageError(
            f"got runtime {runtime!r}, wanted one of {', '.join(RUNTIMES)}", mend=zoo.nearest(runtime, RUNTIMES)
        )
    path = checkpoint_of(path)
    if path.suffix in (".onnx", ".xml") or runtime != "torch":
        from bestiary.deploy.runtimes import open_graph

        graph = path if path.suffix in (".onnx", ".xml") else path.with_suffix(".onnx")
        return open_graph(graph, "onnxruntime" if runtime == "torch" else runtime, threads, precision)
    if threads is not None or precision != "float32":
        raise UsageError(
            f"got threads={threads} and precision={precision!r} for a checkpoint in torch, where they have no meaning",
            mend="Name an exported graph, or use torch.set_num_threads and torch.autocast",
        )
    state, identity = read_model(path)
    name = identity.get("model", "")
    if name not in zoo.ZOO:
        raise CheckpointError(f"it holds a model called {name!r}, which this version does not have", where=str(path))
    system = zoo.build(name, identity["categories"], identity.get("arguments"))
    make_room(system, state)
    load_state(system, state, name, new_head=False, where=str(path))
    system = system.eval().to(device)
    system.learned = identity.get("learned", {})
    if system.task == "classification" and not isinstance(system, FittedSystem):
        # Channels innermost: the same numbers but for rounding, 1.1 to 2 times as fast in all nets that were measured.
        system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return system


LOOK_TYPES: dict[str, Any] = {
    "views": View,
    "view_sides": tuple[int, ...],
    "view_flip": bool,
    "tile": int,
    "tile_overlap": float,
    "tile_whole": bool,
    "test_scales": tuple[float, ...],
    "test_flip": bool,
    "test_merge": ViewMerge,
    "test_window": int,
    "window_overlap": float,
    "crf": str,
    "mask_threshold": float,
    "predict_size": int | None,
    "merge": Merge,
    "merge_iou": float,
    "suppression": SuppressionKind,
    "suppression_iou": float,
    "suppression_sigma": float,
    "max_detections": int,
}
"""How a trained model may be told to look at pictures, and what kind of value each takes: a classifier knows those of
`heads.views.Views`, a detector those of `heads.detection.Detector.take`, a labeller of pixels those of
`heads.segmentation.PixelSystem.take`.
"""


def look(model: Predictor, asked: Mapping[str, Any]) -> Predictor:
    """The model, told to look at pictures in another way than it was saved with.

    Args:
        model: a system as `load` opened it, where anything is changed.
        asked: by the names of `LOOK_TYPES`, as values or as text; None leaves a thing as it is.

    Raises:
        UsageError: there is no such way, the model has it not (an exported graph looks at a picture once), or a value
            does not fit.
    """
    changed = {name: value for name, value in asked.items() if value is not None}
    for name in changed:
        if name not in LOOK_TYPES:
            raise UsageError(f"there is no way to look called {name!r}", mend=zoo.nearest(name, list(LOOK_TYPES)))
    if not changed:
        return model
    if not isinstance(model, System) or not set(changed) <= model.further_arguments:
        known = sorted(set(LOOK_TYPES) & model.further_arguments) if isinstance(model, System) else []
        mend = f"It knows {', '.join(known)}." if known else "An exported graph looks at a picture once, as it is."
        raise UsageError(f"the model cannot be told {', '.join(sorted(set(changed) - set(known)))}", mend=mend)
    model.take({name: convert(value, LOOK_TYPES[name], name) for name, value in changed.items()})
    return model


def join(models: Sequence[Predictor], rule: str = "mean") -> Predictor:
    """Trained labellers of pixels that answer together.

    Args:
        models: as `load` opened them, with the same categories; each looks in its own way.
        rule: "mean" of their probabilities or "product" of their scores, as of `PixelEnsemble`.

    Raises:
        UsageError: one that labels no pixels or is an exported graph, fewer than two, categories that differ, or
            another rule.
    """
    if rule not in get_args(EnsembleRule):
        raise UsageError(f"got {rule!r}, wanted one of {', '.join(get_args(EnsembleRule))}", where="ensemble_rule")
    members = [model for model in models if isinstance(model, PixelSystem)]
    if len(members) < len(models):
        mend = "Name checkpoints of segmentation models, not graphs"
        raise UsageError("labellers of pixels can answer together, and nothing else", where="ensemble", mend=mend)
    return PixelEnsemble(members, cast(EnsembleRule, rule)).eval()


def save(system: System, path: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
    """Write a model's parameters and identity to one safetensors file that `load` opens."""
    return write_model(Path(path), system.state_dict(), {**identity_of(system), **dict(facts or {})})


def identity_of(system: System) -> dict[str, Any]:
    """What a checkpoint must say to rebuild the system: its name, constructor arguments and categories."""
    if not system.model_name:
        raise UsageError("the system was not made by bestiary.create, so its file could not say how to rebuild it")
    return {
        "model": system.model_name,
        "task": system.task,
        "arguments": dict(system.arguments),
        "categories": list(system.categories),
    }


@dataclass(frozen=True)
class Description:
    """What `bestiary info` says of a model or a checkpoint."""

    facts: dict[str, Any]


def describe(name_or_path: str | Path) -> Description:
    """Facts of a model of the zoo, or of a checkpoint file."""
    path = Path(name_or_path)
    if str(name_or_path) not in zoo.ZOO and (path.exists() or path.suffix):
        return Description(_describe_file(path))
    name = str(name_or_path)
    entry = zoo.find(name)
    with torch.device("meta"):
        system = zoo.build(name)
    return Description(
        {
            "model": name,
            "task": entry.task,
            "paper": entry.paper,
            **({"variant": entry.note} if entry.note else {}),
            "parameters": sum(p.numel() for p in system.parameters()),
            "trainable parameters": sum(p.numel() for p in system.parameters() if p.requires_grad),
            "categories": len(system.categories),
            "recipe": entry.recipe().to_dict(),
            "published weights": _published(name),
        }
    )


def _describe_file(path: Path) -> dict[str, Any]:
    path = checkpoint_of(path)
    state, identity = read_model(path)
    tensors = {"file": str(path), "parameters": sum(v.numel() for v in state.values()), "tensors": len(state)}
    return {**tensors, **identity}


def _published(name: str) -> list[dict[str, Any]]:
    from bestiary.weights.registry import published

    return [entry.to_dict() for entry in published(name)]
