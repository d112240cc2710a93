"""Made-up masks and joints as COCO's files and as records: crowds, ties, areas on the bounds, empty masks, objects
without joints."""

from typing import Any

import numpy as np
import torch
from pycocotools import mask as reference

from bestiary.predictions import Detections
from bestiary.records import Objects, Target

SIZE = (90, 120)


def _runs(mask: np.ndarray) -> list[int]:
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat)) + 1
    return np.diff(np.concatenate([[0, 0] if flat[0] else [0], ends, [flat.size]])).astype(int).tolist()


def _outline(rng: np.random.Generator) -> np.ndarray:
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(4, 45) * rng.uniform(0.5, 1, (corners, 1))
    return rng.uniform(0, SIZE[::-1]) + np.stack([np.cos(angles), np.sin(angles)], 1) * reach


def _text(outlines: list[np.ndarray]) -> dict[str, Any]:
    return reference.merge(reference.frPyObjects([o.reshape(-1).tolist() for o in outlines], *SIZE))


def mask_files(seed: int, pictures: int = 10, categories: int = 3) -> tuple[dict, list[dict]]:
    """Truths as polygons, run lengths and compressed text in turn; results as compressed text, in no order."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(1, pictures + 1):
        for _ in range(rng.integers(0, 6)):
            outlines = [_outline(rng).round(2) for _ in range(1 + (rng.random() < 0.3))]
            text = _text(outlines)
            form = len(annotations) % 3
            area = float(reference.area(text))
            segmentation = {
                0: [o.reshape(-1).tolist() for o in outlines],
                1: {"size": list(SIZE), "counts": _runs(reference.decode(text))},
                2: {"size": list(SIZE), "counts": text["counts"].decode()},
            }[form]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.integers(1, categories + 1)),
                    "segmentation": segmentation,
                    "area": float(rng.choice([area, 1024.0, 9216.0])) if rng.random() < 0.3 else area,
                    "iscrowd": int(rng.random() < 0.15),
                    "bbox": reference.toBbox(text).tolist(),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = text if rng.random() < 0.1 else _text([o + rng.normal(0, 3, 2) for o in outlines])
                said = annotations[-1]["category_id"] if rng.random() < 0.8 else int(rng.integers(1, categories + 1))
                results.append(_result(rng, image_id, said, moved["counts"].decode()))
        if rng.random() < 0.3:
            nothing = reference.encode(np.zeros(SIZE, np.uint8, order="F"))
            results.append(_result(rng, image_id, 1, nothing["counts"].decode()))
    images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(1, pictures + 1)]
    names = [{"id": k, "name": f"c{k}"} for k in range(1, categories + 1)]
    results = [results[i] for i in rng.permutation(len(results))]
    return {"images": images, "annotations": annotations, "categories": names}, results


def _result(rng: np.random.Generator, image_id: int, category_id: int, counts: str) -> dict[str, Any]:
    segmentation = {"size": list(SIZE), "counts": counts}
    score = round(float(rng.random()), 1)
    return {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": segmentation}


def keypoint_files(seed: int, pictures: int = 10, joints: int = 17) -> tuple[dict, list[dict]]:
    """People, some without an annotated joint, some crowds; areas on the bounds; results without boxes."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(1, pictures + 1):
        for _ in range(rng.integers(0, 6)):
            centre, side = rng.uniform(50, 400, 2), rng.uniform(20, 150)
            points = (centre + rng.uniform(-side, side, (joints, 2))).round(1)
            visibility = rng.integers(0, 3, joints) * (rng.random() < 0.8)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.concatenate([points, visibility[:, None]], 1).reshape(-1).tolist(),
                    "num_keypoints": int((visibility > 0).sum()),
                    "iscrowd": int(rng.random() < 0.1),
                    "bbox": [*(centre - side).tolist(), 2 * side, 2 * side],
                    "area": float(rng.choice([2 * side * side, 1024.0, 9216.0])),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = np.concatenate([points + rng.normal(0, 0.08 * side, (joints, 2)), np.ones((joints, 1))], 1)
                score = round(float(rng.random()), 1)
                results.append(
                    {"image_id": image_id, "category_id": 1, "score": score, "keypoints": moved.reshape(-1).tolist()}
                )
    images = [{"id": i} for i in range(1, pictures + 1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}, results


def as_records(truths: dict, results: list[dict], kind: str) -> tuple[list[Detections], list[Target]]:
    """The same as predictions and targets, picture by picture; boxes of results are those around mask or joints."""
    predictions, targets = [], []
    for image in truths["images"]:
        mine = [a for a in truths["annotations"] if a["image_id"] == image["id"]]
        said = sorted((r for r in results if r["image_id"] == image["id"]), key=lambda r: -r["score"])
        shapes = {
            "objects": {kind: _shapes(mine, kind)},
            "found": {kind: _shapes(said, kind)},
        }
        corners = torch.tensor([a["bbox"] for a in mine], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        targets.append(
            Target(
                objects=Objects(
                    corners,
                    torch.tensor([a["category_id"] - 1 for a in mine], dtype=torch.int64),
                    crowd=torch.tensor([bool(a["iscrowd"]) for a in mine], dtype=torch.bool),
                    areas=torch.tensor([a["area"] for a in mine], dtype=torch.float32),
                    **shapes["objects"],
                )
            )
        )
        boxes = torch.zeros(len(said), 4)
        if kind == "keypoints" and said:
            points = shapes["found"][kind][..., :2]
            boxes = torch.cat([points.amin(1), points.amax(1)], 1)
        predictions.append(
            Detections(
                boxes,
                torch.tensor([r["category_id"] - 1 for r in said], dtype=torch.int64),
                torch.tensor([r["score"] for r in said], dtype=torch.float32),
                size_hw=SIZE,
                **shapes["found"],
            )
        )
    return predictions, targets


def _shapes(entries: list[dict], kind: str) -> torch.Tensor:
    if kind == "keypoints":
        joints = len(entries[0]["keypoints"]) // 3 if entries else 17
        return torch.tensor([e["keypoints"] for e in entries], dtype=torch.float32).reshape(-1, joints, 3)
    masks = [_pixels(e["segmentation"]) for e in entries]
    return torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *SIZE, dtype=torch.bool)


def _pixels(segmentation: Any) -> np.ndarray:
    if isinstance(segmentation, list):
        text = reference.merge(reference.frPyObjects(segmentation, *SIZE))
    elif isinstance(segmentation["counts"], list):
        text = reference.frPyObjects(segmentation, *SIZE)
    else:
        text = segmentation
    return reference.decode(text).astype(bool)
