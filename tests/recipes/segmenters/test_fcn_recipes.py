"""Recipes of the fully convolutional nets: the authors' numbers, and that the small forms are trained alike."""

import pytest

from bestiary import zoo
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters import fcn, hypercolumns
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


@pytest.mark.parametrize(
    ("recipe", "lr", "steps"),
    [
        (fcn.fcn32s, 1e-10, 100_000),
        (fcn.fcn16s, 1e-12, 100_000),
        (fcn.fcn8s, 1e-14, 100_000),
        (fcn.fcn8s_at_once, 1e-10, 300_000),
    ],
)
def test_the_authors_solvers(recipe, lr: float, steps: int) -> None:
    settings = recipe().settings
    assert (settings.lr, settings.steps) == (lr, steps)
    assert (settings.batch, settings.accumulate, settings.momentum, settings.weight_decay) == (1, 1, 0.99, 5e-4)
    assert (settings.optimizer, settings.schedule, settings.warmup_steps) == ("sgd", "constant", 0)
    assert (settings.bias_lr, settings.decay_norms) == (2.0, False)
    assert settings.epochs * 8498 >= steps > (settings.epochs - 1) * 8498
    assert settings.precision == "fp32"
    assert recipe().pictures == SegmentationPictures(flip=0.0)


def test_torchvisions_training_scaled_to_eight_pictures() -> None:
    settings, pictures = fcn.fcn_resnet().settings, fcn.fcn_resnet().pictures
    assert isinstance(settings, Settings)
    assert settings.lr / settings.batch == pytest.approx(0.02 / 32)
    assert (settings.epochs, settings.schedule, settings.poly_power) == (30, "poly", 0.9)
    assert settings.part_lr_factors() == {"aux_classifier": 10.0}
    assert (pictures.short_side, pictures.scale, pictures.crop, pictures.flip) == (520, (0.5, 2.0), 480, 0.5)


def test_small_forms_differ_in_nothing_but_the_net() -> None:
    names = ("fcn32s_small", "fcn16s_small", "fcn8s_small", "fcn_resnet18")
    recipes = [zoo.find(name).recipe() for name in names]
    assert all(recipe.settings == recipes[0].settings for recipe in recipes)
    assert all(recipe.pictures == recipes[0].pictures for recipe in recipes)


def test_what_was_asked_for_is_named() -> None:
    assert from_scratch("Dice of V-Net").source.startswith("Dice of V-Net; from scratch")


def test_a_grid_of_classifiers_sees_whole_pictures() -> None:
    for recipe in (hypercolumns.hypercolumns(), hypercolumns.hypercolumns_small()):
        assert (recipe.pictures.crop, recipe.pictures.scale) == (None, None)
    assert hypercolumns.hypercolumns_small().settings == fcn.fcn_small().settings
    assert hypercolumns.hypercolumns().settings.part_lr_factors() == {"scores": 10.0}
