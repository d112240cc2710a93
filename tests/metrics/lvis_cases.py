"""A small federated data set: what each picture was searched for, boxes, and results, from a seed alone."""

import numpy as np


def federated_case(seed: int, pictures: int = 20, categories: int = 6) -> tuple[dict, list[dict]]:
    """An annotation file and results in LVIS's form; numbers of two decimals, so that JSON keeps them exactly."""
    rng = np.random.default_rng(seed)
    annotations, images, results = [], [], []
    for image_id in range(1, pictures + 1):
        there = rng.random(categories) < 0.4
        denied = ~there & (rng.random(categories) < 0.5)
        incomplete = there & (rng.random(categories) < 0.3)
        lists = {"neg_category_ids": denied, "not_exhaustive_category_ids": incomplete}
        images.append(
            {"id": image_id, "height": 400, "width": 400}
            | {name: (np.flatnonzero(chosen) + 1).tolist() for name, chosen in lists.items()}
        )
        for k in np.flatnonzero(there):
            for _ in range(rng.integers(1, 4)):
                box = [*rng.uniform(0, 200, 2), *np.exp(rng.uniform(np.log(10), np.log(180), 2))]
                box = [round(float(v), 2) for v in box]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": int(k) + 1,
                        "bbox": box,
                        "area": round(box[2] * box[3] * 0.8, 2),
                    }
                )
                for _ in range(rng.integers(0, 3)):
                    said = int(k) + 1 if rng.random() < 0.8 else int(rng.integers(1, categories + 1))
                    moved = [round(v + float(rng.normal(0, 0.08)) * box[2 + i % 2], 2) for i, v in enumerate(box)]
                    results.append(_result(rng, image_id, said, [*moved[:2], *(max(1.0, v) for v in moved[2:])]))
        for _ in range(rng.integers(0, 4)):
            box = [round(float(v), 2) for v in rng.uniform(10, 200, 4)]
            results.append(_result(rng, image_id, int(rng.integers(1, categories + 1)), box))
    names = [{"id": k + 1, "name": f"c{k}", "frequency": "rcf"[k % 3]} for k in range(categories)]
    return {"images": images, "annotations": annotations, "categories": names}, results


def _result(rng: np.random.Generator, image_id: int, category_id: int, box: list[float]) -> dict:
    score = round(float(rng.random()), 4)
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
