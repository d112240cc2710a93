"""The recipes say the authors' numbers, and the small one fits its system."""

import numpy as np
import pytest
import torch

from bestiary.detection.corner_net import corner_net_small
from bestiary.recipes.detectors import corner_net as recipes
from bestiary.records import Objects, Sample, Target
from bestiary.training.settings import Settings
from bestiary.transforms.colour import IMAGENET_EIGENVECTORS


def test_the_authors_numbers() -> None:
    recipe = recipes.corner_net()
    settings = recipe.settings
    assert isinstance(settings, Settings)
    assert (settings.steps, settings.batch * settings.accumulate) == (500_000, 49)
    assert settings.epochs * 118_287 / 49 >= 500_000
    assert (settings.optimizer, settings.lr, settings.weight_decay) == ("adam", 2.5e-4, 0.0)
    assert settings.milestones == (450 / 500,)
    assert (recipe.pictures.side, recipe.pictures.border, recipe.pictures.crop_factors[:2]) == (511, 128, (0.6, 0.7))
    assert recipe.pictures.arguments() == {"min_size": None, "max_size": 1333}


def test_principal_colours_are_red_first() -> None:
    # The pictures are like ImageNet's: so are the colours that they vary in, up to sign and order.
    ours, theirs = np.array(recipes.COCO_EIGENVECTORS), np.array(IMAGENET_EIGENVECTORS)
    np.testing.assert_allclose(ours.T @ ours, np.eye(3), atol=1e-3)
    assert (np.abs((ours * theirs).sum(0)) > 0.99).all()


@pytest.mark.parametrize("recipe", [recipes.corner_net(), recipes.corner_net_small()])
def test_training_pictures_are_crops_of_one_size(recipe: recipes.Recipe) -> None:
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    objects = Objects(torch.tensor([[100.0, 100.0, 250.0, 220.0]]), torch.tensor([0]))
    sample = Sample(image, Target(objects=objects), "x", (300, 400))
    made = recipe.pictures.train_transform()(sample, np.random.default_rng(0))
    side = recipe.pictures.side
    assert made.image.shape == (3, side, side)
    assert made.image.dtype == torch.uint8


def test_the_small_recipe_fits_the_small_system() -> None:
    recipe = recipes.corner_net_small()
    system = corner_net_small(["a"], **recipe.pictures.arguments())
    assert system.padded_size((recipe.pictures.side,) * 2) == (recipe.pictures.side,) * 2
    assert system.scale is not None
    assert (system.scale.min_size, system.scale.max_size) == (recipe.pictures.short_side, recipe.pictures.longest)
