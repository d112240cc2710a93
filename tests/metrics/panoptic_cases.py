"""Pictures of random segments, as arrays and as COCO's files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 9, "name": "sky", "isthing": 0},
    {"id": 20, "name": "sea", "isthing": 0},
    {"id": 21, "name": "never", "isthing": 1},
]


def blocks(rng: np.random.Generator, shift: int) -> np.ndarray:
    """Segment numbers 1..12 in blocks of 8 x 8, some 0, drawn twice alike up to a shift."""
    grid = rng.integers(0, 13, (4, 5))
    return np.roll(np.kron(grid, np.ones((8, 8), np.int64)), (shift, shift), (0, 1))


def write_case(folder: Path, pictures: int = 6, seed: int = 0) -> tuple[Path, Path]:
    """Truth and predictions with void, crowds and wrong categories."""
    rng = np.random.default_rng(seed)
    documents: dict[str, dict[str, Any]] = {n: {"annotations": []} for n in ("truth", "said")}
    documents["truth"] |= {"categories": CATEGORIES, "images": []}
    for i in range(pictures):
        truth = blocks(rng, 0)
        said = np.roll(truth, (int(rng.integers(0, 4)), int(rng.integers(0, 4))), (0, 1))
        said[rng.random(said.shape) < 0.05] = 0
        kinds = rng.integers(0, 4, 13)
        other = np.where(rng.random(13) < 0.2, rng.integers(0, 4, 13), kinds)
        crowded = rng.random(13) < 0.15
        documents["truth"]["images"].append({"id": i, "file_name": f"{i}.jpg", "height": 32, "width": 40})
        for name, ids, labels in (("truth", truth, kinds), ("said", said, other)):
            segments, seen = [], set()
            for number in np.unique(ids[ids > 0]).tolist():
                label = int(labels[number])
                # At most one crowd of a category in a picture, as in COCO.
                crowd = bool(name == "truth" and crowded[number] and label not in seen)
                seen |= {label} if crowd else set()
                mask = ids == number
                entry = {"id": number * 1000 + 7, "category_id": CATEGORIES[label]["id"], "iscrowd": int(crowd)}
                segments.append(entry | {"area": int(mask.sum()), "bbox": [0, 0, 1, 1]})
            coded = np.where(ids > 0, ids * 1000 + 7, 0)
            (folder / name).mkdir(exist_ok=True)
            rgb = np.stack([coded % 256, coded // 256 % 256, coded // 65536], -1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / name / f"{i}.png")
            entry = {"image_id": i, "file_name": f"{i}.png", "segments_info": segments}
            documents[name]["annotations"].append(entry)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder / "truth.json", folder / "said.json"
