"""Made-up detections and truths, the nasty kinds among them, as predictions and targets and as COCO's dictionaries."""

from collections.abc import Sequence

import numpy as np
import torch

from bestiary.predictions import Detections
from bestiary.records import Objects, Target

Picture = tuple[Detections, Target]


def found(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float32),
        size_hw=(500, 500),
    )


def truth(
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    crowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
    areas: Sequence[float] | None = None,
) -> Target:
    return Target(
        objects=Objects(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            crowd=None if crowd is None else torch.tensor(crowd, dtype=torch.bool),
            difficult=None if difficult is None else torch.tensor(difficult, dtype=torch.bool),
            areas=None if areas is None else torch.tensor(areas, dtype=torch.float32),
        )
    )


def random_boxes(rng: np.random.Generator, count: int, whole: bool) -> np.ndarray:
    corner = rng.uniform(0, 300, (count, 2))
    size = np.exp(rng.uniform(np.log(4), np.log(200), (count, 2)))
    # Sides of 32 and 96 sit exactly on the bounds of the area ranges.
    size[rng.random(count) < 0.15] = rng.choice([32.0, 96.0])
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return np.round(boxes) if whole else boxes


def random_pictures(
    seed: int, pictures: int = 30, categories: int = 4, most_truths: int = 8, most_found: int = 25, ties: bool = True
) -> list[Picture]:
    """Crowds, empty pictures, tied scores, exact copies, areas on the bounds, a category without truths."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(pictures):
        n = 0 if i % 7 == 3 else int(rng.integers(0, most_truths + 1))
        d = 0 if i % 11 == 5 else int(rng.integers(0, most_found + 1))
        true = random_boxes(rng, n, i % 2 == 0)
        labels = rng.integers(0, categories - 1, n)  # the last category has no truth
        said = random_boxes(rng, d, i % 2 == 0)
        said_labels = rng.integers(0, categories, d)
        for j in range(d):
            if n and rng.random() < 0.7:
                k = int(rng.integers(0, n))
                shift = rng.normal(0, 0.08, 4) * np.tile(true[k, 2:] - true[k, :2], 2) * (rng.random() < 0.8)
                box = true[k] + shift
                said[j] = [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
                if rng.random() < 0.8:
                    said_labels[j] = labels[k]
        scores = rng.random(d)
        if ties:
            scores = np.round(scores, 1)
        order = np.argsort(-scores, kind="stable")
        crowd = rng.random(n) < 0.15
        sides = true[:, 2:] - true[:, :2]
        areas = sides.prod(1) * np.where(rng.random(n) < 0.5, 1.0, 0.6)
        made.append(
            (
                found(said[order].tolist(), said_labels[order].tolist(), scores[order].tolist()),
                truth(true.tolist(), labels.tolist(), crowd.tolist(), areas=areas.tolist()),
            )
        )
    return made


def as_coco(pictures: Sequence[Picture], categories: int) -> tuple[dict, list[dict]]:
    """The same as an annotation file and a list of results; all ids start at 1."""
    annotations, results = [], []
    for image_id, (prediction, target) in enumerate(pictures, start=1):
        results += prediction.to_coco(image_id)
        assert target.objects is not None
        objects = target.objects
        for row in range(len(objects)):
            x1, y1, x2, y2 = objects.boxes_xyxy[row].double().tolist()
            area = (x2 - x1) * (y2 - y1) if objects.areas is None else float(objects.areas[row])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(objects.labels[row]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(objects.crowd[row]) if objects.crowd is not None else 0,
                }
            )
    images = [{"id": i, "width": 500, "height": 500} for i in range(1, len(pictures) + 1)]
    names = [{"id": k + 1, "name": f"c{k}"} for k in range(categories)]
    return {"images": images, "annotations": annotations, "categories": names}, results
