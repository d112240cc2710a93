"""Pictures a second that `World` draws with all annotations, in one thread.

    OMP_NUM_THREADS=1 python benchmarks/world.py [--write benchmarks/results/world.json]

The best of several rounds counts, of processor time, since others may use the machine.
The target: at least 100 at 128x128.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import cv2
import numba
import numpy as np
import torch

from bestiary.data.world import World

ROUNDS, PICTURES = 5, 100
WORLDS = {
    "32x32": {"size_hw": (32, 32)},
    "128x128": {"size_hw": (128, 128)},
    "128x128, clips of 8": {"size_hw": (128, 128), "frames": 8},
    "192x192": {"size_hw": (192, 192)},
    "256x256": {"size_hw": (256, 256)},
    "128x128, 20 walkers": {"size_hw": (128, 128), "objects": (20, 20), "only": ("walker",)},
}


def rate(world: World) -> float:
    """Pictures a second of processor time."""
    start = time.process_time()
    for i in range(PICTURES):
        world[i]
    return PICTURES / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    worlds = {name: World(PICTURES, **arguments) for name, arguments in WORLDS.items()}
    for world in worlds.values():
        world[0]
    best = dict.fromkeys(worlds, 0.0)
    for _ in range(ROUNDS):
        for name, world in worlds.items():
            best[name] = max(best[name], rate(world))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "machine": platform.processor() or platform.machine(),
        "versions": {"numpy": np.__version__, "numba": numba.__version__, "torch": torch.__version__},
        "pictures_per_second": {name: round(value, 1) for name, value in best.items()},
    }
    print(json.dumps(result, indent=2))
    if options.write:
        options.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
