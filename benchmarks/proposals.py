"""Seconds a picture of the methods that propose boxes, beside OpenCV-contrib's where it has the method.

    python benchmarks/proposals.py FOLDER [--threads 2] [--write benchmarks/results/proposals.json]

OpenCV-contrib (`opencv-contrib-python-headless`, in a throw-away environment or folder on PYTHONPATH) has Selective
Search whole; its EdgeBoxes begin at a map of edges that needs a model to download, so both get the same map, and ours
is timed from the picture, too. Turns alternate, picture by picture, so that a busy machine hurts all alike; the median
over the pictures of the best of the turns counts, the first call apart. Methods that learn are given boxes at random:
what they look at costs the same.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from bestiary.data.world import World
from bestiary.features.soft_edges import soft_edges
from bestiary.pictures.decode import read_image
from bestiary.pictures.sources import list_pictures
from bestiary.proposals.edge_boxes import EdgeBoxes
from bestiary.proposals.methods import build
from bestiary.proposals.proposer import Proposer

TURNS = 3
OURS = ("selective_search_fast", "selective_search_quality", "edge_boxes", "bing", "objectness", "sliding_windows")
LEARN = {"bing", "objectness"}


def proposer(name: str) -> Proposer:
    """A method with its settings as they are."""
    made = build(name)
    if name in LEARN:
        world = World(20, split="train")
        made.fit([world[i] for i in range(len(world))], seed=0)
    return made.eval()


def opencv_search(quality: bool) -> Callable[[Tensor], int]:
    """OpenCV-contrib's Selective Search; of a picture, how many boxes it finds."""
    search: Any = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()  # pyright: ignore

    def run(image: Tensor) -> int:
        search.setBaseImage(np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1]))
        (search.switchToSelectiveSearchQuality if quality else search.switchToSelectiveSearchFast)()
        return len(search.process())

    return run


def from_edges(edge_boxes: EdgeBoxes) -> dict[str, Callable[[Tensor], int]]:
    """Both EdgeBoxes from one map of edges, found once a picture."""
    theirs: Any = cv2.ximgproc.createEdgeBoxes(maxBoxes=10_000)  # pyright: ignore
    maps: dict[int, Any] = {}

    def edges_of(image: Tensor) -> Any:
        if id(image) not in maps:
            edges = soft_edges(image)
            normal = (edges.tangent + np.pi / 2) % np.pi  # what OpenCV's detector says of a place
            maps[id(image)] = edges, edges.strength.numpy(), normal.numpy().astype(np.float32)
        return maps[id(image)]

    def run(image: Tensor) -> int:
        _, strength, normal = edges_of(image)
        return len(theirs.getBoundingBoxes(strength, normal)[0])

    return {
        "edge_boxes from edges": lambda image: len(edge_boxes.find_in(edges_of(image)[0]).boxes_xyxy),
        "opencv edge_boxes from edges": run,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    images = [read_image(path) for path in list_pictures(options.folder)[: options.count]]
    methods = {name: proposer(name) for name in OURS if not options.only or name in options.only}
    ways: dict[str, Callable[[Tensor], int]] = {
        name: (lambda image, method=method: len(method.propose(image).boxes_xyxy)) for name, method in methods.items()
    }
    if hasattr(cv2, "ximgproc"):
        for name, quality in (("selective_search_fast", False), ("selective_search_quality", True)):
            if name in ways:
                ways[f"opencv {name}"] = opencv_search(quality)
        if isinstance(edges := methods.get("edge_boxes"), EdgeBoxes):
            ways |= from_edges(edges)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    boxes: dict[str, list[int]] = {name: [] for name in ways}
    for way in ways.values():
        way(images[0])
    for image in images:
        best, counts = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, 0)
        for _ in range(TURNS):
            for name, way in ways.items():
                begin = time.perf_counter()
                counts[name] = way(image)
                best[name] = min(best[name], time.perf_counter() - begin)
        for name in ways:
            seconds[name].append(best[name])
            boxes[name].append(counts[name])
    found = {
        name: {"seconds": statistics.median(seconds[name]), "boxes": statistics.median(boxes[name])} for name in ways
    }
    for name in list(found):
        if f"opencv {name}" in found:
            found[name]["times as fast as OpenCV"] = found[f"opencv {name}"]["seconds"] / found[name]["seconds"]
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "opencv": cv2.__version__,
        "pictures": f"{len(images)} of {options.folder.name}, {images[0].shape[2]} x {images[0].shape[1]}",
        "threads": options.threads,
        "methods": found,
    }
    print(json.dumps(document, indent=2))
    if options.write:
        options.write.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
