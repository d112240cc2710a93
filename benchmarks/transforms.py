"""Pictures a second, one thread (that is one worker of the loader), from JPEG bytes to transformed samples; and the
loader's own cost.

    OMP_NUM_THREADS=1 python benchmarks/transforms.py [FOLDER of 640x480 JPEGs] [--write
    benchmarks/results/transforms.json]

Without a folder, made-up pictures of that size are used (about 70 kB each). Every pipeline starts from the file's
bytes, and each round runs all of them, so that a busy machine hurts all alike; the best round counts. Results are
dropped at once.
"""

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from bestiary.data.loader import Loader
from bestiary.pictures.decode import decode_image
from bestiary.records import Objects, Sample, Target
from bestiary.transforms import (
    ColourJitter,
    Compose,
    Elastic,
    RandomAffine,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShortSide,
    ScaleJitter,
    Transform,
)

ROUNDS = 7
OBJECTS, JOINTS = 8, 17


def made_up(count: int) -> list[bytes]:
    """Smooth noise, which compresses about as photographs do."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        layers = [
            cv2.resize(rng.normal(0, 60 / k, (480 // s, 640 // s, 3)), (640, 480)) for k, s in ((1, 60), (2, 8), (4, 2))
        ]
        picture = np.clip(128 + sum(layers), 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def objects(size_hw: tuple[int, int], masks: bool, joints: bool) -> Objects:
    rng = np.random.default_rng(1)
    height, width = size_hw
    corners = rng.uniform(0, 0.6, (OBJECTS, 2)) * [width, height]
    sides = rng.uniform(0.1, 0.4, (OBJECTS, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + sides], axis=1)
    ys, xs = np.mgrid[:height, :width] + 0.5
    ellipses = [
        ((xs - (a + c) / 2) / (c - a)) ** 2 + ((ys - (b + d) / 2) / (d - b)) ** 2 <= 0.25 for a, b, c, d in boxes
    ]
    points = corners[:, None] + rng.random((OBJECTS, JOINTS, 2)) * sides[:, None]
    keypoints = np.concatenate([points, np.full((OBJECTS, JOINTS, 1), 2.0)], axis=2)
    return Objects(
        torch.from_numpy(boxes.astype(np.float32)),
        torch.arange(OBJECTS),
        masks=torch.from_numpy(np.stack(ellipses)) if masks else None,
        keypoints=torch.from_numpy(keypoints.astype(np.float32)) if joints else None,
    )


class Files:
    """A data set that decodes anew each time."""

    def __init__(self, files: list[bytes], target: Target) -> None:
        self.files, self.target = files, target

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image = decode_image(self.files[index], str(index))
        return Sample(image, self.target, str(index), (int(image.shape[1]), int(image.shape[2])))


def rate(dataset: Files, transform: Transform | None) -> float:
    rng = np.random.default_rng(2)
    start = time.perf_counter()
    for n in range(len(dataset)):
        sample = dataset[n]
        if transform is not None:
            transform(sample, rng)
    return len(dataset) / (time.perf_counter() - start)


def loader_rate(dataset: Files, transform: Transform, workers: int) -> float:
    loader = Loader(dataset, 16, transform, shuffle=True, workers=workers)
    list(loader.iterate(0))  # starts the workers
    start = time.perf_counter()
    seen = sum(len(batch) for epoch in (1, 2, 3) for batch in loader.iterate(epoch))
    return seen / (time.perf_counter() - start)


def pipelines(files: list[bytes], size_hw: tuple[int, int]) -> dict[str, Callable[[], float]]:
    crop, flip = RandomResizedCrop((224, 224)), RandomHorizontalFlip()
    colour = ColourJitter(0.4, 0.4, 0.4)
    plain, boxes = Files(files, Target(label=0)), Files(files, Target(objects=objects(size_hw, False, False)))
    masks = Files(files, Target(objects=objects(size_hw, True, False)))
    joints = Files(files, Target(objects=objects(size_hw, True, True)))
    labels = Files(files, Target(label_map=torch.zeros(size_hw, dtype=torch.uint8)))
    jitter = Compose((ScaleJitter((0.1, 2.0), (640, 640)), flip))
    cases: dict[str, tuple[Files, Transform | None]] = {
        "decode": (plain, None),
        "classify: crop 224, flip": (plain, Compose((crop, flip))),
        "classify: crop 224, flip, colour": (plain, Compose((crop, flip, colour))),
        "classify: crop 224, flip, colour, hue": (plain, Compose((crop, flip, replace(colour, hue=0.1)))),
        "detect: scale jitter 640, flip; 8 boxes": (boxes, jitter),
        "detect: short side 480..800, flip; 8 boxes": (boxes, Compose((RandomShortSide(range(480, 801), 1333), flip))),
        "detect: scale jitter 640, flip; 8 boxes, masks": (masks, jitter),
        "detect: scale jitter 640, flip; 8 boxes, masks, 136 joints": (joints, jitter),
        "segment: affine, flip; label map": (labels, Compose((RandomAffine(20.0, 0.1, (0.8, 1.25)), flip))),
        "segment: elastic; label map": (labels, Elastic()),
    }
    timed: dict[str, Callable[[], float]] = {
        name: lambda dataset=dataset, transform=transform: rate(dataset, transform)
        for name, (dataset, transform) in cases.items()
    }
    classify = Compose((crop, flip))
    for workers in (0, 1, 2):
        timed[f"loader, {workers} workers, crop 224, flip"] = lambda workers=workers: loader_rate(
            plain, classify, workers
        )
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    names = sorted(options.folder.glob("*.jpg"))[: options.count] if options.folder else []
    files = [name.read_bytes() for name in names] or made_up(options.count)
    size_hw = tuple(decode_image(files[0], "0").shape[1:])
    timed = pipelines(files, (int(size_hw[0]), int(size_hw[1])))
    best = dict.fromkeys(timed, 0.0)
    for _ in range(options.rounds):
        for name, measure in timed.items():
            best[name] = max(best[name], measure())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "machine": platform.processor() or platform.machine(),
        "versions": {"opencv": cv2.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "pictures": {
            "count": len(files),
            "size_hw": size_hw,
            "mean_kilobytes": round(sum(map(len, files)) / len(files) / 1e3, 1),
        },
        "pictures_per_second": {name: round(value, 1) for name, value in best.items()},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.write:
        options.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
