"""COCO evaluation of made-up data, files to numbers: ours beside other tools, each in a process of its own, in turns.

    python benchmarks/evaluation.py [--kind boxes masks] [--pictures 5000] [--detections 500000] [--truths 34220]
        [--repeats 3] [--threads 2] [--peers /path/to/python ...]

Tools that are not installed in this environment are looked for in those of `--peers`. Every run is a fresh process
that first evaluates smaller files (imports and compiled code do not count), then loads both files, evaluates and
accumulates. Memory is how far the process's peak then rises above what it held (Linux), against the bytes of the two
files. Writes benchmarks/results/evaluation.json.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
CATEGORIES = 80
PICTURE_HW = (480, 640)
TOOLS = {
    "bestiary": "numba",
    "pycocotools": "pycocotools",
    "faster-coco-eval": "faster_coco_eval",
    "hotcoco": "hotcoco",
}
"""Tool and the module that tells whether an environment can run it."""

SIZES = {
    "boxes": {"pictures": 5000, "truths": 34_220, "detections": 500_000},
    "masks": {"pictures": 500, "truths": 3_256, "detections": 25_000},
}


def write_files(folder: Path, annotations: list[dict], results: list[dict], pictures: int) -> tuple[Path, Path]:
    """The two files, with as many pictures and `CATEGORIES` categories."""
    names = [{"id": k, "name": f"category {k}"} for k in range(1, CATEGORIES + 1)]
    listed = [{"id": i, "height": PICTURE_HW[0], "width": PICTURE_HW[1]} for i in range(1, pictures + 1)]
    truth_file, result_file = folder / "truth.json", folder / "results.json"
    truth_file.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": names}))
    result_file.write_text(json.dumps(results))
    return truth_file, result_file


def make_files(folder: Path, pictures: int, truths: int, detections: int, seed: int = 0) -> tuple[Path, Path]:
    """Boxes (1 % crowds): four of ten detections near a truth, the rest anywhere."""
    rng = np.random.default_rng(seed)
    images = np.sort(rng.integers(1, pictures + 1, truths))
    labels = rng.integers(1, CATEGORIES + 1, truths)
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (truths, 2)))
    boxes = np.concatenate([rng.uniform(0, 400, (truths, 2)), sides], 1)
    crowd = rng.random(truths) < 0.01
    source = np.sort(rng.integers(0, truths, detections))
    found = boxes[source] * rng.normal(1, 0.06, (detections, 4))
    anywhere = rng.random(detections) < 0.6
    found[anywhere, :2] = rng.uniform(0, 400, (int(anywhere.sum()), 2))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    said = np.where(rng.random(detections) < 0.85, labels[source], rng.integers(1, CATEGORIES + 1, detections))
    scores = np.where(anywhere, rng.beta(1, 4, detections), rng.beta(3, 2, detections)).round(4)
    annotations = [
        {"id": i + 1, "image_id": int(images[i]), "category_id": int(labels[i]), "bbox": boxes[i].round(2).tolist(),
         "area": round(float(sides[i].prod()) * 0.7, 2), "iscrowd": int(crowd[i])}
        for i in range(truths)
    ]  # fmt: skip
    results = [
        {"image_id": int(images[s]), "category_id": int(k), "bbox": box, "score": float(score)}
        for s, k, box, score in zip(source, said, found.round(2).tolist(), scores, strict=True)
    ]
    return write_files(folder, annotations, results, pictures)


def make_mask_files(folder: Path, pictures: int, truths: int, detections: int, seed: int = 0) -> tuple[Path, Path]:
    """Truths as polygons of 8 to 40 points; results as compressed run lengths of the same outlines, moved."""
    from bestiary.geometry.masks import polygons_to_rle

    rng = np.random.default_rng(seed)
    height, width = PICTURE_HW
    annotations, outlines = [], []
    for i in range(truths):
        count = int(rng.integers(8, 41))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        reach = np.exp(rng.uniform(np.log(6), np.log(150), 2)) * rng.uniform(0.7, 1, (count, 1))
        outline = rng.uniform(0, (width, height)) + np.stack([np.cos(angles), np.sin(angles)], 1) * reach
        outline = outline.clip(0, (width, height)).round(2)
        outlines.append(outline)
        mask = polygons_to_rle([outline.reshape(-1)], PICTURE_HW)
        x1, y1, x2, y2 = mask.box_xyxy().tolist()
        label = int(rng.integers(1, CATEGORIES + 1))
        annotations.append(
            {"id": i + 1, "image_id": int(i * pictures // truths) + 1, "category_id": label,
             "segmentation": [outline.reshape(-1).tolist()], "area": float(mask.area()), "iscrowd": 0,
             "bbox": [x1, y1, x2 - x1, y2 - y1]}
        )  # fmt: skip
    results = []
    for source in np.sort(rng.integers(0, truths, detections)).tolist():
        moved = outlines[source] + rng.normal(0, 4, 2) + rng.normal(0, 1, outlines[source].shape)
        mask = polygons_to_rle([moved.reshape(-1)], PICTURE_HW)
        truth = annotations[source]
        said = truth["category_id"] if rng.random() < 0.85 else int(rng.integers(1, CATEGORIES + 1))
        results.append(
            {"image_id": truth["image_id"], "category_id": said, "segmentation": mask.to_coco(),
             "score": round(float(rng.random()), 4)}
        )  # fmt: skip
    return write_files(folder, annotations, results, pictures)


def ours(truth: str, results: str, kind: str) -> list[float]:
    """The twelve numbers, with curves, thresholds and classes beside them."""
    from bestiary.metrics.coco import coco_from_files

    values = coco_from_files(truth, results, kind=kind).values.values()  # type: ignore[arg-type]
    return [-1.0 if math.isnan(value) else value for value in values]


def pycocotools(truth: str, results: str, kind: str) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _coco(COCO, COCOeval, truth, results, kind)


def faster_coco_eval(truth: str, results: str, kind: str) -> list[float]:
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-not-found]

    return _coco(COCO, COCOeval_faster, truth, results, kind)


def hotcoco(truth: str, results: str, kind: str) -> list[float]:
    from hotcoco import COCO, COCOeval  # type: ignore[import-not-found]

    annotated = COCO(truth)
    evaluation = COCOeval(annotated, annotated.load_res(results), {"boxes": "bbox", "masks": "segm"}[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(s) for s in evaluation.stats]


def _coco(dataset: Any, evaluator: Any, truth: str, results: str, kind: str) -> list[float]:
    annotated = dataset(truth)
    evaluation = evaluator(annotated, annotated.loadRes(results), {"boxes": "bbox", "masks": "segm"}[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(s) for s in evaluation.stats[:12]]


RUNS: dict[str, Callable[[str, str, str], list[float]]] = {
    "bestiary": ours,
    "pycocotools": pycocotools,
    "faster-coco-eval": faster_coco_eval,
    "hotcoco": hotcoco,
}


def memory(name: str) -> int:
    """`VmRSS` or `VmHWM` (the peak) of this process in bytes, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def run_one(tool: str, kind: str, small: Sequence[str], large: Sequence[str], threads: int) -> dict[str, Any]:
    """This process's one measurement."""
    if tool == "bestiary":
        import torch

        torch.set_num_threads(threads)
    with contextlib.redirect_stdout(io.StringIO()):
        RUNS[tool](small[0], small[1], kind)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
        before = memory("VmRSS")
        begin, cpu = time.perf_counter(), time.process_time()
        stats = RUNS[tool](large[0], large[1], kind)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"seconds": seconds, "cpu seconds": cpu, "bytes": memory("VmHWM") - before, "stats": stats}


