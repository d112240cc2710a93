"""Pictures of bright and dark shapes on a noisy ground, with their boxes."""

import numpy as np
import torch

from bestiary.records import Objects, Sample, Target


def scene(seed: int, size_hw: tuple[int, int] = (120, 160), objects: int = 4) -> Sample:
    """Filled ellipses and rectangles, 20 to 60 pixels wide, that do not touch."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    picture = rng.normal(110, 6, (height, width, 1)) + rng.normal(0, 3, (height, width, 3))
    boxes: list[list[float]] = []
    rows, columns = np.mgrid[:height, :width] + 0.5
    while len(boxes) < objects:
        w, h = rng.integers(20, 60, 2)
        x, y = rng.integers(2, width - w - 2), rng.integers(2, height - h - 2)
        if any(x < b[2] + 4 and b[0] < x + w + 4 and y < b[3] + 4 and b[1] < y + h + 4 for b in boxes):
            objects -= int(rng.random() < 0.05)  # a full picture
            continue
        inside = (np.abs(columns - x - w / 2) <= w / 2) & (np.abs(rows - y - h / 2) <= h / 2)
        if rng.random() < 0.5:
            inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
        picture[inside] = rng.normal(rng.choice([30, 215]), 4, (int(inside.sum()), 1)) + rng.normal(0, 12, 3)
        boxes.append([x, y, x + w, y + h])
    image = torch.from_numpy(picture.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    target = Target(objects=Objects(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels))
    return Sample(image, target, f"{seed}.png", size_hw)


def recall(proposer: object, samples: list[Sample], number: int, iou: float = 0.5) -> float:
    """Share of the objects that the first boxes find."""
    from bestiary.metrics.proposals import ProposalScores

    scores = ProposalScores((number,), (iou,))
    scores.update([proposer.propose(s.image).boxes_xyxy for s in samples], [s.target for s in samples])  # type: ignore[attr-defined]
    return scores.recall(number, iou)
