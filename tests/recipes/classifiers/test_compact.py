"""The numbers of the papers in the recipes of the compact nets."""

from collections.abc import Callable

import pytest

from bestiary.recipes.classifiers import compact
from bestiary.recipes.recipe import Recipe
from bestiary.training.schedules import lr_factor
from bestiary.training.settings import Settings

PAPERS = [compact.squeezenet, compact.squeezenext, compact.mobilenet_v1, compact.mobilenet_v2, compact.mobilenet_v3]
SMALL = [compact.small_pictures, compact.squeezenext_small_pictures, compact.squeezenet_small_pictures]


def loop_of(recipe: Recipe) -> Settings:
    assert isinstance(recipe.settings, Settings)
    return recipe.settings


def test_squeezenet_adds_the_gradients_of_512_pictures_and_falls_in_a_line() -> None:
    settings = loop_of(compact.squeezenet())
    assert settings.batch * settings.accumulate == 512
    assert [lr_factor(step, 100, 10, settings) for step in (0, 25, 50)] == pytest.approx([1, 0.75, 0.5])


def test_squeezenext_and_shufflenet_keep_the_papers_rate_a_picture() -> None:
    squeezenext, shufflenet = loop_of(compact.squeezenext()), loop_of(compact.shufflenet())
    assert squeezenext.lr / squeezenext.batch == pytest.approx(0.4 / 1024)
    assert shufflenet.lr / shufflenet.batch == pytest.approx(0.5 / 1024)


@pytest.mark.parametrize("recipe", [*PAPERS, compact.shufflenet, *SMALL])
def test_they_fit_a_laptop_and_its_processor(recipe: Callable[[], Recipe]) -> None:
    settings = loop_of(recipe())
    assert settings.batch <= (128 if recipe in SMALL else 32)
    assert settings.channels_last or recipe is compact.squeezenet
    assert settings.warmup_steps <= 500


def test_small_pictures_are_never_scaled() -> None:
    for recipe in SMALL:
        pictures = recipe().pictures
        assert (pictures.resize, pictures.crop, pictures.area, pictures.shift) == (32, 32, None, 4)


def test_depthwise_nets_on_small_pictures_train_in_32_bits() -> None:
    assert [loop_of(recipe()).precision for recipe in SMALL] == ["fp32", "auto", "auto"]


def test_mobilenets_take_rmsprop_with_the_papers_decays() -> None:
    loops = [loop_of(recipe()) for recipe in (compact.mobilenet_v1, compact.mobilenet_v2, compact.mobilenet_v3)]
    assert {(loop.optimizer, loop.momentum, loop.betas[1], loop.decay_norms) for loop in loops} == {
        ("rmsprop", 0.9, 0.9, False)
    }
    assert [loop.weight_decay for loop in loops] == [4e-5, 4e-5, 1e-5]
    assert [loop.ema for loop in loops] == [None, None, 0.9999]


def test_squeezenet_on_small_pictures_does_not_take_its_solvers_rate() -> None:
    settings = loop_of(compact.squeezenet_small_pictures())
    assert settings.optimizer == "adamw"
    assert settings.clip_norm == 1.0
