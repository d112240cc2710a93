"""What YOLOv2's recipes hand to the loop, to the pictures and to the system."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bestiary.detection import yolo9000, yolo_v2, yolo_v2_ladder
from bestiary.recipes.detectors import yolo_v2 as recipes
from bestiary.recipes.detectors.yolo_v2 import YOLOv2Pictures
from bestiary.recipes.recipe import Recipe
from bestiary.records import Objects, Sample, Target
from bestiary.training.settings import Settings

BUILDS: dict[Callable[[], Recipe], Callable[..., Any]] = {
    recipes.yolo_v2: yolo_v2.yolo_v2,
    recipes.yolo_v2_coco: yolo_v2.yolo_v2_coco,
    recipes.tiny_yolo_v2: yolo_v2.tiny_yolo_v2,
    recipes.yolo_v2_small: yolo_v2.yolo_v2_small,
    recipes.yolo_v2_ladder: yolo_v2_ladder.yolo_v2_ladder,
    recipes.yolo9000: yolo9000.yolo9000,
}


def sample() -> Sample:
    image = torch.zeros(3, 60, 120)
    image[:, 20:50, 30:90] = 1
    objects = Objects(torch.tensor([[30.0, 20.0, 90.0, 50.0]]), torch.tensor([0]))
    return Sample(image, Target(objects=objects), "a.png", (60, 120))


@pytest.mark.parametrize("recipe", list(BUILDS), ids=lambda r: r.__name__)
def test_the_constructor_takes_what_the_pictures_say_and_agrees(recipe: Callable[[], Recipe]) -> None:
    build, pictures = BUILDS[recipe], recipe().pictures
    parameters = inspect.signature(build).parameters
    for name, value in pictures.arguments().items():
        assert tuple(np.atleast_1d(parameters[name].default)) == tuple(np.atleast_1d(value)), name


def test_priors_come_first_and_the_schedule_is_darknets() -> None:
    recipe = recipes.yolo_v2()
    assert [stage.name for stage in recipe.stages] == ["priors", "detector"]
    settings = recipe.stages[1].settings
    assert isinstance(settings, Settings)
    assert settings.batch * settings.accumulate == 64
    assert [round(m * (settings.steps or 0)) for m in settings.milestones] == [40_000, 60_000]
    for other in (recipes.yolo_v2_coco(), recipes.yolo9000()):
        longer = other.stages[1].settings
        assert isinstance(longer, Settings)
        assert [round(m * (longer.steps or 0)) for m in longer.milestones] == [400_000, 450_000]


@pytest.mark.parametrize(("letterbox", "wanted"), [(False, (24, 32, 72, 80)), (True, (24, 40, 72, 64))])
def test_pictures_come_at_the_largest_size(letterbox: bool, wanted: tuple[int, ...]) -> None:
    pictures = YOLOv2Pictures(
        size=64, train_sizes=(64, 96), letterbox=letterbox, jitter=0.0, flip=0.0, hue=0.0, saturation=1.0, exposure=1.0
    )
    changed = pictures.train_transform()(sample(), np.random.default_rng(0))
    assert changed.image.shape == (3, 96, 96)
    assert changed.target.objects is not None
    assert changed.target.objects.boxes_xyxy[0].tolist() == pytest.approx(wanted)
    assert changed.image[:, 60, 48].min() > 0.9
    corner = changed.image[:, 0, 0]
    assert corner.tolist() == pytest.approx([0.5 if letterbox else 0.0] * 3, abs=0.01)


def test_one_size_if_there_is_only_one() -> None:
    pictures = YOLOv2Pictures(size=64, train_sizes=(), tile=32)
    changed = pictures.train_transform()(sample(), np.random.default_rng(0))
    assert changed.image.shape == (3, 64, 64)
    assert pictures.arguments()["tile"] == 32
