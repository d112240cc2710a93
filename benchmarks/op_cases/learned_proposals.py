"""BING and objectness on a picture of 640 x 480, learned from made-up ones; neither has a peer that is installed."""

import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.proposals.bing import Bing
from bestiary.proposals.objectness import Objectness
from bestiary.records import Objects, Sample, Target


def _scene(seed: int) -> Sample:
    """Bright and dark rectangles on a noisy ground."""
    rng = np.random.default_rng(seed)
    picture, boxes = rng.normal(110, 8, (480, 640, 3)), []
    for _ in range(12):
        width, height = rng.integers(30, 200, 2)
        x, y = rng.integers(0, 640 - width), rng.integers(0, 480 - height)
        picture[y : y + height, x : x + width] = rng.normal(rng.choice([40, 210]), 10, (height, width, 3))
        boxes.append([x, y, x + width, y + height])
    image = torch.from_numpy(picture.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    objects = Objects(torch.tensor(boxes, dtype=torch.float32), torch.zeros(len(boxes), dtype=torch.int64))
    return Sample(image, Target(objects=objects), f"{seed}.png", (480, 640))


def cases(peers: Peers) -> list[Case]:
    """Finding boxes; learning is not timed."""
    samples = [_scene(seed) for seed in range(6)]
    image = _scene(100).image
    bits, floats, objectness = Bing(), Bing(is_binary=False), Objectness(training_windows=1000)
    for proposer in (bits, floats, objectness):
        proposer.fit(samples)
    sizes = len(bits.active)
    return [
        Case(f"bing 640 x 480, {sizes} sizes, bits", lambda: bits.find(image)),
        Case(f"bing 640 x 480, {sizes} sizes, the template as it is", lambda: floats.find(image)),
        Case("objectness 640 x 480, 100,000 windows", lambda: objectness.find(image)),
    ]
