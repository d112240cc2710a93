"""COCO box evaluation of made-up pictures: ours against pycocotools, in one run, and whether the numbers are equal.

    python benchmarks/evaluation.py [--pictures 5000] [--detections 500000] [--truths 34220] [--repeats 5]

Writes benchmarks/results/evaluation.json. Loading is timed apart: both read the same two JSON files.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
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

from bestiary.metrics.coco import average_precision, coco_scores
from bestiary.metrics.coco_files import read_table
from bestiary.metrics.errors import error_split
from bestiary.metrics.voc import voc_scores

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
CATEGORIES = 80


def make_files(folder: Path, pictures: int, truths: int, detections: int, seed: int = 0) -> tuple[Path, Path]:
    """An annotation file (1 % crowds) and a result file: four of ten detections near a truth, the rest anywhere."""
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
    names = [{"id": k, "name": f"category {k}"} for k in range(1, CATEGORIES + 1)]
    truth_file, result_file = folder / "truth.json", folder / "results.json"
    listed = [{"id": i} for i in range(1, pictures + 1)]
    truth_file.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": names}))
    result_file.write_text(json.dumps(results))
    return truth_file, result_file


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def median(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds of `repeats` runs after one that is not counted (compiled code is loaded)."""
    work()
    return statistics.median(timed(work)[0] for _ in range(repeats))


def reference(truth_file: Path, result_file: Path) -> tuple[float, float, list[float]]:
    """Seconds to load and to evaluate, and the twelve numbers, of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def load() -> tuple[COCO, COCO]:
        truth = COCO(str(truth_file))
        return truth, truth.loadRes(str(result_file))

    def evaluate() -> list[float]:
        truth, found = loaded
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return [float(s) for s in evaluation.stats]

    with contextlib.redirect_stdout(io.StringIO()):
        load_seconds, loaded = timed(load)
        seconds, stats = timed(evaluate)
    return load_seconds, seconds, stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pictures", 5000), ("truths", 34_220), ("detections", 500_000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), options.pictures, options.truths, options.detections)
        their_load, theirs, stats = reference(*files)
        our_load, table = timed(lambda: read_table(*files))
    ours = median(lambda: average_precision(table), options.repeats)
    with_details = median(lambda: coco_scores(average_precision(table), table), options.repeats)
    values = coco_scores(average_precision(table), table).values
    gaps = [0.0 if s == -1 and math.isnan(v) else abs(v - s) for v, s in zip(values.values(), stats, strict=True)]
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("bestiary", "numba", "numpy", "pycocotools")},
        "pictures": options.pictures,
        "truths": options.truths,
        "detections": options.detections,
        "seconds": {
            "pycocotools load": their_load,
            "pycocotools evaluate": theirs,
            "ours load": our_load,
            "ours evaluate": ours,
            "ours evaluate, with curves, thresholds and confusion": with_details,
            "ours voc": median(lambda: voc_scores(table), options.repeats),
            "ours error split": median(lambda: error_split(table), options.repeats),
        },
        "times faster": theirs / ours,
        "largest difference of the twelve numbers": max(gaps),
        "AP": values["AP"],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
