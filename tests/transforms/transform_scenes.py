"""Samples with every field, small enough to check by hand and by brute force."""

import numpy as np
import torch

from bestiary.records import Camera, Objects, Sample, Target


def blank(size_hw: tuple[int, int] = (6, 8), objects: Objects | None = None, channels: int = 3) -> Sample:
    """A picture of noise with the objects given."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (*size_hw, channels), dtype=np.uint8)).permute(2, 0, 1)
    return Sample(image, Target(objects=objects), "blank.png", size_hw)


def discs(size_hw: tuple[int, int] = (48, 64), count: int = 4, seed: int = 0, channels: int = 3) -> Sample:
    """Coloured discs, everything annotated. The first two joints of a disc lie left and right, the third at its centre.

    Colours are 60 n + 60 on black, so that the object of each pixel can be read off the picture.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    ys, xs = np.mgrid[:height, :width] + 0.5
    image, label_map = np.zeros((height, width, channels), np.uint8), np.zeros((height, width), np.uint8)
    masks, joints, boxes = [], [], []
    for n in range(count):
        radius = rng.uniform(0.1, 0.2) * min(size_hw)
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        mask = (xs - x) ** 2 + (ys - y) ** 2 <= radius**2
        image[mask], label_map[mask] = 60 * n + 60, n + 1
        masks.append(mask)
        boxes.append([x - radius, y - radius, x + radius, y + radius])
        joints.append([[x - radius / 2, y, 2], [x + radius / 2, y, 1], [x, y, 2]])
    objects = Objects(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(count),
        masks=torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, height, width)),
        keypoints=torch.tensor(joints, dtype=torch.float32).reshape(-1, 3, 3),
        crowd=torch.arange(count) == 1,
        difficult=torch.arange(count) == 2,
        areas=torch.tensor([float(m.sum()) for m in masks]),
        ids=torch.arange(count) + 100,
        attributes=torch.eye(max(count, 1))[:count],
        boxes_3d=torch.tensor([[n, -n, 5.0, 2, 1, 1, 0.3 * n] for n in range(count)], dtype=torch.float32).reshape(
            -1, 7
        ),
    )
    normals = rng.normal(size=(3, height, width))
    target = Target(
        label=3,
        objects=objects,
        label_map=torch.from_numpy(label_map),
        weight_map=torch.from_numpy(rng.random((height, width), dtype=np.float32)),
        depth=torch.from_numpy(rng.random((height, width), dtype=np.float32) + 1),
        normals=torch.from_numpy((normals / np.linalg.norm(normals, axis=0)).astype(np.float32)),
        camera=Camera(torch.tensor([[50.0, 0, 30], [0, 55, 20], [0, 0, 1]]), torch.eye(4)),
        relations=torch.tensor([[0, 0, 1], [2, 1, 3], [1, 2, 0]])
        if count >= 4
        else torch.zeros(0, 3, dtype=torch.int64),
        caption="discs",
    )
    return Sample(torch.from_numpy(image).permute(2, 0, 1), target, "discs.png", size_hw)


def same(a: Sample, b: Sample) -> bool:
    """Whether two samples are equal bit for bit."""
    return _flat(a) == _flat(b)


def _flat(thing: object) -> object:
    if isinstance(thing, torch.Tensor):
        return thing.dtype, tuple(thing.shape), thing.contiguous().numpy().tobytes()
    if hasattr(thing, "__dataclass_fields__"):
        return {name: _flat(getattr(thing, name)) for name in thing.__dataclass_fields__}
    return thing