def environments(peers: Sequence[str]) -> dict[str, str]:
    """The Python that can run each tool, this one first."""
    found = {}
    for python in (sys.executable, *peers):
        for tool, module in TOOLS.items():
            probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
            if tool not in found and subprocess.run([python, "-c", probe], check=False).returncode == 0:
                found[tool] = python
    return found


def measure(kind: str, sizes: dict[str, int], repeats: int, threads: int, pythons: dict[str, str]) -> dict[str, Any]:
    """Every tool in turn, `repeats` times."""
    make = make_files if kind == "boxes" else make_mask_files
    with tempfile.TemporaryDirectory() as folder:
        (small_folder := Path(folder) / "small").mkdir()
        large = [str(path) for path in make(Path(folder), **sizes)]
        small = [str(path) for path in make(small_folder, 200, 4000, 4000)]
        size = sum(os.path.getsize(path) for path in large)
        runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in pythons}
        for _ in range(repeats):
            for tool, python in pythons.items():
                command = [python, __file__, "--tool", tool, "--kind", kind, "--threads", str(threads)]
                environment = os.environ | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
                done = subprocess.run(
                    [*command, "--files", *small, *large], capture_output=True, text=True, check=False, env=environment
                )
                if done.returncode == 0:
                    runs[tool].append(json.loads(done.stdout.splitlines()[-1]))
                else:
                    print(f"{tool} failed: {done.stderr.splitlines()[-1:]}", file=sys.stderr)
    return {**sizes, "file bytes": size, "threads": threads, "tools": _summary(runs, size)}


def _summary(runs: dict[str, list[dict[str, Any]]], size: int) -> dict[str, dict[str, Any]]:
    tools: dict[str, dict[str, Any]] = {}
    wanted = runs["bestiary"][0]["stats"]
    mine = [run["seconds"] for run in runs["bestiary"]]
    for tool, done in runs.items():
        if not done:
            continue
        seconds = [run["seconds"] for run in done]
        tools[tool] = {
            "seconds, median": statistics.median(seconds),
            "seconds, least": min(seconds),
            "cpu seconds, median": statistics.median(run["cpu seconds"] for run in done),
            "times slower than ours, median": statistics.median(seconds) / statistics.median(mine),
            "times slower than ours, least": min(seconds) / min(mine),
            "peak memory over file size": max(run["bytes"] for run in done) / size,
            "largest difference of the twelve numbers": max(
                abs(a - b) for a, b in zip(done[0]["stats"], wanted, strict=True)
            ),
        }
    return tools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=list(SIZES), default=list(SIZES))
    for name in ("pictures", "truths", "detections"):
        parser.add_argument(f"--{name}", type=int)
    for name, default in (("repeats", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peers", nargs="*", default=[])
    parser.add_argument("--tool", choices=list(TOOLS), help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(run_one(options.tool, options.kind[0], options.files[:2], options.files[2:], options.threads)))
        return
    pythons = environments(options.peers)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("bestiary", "numba", "numpy", "pycocotools")},
    }
    for kind in options.kind:
        given = {name: getattr(options, name) for name in SIZES[kind] if getattr(options, name) is not None}
        result[kind] = measure(kind, SIZES[kind] | given, options.repeats, options.threads, pythons)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
