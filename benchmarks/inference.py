"""Latency of networks: torch eager, ONNX Runtime and OpenVINO (float32, bfloat16), beside torchvision's nets.

    OMP_NUM_THREADS=2 OMP_PROC_BIND=true GOMP_SPINCOUNT=10000 python benchmarks/inference.py --peer /path/to/python

Writes benchmarks/results/inference.json. Each number is in milliseconds, of the module that is exported (network input
to answer, without reading and resizing); within a round all take turns, so that a slow moment hits all. `--peer` names
a Python that has torchvision (and can import this library): its process times torchvision's net, ours as it is built
(`as built`) and as `bestiary.load` lays it out (`as loaded`) in the same rounds. `cpu_per_wall` of eager near the
number of threads means that all threads really ran.

    python benchmarks/inference.py --accuracy CHECKPOINT ... --data FOLDER

measures trained nets in every runtime on real pictures instead, and writes inference_accuracy.json.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_nets import calm, settle

from bestiary import zoo
from bestiary.deploy.graphs import Graph
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.deploy.sessions import open_session

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Net:
    """A network, what its constructor is told, its input, and whether torchvision has it."""

    name: str
    size_hw: tuple[int, int] = (224, 224)
    batches: tuple[int, ...] = (1, 16)
    arguments: dict[str, Any] = field(default_factory=dict)
    peer: bool = True


NETS = [
    Net("alexnet"),
    Net("vgg16", batches=(1,)),
    Net("googlenet"),
    Net("resnet18"),
    Net("resnet50"),
    Net("squeezenet1_1"),
    Net("mobilenet_v2"),
    Net("mobilenet_v3_large"),
    Net("shufflenet_v2_x1_0"),
    Net("fasterrcnn_resnet18_fpn", (320, 427), (1,), {"min_size": 320, "max_size": 533}, peer=False),
    # A picture of 480 x 640 at the default size. The peer's nets run whole, resizing included.
    Net("fasterrcnn_resnet50_fpn", (800, 1066), (1,)),
    Net("unet_padded_small", (320, 427), (1,), peer=False),
]

Runner = Callable[[], tuple[np.ndarray, ...]]


class Peer:
    """Another Python, which times its nets when it is asked to."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, Path(__file__).parent / "peer_nets.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: object) -> dict[str, float]:
        """One line there, one line back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peer has ended; its own message stands above")
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def build(net: Net) -> Graph:
    """Random weights; a detector's classifier is made steeper, so that there are boxes to suppress."""
    torch.manual_seed(0)
    system = zoo.build(net.name, None, net.arguments).eval()
    if net.name.startswith("fasterrcnn"):
        calm(system)
    if system.task == "classification":
        settle(system, (4, system.in_channels, *net.size_hw))
    return exported_module(system)


def runners(graph: Graph, path: Path, images: torch.Tensor, threads: int) -> dict[str, Runner]:
    """One call a runtime."""

    def eager() -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            answer = graph(images)
        return tuple(v.numpy() for v in (answer if isinstance(answer, tuple) else (answer,)))

    array = images.numpy()
    shape = (len(array), array.shape[1], array.shape[2], array.shape[3])
    sessions = {
        "onnxruntime": open_session(path, "onnxruntime", threads),
        "openvino": open_session(path, "openvino", threads),
        "openvino bfloat16": open_session(path, "openvino", threads, "bfloat16"),
        "openvino bfloat16, one shape": open_session(path, "openvino", threads, "bfloat16", shape),
    }
    return {"eager": eager, **{name: (lambda s=session: s.run(array)) for name, session in sessions.items()}}


def stray(wanted: tuple[np.ndarray, ...], got: tuple[np.ndarray, ...]) -> float | None:
    """Of probabilities, logits or, for boxes, sorted scores; None where the numbers of boxes differ."""
    which = 1 if len(wanted) > 1 else 0
    if wanted[which].shape != got[which].shape or not wanted[which].size:
        return None
    return float(np.abs(wanted[which] - got[which]).max())


