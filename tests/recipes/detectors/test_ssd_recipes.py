"""Recipes of SSD: the authors' numbers, and that pictures reach the network as it predicts."""

import numpy as np
import pytest
import torch

from bestiary import zoo
from bestiary.detection.ssd import SSD
from bestiary.recipes.detectors import ssd
from bestiary.recipes.detectors.ssd import SSD512Pictures, SSDPictures, SSDSquarePictures
from bestiary.records import Objects, Sample, Target
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose
from bestiary.transforms.crops import RandomIoUCrop, RandomZoomOut
from bestiary.transforms.photometric import PhotometricDistortion

NAMES = (
    "ssd300_vgg16",
    "ssd300_vgg16_caffe",
    "ssd512_vgg16",
    "ssd300_mobilenet",
    "ssdlite320_mobilenet_v2",
    "ssd300_small",
    "ssd300_mobilenet_small",
)


def sample() -> Sample:
    boxes = torch.tensor([[10.0, 20, 60, 80], [100, 30, 150, 90]])
    image = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)
    return Sample(image, Target(objects=Objects(boxes, torch.tensor([0, 1]))), "s", (120, 160))


def test_the_authors_numbers() -> None:
    settings = ssd.ssd300().settings
    assert isinstance(settings, Settings)
    assert (settings.lr, settings.momentum, settings.weight_decay, settings.batch) == (0.001, 0.9, 5e-4, 32)
    assert settings.steps == 120_000
    assert [round(m * 120_000) for m in settings.milestones] == [80_000, 100_000]
    distortion, zoom, crop, *_ = SSDPictures().train_transform().transforms  # type: ignore[attr-defined]
    assert distortion == PhotometricDistortion(32 / 255, 0.5, 0.5, 0.1, 0.5)
    assert zoom == RandomZoomOut(0.5, (1.0, 4.0))
    assert crop == RandomIoUCrop((None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0), (0.3, 1.0), (0.5, 2.0), 50)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_come_out_as_the_system_sees_them(name: str) -> None:
    recipe = zoo.recipe_of(name)
    with torch.device("meta"):
        system = zoo.build(name, ["a", "b"], recipe.pictures.arguments())
    assert isinstance(system, SSD)
    out = recipe.pictures.train_transform()(sample(), np.random.default_rng(3))
    assert out.size_hw == (system.scale.side, system.scale.side)
    assert out.image.dtype == torch.uint8


def test_a_chosen_side_reaches_picture_and_system_and_fixed_ones_cannot_be_chosen() -> None:
    chosen = zoo.recipe_of("ssd300_small").with_fields({"side": 240})
    assert chosen.pictures.arguments() == {"side": 240}
    assert chosen.pictures.train_transform()(sample(), np.random.default_rng(0)).size_hw == (240, 240)
    assert "side" not in zoo.recipe_of("ssd300_vgg16").fields()
    assert SSD512Pictures().sides_hw() == (512, 512)


def test_steps_can_be_left_out() -> None:
    plain = SSDSquarePictures(
        zoom_out=0.0, crops=False, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, flip=0.0
    )
    transform = plain.train_transform()
    assert isinstance(transform, Compose)
    assert len(transform.transforms) == 3
    out = transform(sample(), np.random.default_rng(0))
    assert out.target.objects is not None
    wanted = torch.tensor([[18.75, 50, 112.5, 200], [187.5, 75, 281.25, 225]])
    torch.testing.assert_close(out.target.objects.boxes_xyxy, wanted)


def test_objects_stay_in_their_pictures() -> None:
    transform, counts = SSDPictures().train_transform(), []
    for seed in range(30):
        out = transform(sample(), np.random.default_rng(seed))
        assert out.target.objects is not None
        boxes = out.target.objects.boxes_xyxy
        assert bool(((boxes >= 0) & (boxes <= 300)).all())
        counts.append(len(boxes))
    assert min(counts) >= 1
    assert min(counts) < max(counts) == 2
