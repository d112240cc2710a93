"""A little truth in several formats, and what a program might have found in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bestiary.data.opening import open_index
from bestiary.data.results.truth import Truth

SIZES_HW = {"a": (40, 60), "b": (40, 60), "c.d": (30, 50)}
BOXES = {
    "a": [("cat", (5.0, 6.0, 25.0, 30.0)), ("dog", (30.0, 8.0, 55.0, 36.0))],
    "b": [("cat", (10.0, 10.0, 50.0, 35.0))],
    "c.d": [],
}
FOUND = {
    "a": [
        ("cat", 0.9, (6.0, 6.0, 25.0, 31.0)),
        ("dog", 0.6, (28.0, 8.0, 52.0, 36.0)),
        ("dog", 0.3, (1.0, 1.0, 9.0, 9.0)),
    ],
    "b": [("dog", 0.8, (10.0, 10.0, 50.0, 35.0)), ("cat", 0.5, (12.0, 10.0, 48.0, 35.0))],
    "c.d": [("cat", 0.4, (0.0, 0.0, 10.0, 10.0))],
}
IDS = {"a": 11, "b": 4, "c.d": 7}
CATEGORIES = {"cat": 3, "dog": 8}


def xywh(box: tuple[float, ...]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def coco_truth(root: Path, pictures: bool = True, **changes: Any) -> Path:
    annotations = [
        {"id": n, "image_id": IDS[name], "category_id": CATEGORIES[label], "bbox": xywh(box), "iscrowd": 0}
        | {"area": (box[2] - box[0]) * (box[3] - box[1])}
        for n, (name, label, box) in enumerate(
            ((name, label, box) for name, listed in BOXES.items() for label, box in listed), start=1
        )
    ]
    images = [
        {"id": IDS[name], "file_name": f"{name}.png", "height": h, "width": w} for name, (h, w) in SIZES_HW.items()
    ]
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    root.mkdir(parents=True, exist_ok=True)
    for name, (h, w) in SIZES_HW.items():
        if pictures:
            Image.fromarray(np.full((h, w, 3), 90, np.uint8)).save(root / f"{name}.png")
    document = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (root / "annotations.json").write_text(json.dumps(document))
    return root / "annotations.json"


def coco_results(file: Path, **extra: Any) -> Path:
    entries = [
        {"image_id": IDS[name], "category_id": CATEGORIES[label], "bbox": xywh(box), "score": score, **extra}
        for name, listed in FOUND.items()
        for label, score, box in listed
    ]
    file.write_text(json.dumps(entries))
    return file


def voc_classes(folder: Path) -> Path:
    folder.mkdir()
    for wanted in CATEGORIES:
        lines = [
            f"{name} {score} {box[0] + 1} {box[1] + 1} {box[2]} {box[3]}"
            for name, listed in FOUND.items()
            for label, score, box in listed
            if label == wanted
        ]
        (folder / f"comp4_det_test_{wanted}.txt").write_text("\n".join(lines) + "\n")
    return folder


def voc_pictures(folder: Path) -> Path:
    folder.mkdir()
    for name, listed in FOUND.items():
        lines = [f"{label} {score} {b[0] + 1} {b[1] + 1} {b[2]} {b[3]}" for label, score, b in listed]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def yolo(folder: Path) -> Path:
    folder.mkdir()
    for name, listed in FOUND.items():
        h, w = SIZES_HW[name]
        lines = []
        for label, score, (x1, y1, x2, y2) in listed:
            numbers = [(x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h]
            lines.append(f"{list(CATEGORIES).index(label)} {' '.join(f'{v:.9f}' for v in numbers)} {score}")
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def predict_json(file: Path) -> Path:
    lines = [
        json.dumps(
            {
                "name": f"pictures/{name}.png",
                "size_hw": SIZES_HW[name],
                "objects": [{"category": k, "label": 0, "score": s, "box_xyxy": b} for k, s, b in listed],
            }
        )
        for name, listed in FOUND.items()
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def truth_of(path: Path, split: str | None = None) -> Truth:
    return Truth(open_index(path), split)


def map_folder(root: Path, count: int = 3) -> Path:
    """Label maps of three classes in `images` and `labels`, `classes.txt` beside them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    (root / "classes.txt").write_text("sky\nroad\ntree\n")
    for i in range(count):
        labels = np.kron(rng.integers(0, 3, (3, 4)), np.ones((8, 8))).astype(np.uint8)
        labels[0, :5] = 255
        Image.fromarray(labels).save(root / "labels" / f"{i}.png")
        Image.fromarray(np.stack([labels * 60] * 3, -1)).save(root / "images" / f"{i}.png")
    return root
