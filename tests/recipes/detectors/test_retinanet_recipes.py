"""RetinaNet's recipes say what the paper says, and reach its constructors."""

import pytest

from bestiary import zoo
from bestiary.recipes.detectors.retinanet import retinanet, retinanet_from_scratch
from bestiary.training.settings import Settings


def test_the_published_recipe_is_the_papers_at_a_quarter_of_its_batch() -> None:
    settings = retinanet().settings
    assert isinstance(settings, Settings)
    assert settings.lr * 16 / settings.batch == pytest.approx(0.01)
    assert settings.milestones == pytest.approx((2 / 3, 8 / 9))
    assert (settings.momentum, settings.weight_decay, settings.schedule) == (0.9, 1e-4, "step")
    assert retinanet().pictures.arguments()["min_size"] == 800


def test_training_from_scratch_is_one_cosine_on_small_pictures() -> None:
    recipe = retinanet_from_scratch()
    assert isinstance(recipe.settings, Settings)
    assert recipe.settings.schedule == "cosine"
    assert recipe.settings.clip_norm is not None
    assert recipe.pictures.short_side == 320


@pytest.mark.parametrize("name", [n for n in zoo.list_models("detection") if n.startswith("retinanet")])
def test_the_losses_are_flags(name: str) -> None:
    assert {"class_loss", "focal_alpha", "focal_gamma", "class_weights", "min_size"} <= set(zoo.find(name).takes())
