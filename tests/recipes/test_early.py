"""The schedules of the first deep classifiers are their papers'."""

import pytest

from bestiary import zoo
from bestiary.recipes.classifiers import early
from bestiary.recipes.recipe import Recipe
from bestiary.training.schedules import lr_factor
from bestiary.training.settings import Settings
from bestiary.transforms.colour import PCAColour
from bestiary.transforms.compose import Compose

STEPS = 10
"""An epoch."""


def settings_of(recipe: Recipe) -> Settings:
    assert isinstance(recipe.settings, Settings)
    return recipe.settings


def learning_rates(recipe: Recipe) -> list[float]:
    """Of each epoch's first step."""
    settings = settings_of(recipe)
    total = settings.epochs * STEPS
    return [settings.lr * lr_factor(epoch * STEPS, total, STEPS, settings) for epoch in range(settings.epochs)]


@pytest.mark.parametrize(
    ("recipe", "epochs", "crop"),
    [(early.alexnet(), 90, 224), (early.alexnet_2012(), 90, 227), (early.zfnet(), 70, 224)],
)
def test_alexnet_and_zfnet_divide_by_ten_three_times(recipe: Recipe, epochs: int, crop: int) -> None:
    rates = learning_rates(recipe)
    assert len(rates) == epochs
    assert sorted({round(rate, 9) for rate in rates}, reverse=True) == [1e-2, 1e-3, 1e-4, 1e-5]
    settings, pictures = settings_of(recipe), recipe.pictures
    assert (settings.batch, settings.momentum, settings.weight_decay) == (128, 0.9, 5e-4)
    assert (pictures.resize, pictures.crop, pictures.area, pictures.pca_colour) == (256, crop, None, 0.1)
    transform = pictures.train_transform()
    assert isinstance(transform, Compose)
    assert PCAColour(0.1) in transform.transforms


def test_the_paper_forms_start_from_a_bias_that_trains_and_can_be_told_the_papers() -> None:
    for name in ("alexnet_2012", "caffenet"):
        recipe = zoo.recipe_of(name)
        assert recipe.fields()["bias"].default == recipe.arguments["bias"] == 0.1
        assert recipe.with_fields({"bias": "1"}).arguments["bias"] == 1.0


def test_caffenet_divides_every_twenty_epochs() -> None:
    rates = learning_rates(early.caffenet())
    assert [rates.count(rate) for rate in dict.fromkeys(rates)] == [20, 20, 20, 20, 10]
    settings = settings_of(early.caffenet())
    assert (settings.batch * settings.accumulate, settings.bias_lr, settings.decay_norms) == (256, 2.0, False)


def test_googlenet_falls_by_four_percent_every_eight_epochs() -> None:
    rates = learning_rates(early.googlenet_2014())
    assert rates[7] == rates[0]
    assert rates[8] / rates[7] == pytest.approx(0.96)
    assert rates[-1] / rates[0] == pytest.approx(0.96**31)
    shorter = learning_rates(early.googlenet_2014().with_fields({"epochs": 25}))
    assert shorter[-1] / shorter[0] == pytest.approx(0.96**30), "a shorter run falls as far"


def test_googlenets_quick_form_falls_as_a_root() -> None:
    rates = learning_rates(early.googlenet())
    assert rates[45] / rates[0] == pytest.approx(0.25**0.5)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012", "caffenet", "zfnet", "googlenet", "googlenet_2014"])
def test_constructor_and_recipe_agree_on_the_crop(name: str) -> None:
    import inspect

    entry = zoo.find(name)
    defaults = {key: parameter.default for key, parameter in inspect.signature(entry.build).parameters.items()}
    said = entry.recipe().pictures.arguments()
    assert (defaults["resize"], defaults["crop"]) == (said["resize"], said["crop"])