def measure(ways: dict[str, Runner], peer: Peer | None, rounds: int) -> dict[str, Any]:
    """Times, ratios to the peer's net (else to our eager one), and eager's processor seconds a second."""
    answers = {name: run() for name, run in ways.items()}  # once, not counted
    times: dict[str, list[float]] = {name: [] for name in ways}
    busy: list[float] = []
    for _ in range(rounds):
        for name, spent in (peer.ask("turn") if peer else {}).items():
            times.setdefault(name, []).append(spent)
        for name, run in ways.items():
            cpu, begin = time.process_time(), time.perf_counter()
            run()
            wall = time.perf_counter() - begin
            times[name].append(1000 * wall)
            if name == "eager":
                busy.append((time.process_time() - cpu) / wall)
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = {name: min(values) for name, values in times.items()}
    against = "torchvision" if peer else "eager"
    return {
        "milliseconds": medians,
        "fastest": fastest,
        "against": against,
        "times faster, medians": {name: medians[against] / value for name, value in medians.items()},
        "times faster, fastest": {name: fastest[against] / value for name, value in fastest.items()},
        "cpu_per_wall": statistics.median(busy),
        "largest difference from eager": {name: stray(answers["eager"], values) for name, values in answers.items()},
    }


def measure_net(net: Net, peer: Peer | None, threads: int, rounds: int) -> dict[str, Any]:
    """One net at all its batches."""
    graph = build(net)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        begin = time.perf_counter()
        write_graph(graph, path)
        seconds = time.perf_counter() - begin
        for batch in net.batches:
            shape = (batch, int(graph.images.shape[1]), *net.size_hw)
            images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
            if peer is not None and net.peer:
                request = {"model": net.name, "batch": batch, "size_hw": net.size_hw, "threads": threads}
                strays = peer.ask(request)
                if max(strays.values()) > 1e-2:
                    raise SystemExit(f"{net.name}: the nets do not agree: {strays}")
            ways = runners(graph, path, images, threads)
            turns = rounds if batch == 1 else max(3, rounds // 3)
            found[f"batch {batch}"] = {
                "input": list(images.shape),
                **measure(ways, peer if net.peer else None, turns),
            }
        return {"export seconds": seconds, "megabytes": path.stat().st_size / 1e6, **found}


def measure_accuracy(checkpoint: Path, data: Path, split: str) -> dict[str, Any]:
    """Top-1 and top-5 of a trained classifier in every runtime."""
    import bestiary

    def scores(model: Any, batch: int) -> dict[str, float]:
        evaluation = bestiary.evaluate(model, data, split=split, batch=batch)
        return {**evaluation.scores[0].values, "pictures a second": evaluation.images_per_second}

    with tempfile.TemporaryDirectory() as folder:
        graph = bestiary.export(checkpoint, Path(folder) / "net.onnx").path
        found = {"torch": scores(bestiary.load(checkpoint), 16)}
        for runtime, precision in (("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")):
            model = bestiary.load(graph, runtime, precision=precision)
            found[f"{runtime} {precision}"] = scores(model, 16)
    return found


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    """When, where and with what."""
    packages = ("bestiary", "torch", "onnx", "onnxruntime", "openvino", "numpy")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "threads": options.threads,
        "rounds": options.rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="*", help="only these")
    parser.add_argument("--peer", type=Path, help="a Python that has torchvision")
    parser.add_argument("--accuracy", type=Path, nargs="*", help="checkpoints to measure in every runtime")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.accuracy:
        import bestiary

        names = {path: getattr(bestiary.load(path), "model_name", path.name) for path in options.accuracy}
        scores = {names[path]: measure_accuracy(path, options.data, options.split) for path in options.accuracy}
        document = {"data": options.data.name, "split": options.split, "scores": scores}
    else:
        nets = [net for net in NETS if not options.models or net.name in options.models]
        peer = Peer(options.peer) if options.peer else None
        document = {"models": {net.name: measure_net(net, peer, options.threads, options.rounds) for net in nets}}
        if peer is not None:
            peer.close()
    out = options.out or RESULTS / ("inference_accuracy.json" if options.accuracy else "inference.json")
    out.write_text(json.dumps({**surroundings(options), **document}, indent=2) + "\n")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
