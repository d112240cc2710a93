"""YOLO's recipes: the paper's numbers by the equation's gradient, and pictures of the system's size."""

import numpy as np
import pytest
import torch

from bestiary import zoo
from bestiary.records import Objects, Sample, Target
from bestiary.training.settings import Settings

NAMES = ("yolo_v1", "fast_yolo_v1", "yolo_v1_darknet", "tiny_yolo_v1_darknet", "yolo_v1_small")


def settings_of(name: str) -> Settings:
    settings = zoo.recipe_of(name).settings
    assert isinstance(settings, Settings)
    return settings


def test_the_papers_numbers() -> None:
    paper = settings_of("yolo_v1")
    assert (paper.epochs, paper.batch * paper.accumulate, paper.momentum) == (135, 64, 0.9)
    # Equation 3 has twice the gradient of the authors' code: half the rate and twice the decay make the same steps.
    assert (2 * paper.lr, paper.weight_decay / 2) == (0.01, 5e-4)
    assert 2 * paper.lr * paper.warmup_factor == 0.001
    assert [round(135 * m) for m in paper.milestones] == [75, 105]
    darknet = settings_of("yolo_v1_darknet")
    assert (darknet.steps, 2 * darknet.lr, darknet.warmup_steps) == (40_000, 0.005, 600)
    assert darknet.epochs * 16_551 >= 40_000 * 64


@pytest.mark.parametrize("name", NAMES)
def test_training_pictures_are_those_the_system_takes(name: str) -> None:
    recipe = zoo.recipe_of(name)
    assert {"jitter", "exposure", "tile", "flip", "class_weights", "boxes_per_cell"} <= set(recipe.fields())
    target = Target(objects=Objects(torch.tensor([[20.0, 10, 50, 60]]), torch.tensor([0])))
    sample = Sample(torch.zeros(3, 80, 100, dtype=torch.uint8), target, "a", (80, 100))
    seen = recipe.pictures.train_transform()(sample, np.random.default_rng(0))
    side = recipe.pictures.arguments()["size"]
    assert seen.size_hw == (side, side)
    assert recipe.with_fields({"size": "64", "tile": "32"}).pictures.arguments() == {
        "size": 64,
        "tile": 32,
        "tile_overlap": 0.2,
        "tile_whole": False,
    }


def test_the_papers_colours_are_not_turned() -> None:
    assert zoo.recipe_of("yolo_v1").pictures.hue == 0
    assert zoo.recipe_of("yolo_v1_darknet").pictures.hue == 0.1
    assert zoo.recipe_of("yolo_v1").with_fields({"saturation": "1", "exposure": "1"}).pictures.train_transform()
