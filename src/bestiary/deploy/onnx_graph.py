"""A system written as an ONNX file."""

import copy
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import bestiary
from bestiary.deploy.graphs import Graph, Placement, graph_of
from bestiary.deploy.onnx_operators import OPSET, translations
from bestiary.deploy.sidecar import Sidecar, file_digest
from bestiary.errors import BestiaryError, ExportError, MissingExtraError
from bestiary.system import System


def exported_module(system: System, nms: Placement = "inside") -> Graph:
    """The module that is exported: a copy of the system on the CPU, in float32 and evaluation mode.

    Args:
        system: any.
        nms: as in `graph_of`.

    Raises:
        ExportError: there is no graph for this kind of system.
    """
    was = system.model_name, system.arguments
    try:
        graph = graph_of(copy.deepcopy(system).cpu().float(), nms).eval()
    except RuntimeError as error:
        raise ExportError(f"the model cannot be copied: {error}", where="export") from error
    graph.system.model_name, graph.system.arguments = was
    return graph.requires_grad_(False)


def write_graph(graph: Graph, path: Path) -> Sidecar:
    """Write `graph` to `path` and check the file's form; it is not compared with the model here.

    Args:
        graph: from `exported_module`.
        path: ends in `.onnx`.

    Returns:
        what the graph's sidecar must say, not yet written.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: torch's exporter refuses the model, or the file is not valid ONNX.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError.of("onnx", "export") from error
    height, width = graph.sizes_hw[0]
    example = torch.rand(2, int(graph.images.shape[1]), height, width, generator=torch.Generator().manual_seed(0))
    free = torch.export.Dim.DYNAMIC
    axes = {0: free} if graph.sizes_hw[0] == graph.sizes_hw[1] else {0: free, 2: free, 3: free}
    examples = (example, *graph.others(example))
    free_axes = (axes, *({0: free} for _ in examples[1:]))
    table = translations()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet(), torch.no_grad():
            # Not strict: the strict way takes twice as long, and torch's default would fall back to it unasked.
            traced = torch.export.export(graph, examples, dynamic_shapes=free_axes, strict=False)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                custom_translation_table=table,
            )
        if program is None:
            raise ExportError("torch's exporter gave nothing", where=str(path))
        program.save(path, external_data=False)
        onnx.checker.check_model(str(path), full_check=True)
    except BestiaryError:
        raise
    except OSError as error:
        raise ExportError(f"it could not be written: {error}", where=str(path)) from error
    except Exception as error:
        # the exporter and the checker raise whatever they meet
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"{type(graph.system).__name__} could not be exported: {reason[0]}", where=str(path)
        ) from error
    return describe_graph(graph, path)


def describe_graph(graph: Graph, path: Path) -> Sidecar:
    """What the sidecar of the graph at `path` must say."""
    system = graph.system
    normalize: Any = getattr(system, "normalize", None)
    return Sidecar(
        model=system.model_name,
        task=system.task,
        categories=system.categories,
        inputs=tuple(dataclasses.asdict(port) for port in graph.inputs),
        outputs=tuple(dataclasses.asdict(port) for port in graph.outputs),
        preparation=dict(graph.preparation),
        decoding=None if graph.decoding is None else dict(graph.decoding),
        normalisation={
            "inside": True,
            "mean": [float(v) for v in normalize.mean.flatten()] if normalize is not None else [],
            "std": [float(v) for v in normalize.std.flatten()] if normalize is not None else [],
        },
        arguments=dict(system.arguments),
        bestiary=bestiary.__version__,
        sha256=file_digest(path),
        learned=dict(system.learned) or None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which are for its developers; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
