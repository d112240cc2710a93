"""Both forms learn real membranes (ISBI 2012) within seconds: crops of four slices, tested on a fifth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.heads.segmentation import PixelSystem
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.records import Sample, Target
from bestiary.segmentation.unet import unet, unet_padded_small
from bestiary.transforms.border_weights import BorderWeights

CATEGORIES = ("membrane", "cell")


def slice_of(folder: Path, number: int) -> Sample:
    image = torch.from_numpy(np.array(Image.open(folder / "images" / f"{number}.png").convert("L")))[None]
    labels = torch.from_numpy(np.array(Image.open(folder / "labels" / f"{number}.png").convert("L")) > 127)
    return Sample(image, Target(label_map=labels.to(torch.uint8)), f"{number}.png", (512, 512))


def crop(sample: Sample, side: int, rng: np.random.Generator) -> Sample:
    top, left = (int(i) for i in rng.integers(0, 512 - side, 2))
    window = (slice(top, top + side), slice(left, left + side))
    assert sample.target.label_map is not None
    return Sample(
        sample.image[:, *window], Target(label_map=sample.target.label_map[window]), sample.name, (side, side)
    )


@pytest.mark.parametrize(("form", "side", "steps"), [("padded", 96, 60), ("paper", 84, 60)])
def test_membranes_are_learned(real_data: Path, form: str, side: int, steps: int) -> None:
    folder = real_data / "isbi2012"
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    build = unet_padded_small if form == "padded" else unet
    net: PixelSystem = build(CATEGORIES, in_channels=1, width=8)
    train = [slice_of(folder, number) for number in range(4)]
    weigh = BorderWeights(class_weights=(2.0, 1.0))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        samples = [weigh(crop(train[i], side, rng), rng) for i in rng.integers(0, 4, 4)]
        optimizer.zero_grad()
        net.loss([s.image for s in samples], [s.target for s in samples]).total.backward()
        optimizer.step()
    held_out = slice_of(folder, 20)
    scores = SegmentationScores(CATEGORIES)
    with torch.inference_mode():
        scores.update(net.eval().predict_images([held_out.image]), [held_out.target])
    found = scores.compute()
    # saying "cell" everywhere reaches 0.39 mean IoU
    assert found.value > 0.55, found
    assert found.per_class["membrane"]["iou"] > 0.35, found
