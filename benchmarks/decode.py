"""Pictures a second that `read_image` decodes, beside OpenCV alone on the same bytes and beside Pillow.

    python benchmarks/decode.py FOLDER [--write benchmarks/results/decode.json]

Arrays are dropped at once (keeping them measures page faults); rounds alternate so that a busy machine hurts all
alike; the best round counts. The target: at least 0.85 of OpenCV's own rate on 640x480 JPEG.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bestiary.pictures.decode import read_image, read_size
from bestiary.pictures.sources import list_pictures

ROUNDS = 7


def opencv(path: Path) -> object:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)


def pillow(path: Path) -> object:
    return np.asarray(Image.open(path).convert("RGB"))


def rate(read: Callable[[Path], object], paths: list[Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        read(path)
    return len(paths) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    paths = list_pictures(options.folder)[: options.count]
    readers: dict[str, Callable[[Path], object]] = {
        "bestiary": read_image,
        "opencv": opencv,
        "pillow": pillow,
        "bestiary read_size": read_size,
    }
    best = dict.fromkeys(readers, 0.0)
    for _ in range(ROUNDS):
        for name, read in readers.items():
            best[name] = max(best[name], rate(read, paths))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "opencv": cv2.__version__,
        "pictures": len(paths),
        "size_hw": list(read_size(paths[0])),
        "pictures_per_second": {name: round(value, 1) for name, value in best.items()},
        "ratio_to_opencv": round(best["bestiary"] / best["opencv"], 3),
    }
    print(json.dumps(result, indent=2))
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
