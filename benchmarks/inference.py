"""Latency of one picture: torch eager beside ONNX Runtime and OpenVINO (float32, bfloat16), and how far each strays.

    OMP_NUM_THREADS=2 OMP_PROC_BIND=true GOMP_SPINCOUNT=10000 python benchmarks/inference.py [--threads 2] [--rounds 15]

Writes benchmarks/results/inference.json. Each number is the median over rounds in milliseconds, of the module that is
exported (network input to answer, without reading and resizing); within a round the runtimes take turns, so that a
slow moment hits all. `cpu_per_wall` of eager near the number of threads means that both threads really ran.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bestiary import zoo
from bestiary.deploy.graphs import Graph
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.deploy.sessions import open_session

RESULTS = Path(__file__).parent / "results" / "inference.json"
CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "resnet18": ({}, (224, 224)),
    "resnet50": ({}, (224, 224)),
    "fasterrcnn_resnet18_fpn": ({"min_size": 320, "max_size": 533}, (320, 427)),
    "unet_padded_small": ({}, (320, 427)),
}
"""Arguments and size of the network's input."""

Runner = Callable[[], tuple[np.ndarray, ...]]


def build(name: str) -> Graph:
    """Random weights; a detector's classifier is made steeper, so that there are boxes to suppress."""
    torch.manual_seed(0)
    arguments, _ = CASES[name]
    system = zoo.build(name, None, arguments).eval()
    if name.startswith("fasterrcnn"):
        weight = system.get_parameter("roi_heads.box_predictor.cls_score.weight")
        with torch.no_grad():
            weight.mul_(12)
    return exported_module(system)


def runners(graph: Graph, path: Path, images: torch.Tensor, threads: int) -> dict[str, Runner]:
    """One call a runtime."""

    def eager() -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            answer = graph(images)
        return tuple(v.numpy() for v in (answer if isinstance(answer, tuple) else (answer,)))

    array = images.numpy()
    ort = open_session(path, "onnxruntime", threads)
    openvino = open_session(path, "openvino", threads)
    bfloat16 = open_session(path, "openvino", threads, "bfloat16")
    return {
        "eager": eager,
        "onnxruntime": lambda: ort.run(array),
        "openvino": lambda: openvino.run(array),
        "openvino bfloat16": lambda: bfloat16.run(array),
    }


def stray(wanted: tuple[np.ndarray, ...], got: tuple[np.ndarray, ...]) -> float | None:
    """Of probabilities, logits or, for boxes, sorted scores; None where the numbers of boxes differ."""
    which = 1 if len(wanted) > 1 else 0
    if wanted[which].shape != got[which].shape or not wanted[which].size:
        return None
    return float(np.abs(wanted[which] - got[which]).max())


def measure(ways: dict[str, Runner], rounds: int) -> dict[str, Any]:
    """Medians in milliseconds, ratios to eager, and eager's processor seconds a second."""
    answers = {name: run() for name, run in ways.items()}  # once, not counted
    times: dict[str, list[float]] = {name: [] for name in ways}
    busy: list[float] = []
    for _ in range(rounds):
        for name, run in ways.items():
            cpu, begin = time.process_time(), time.perf_counter()
            run()
            wall = time.perf_counter() - begin
            times[name].append(1000 * wall)
            if name == "eager":
                busy.append((time.process_time() - cpu) / wall)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "milliseconds": medians,
        "fastest": {name: min(values) for name, values in times.items()},
        "times faster than eager": {name: medians["eager"] / value for name, value in medians.items()},
        "cpu_per_wall": statistics.median(busy),
        "answers": {name: [list(v.shape) for v in values] for name, values in answers.items()},
        "largest difference from eager": {name: stray(answers["eager"], values) for name, values in answers.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models: dict[str, Any] = {}
    for name in options.models:
        graph, (height, width) = build(name), CASES[name][1]
        images = torch.rand(1, int(graph.images.shape[1]), height, width, generator=torch.Generator().manual_seed(1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            begin = time.perf_counter()
            write_graph(graph, path)
            seconds = time.perf_counter() - begin
            models[name] = {
                "input": list(images.shape),
                "export seconds": seconds,
                "megabytes": path.stat().st_size / 1e6,
                **measure(runners(graph, path, images, options.threads), options.rounds),
            }
    packages = ("bestiary", "torch", "onnx", "onnxruntime", "openvino", "numpy")
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "threads": options.threads,
        "rounds": options.rounds,
        "models": models,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
