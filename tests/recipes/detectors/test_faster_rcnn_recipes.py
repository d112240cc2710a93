"""The recipes on one map say the paper's numbers, and the four steps name parts that there are."""

import torch

from bestiary import zoo
from bestiary.detection.faster_rcnn_alternating import STEPS, faster_rcnn_small_4step
from bestiary.recipes.detectors import faster_rcnn as recipes
from bestiary.training.freezing import freeze
from bestiary.training.settings import Settings


def test_joint_training_has_the_authors_numbers() -> None:
    recipe = recipes.faster_rcnn_one_map()
    settings = recipe.settings
    assert isinstance(settings, Settings)
    assert (settings.steps, settings.batch, settings.lr, settings.weight_decay) == (70_000, 1, 0.001, 5e-4)
    assert settings.epochs * 5011 >= 70_000
    assert settings.milestones == (50 / 70,)
    assert recipe.pictures.arguments()["min_size"] == 600


def test_four_steps_have_the_authors_lengths_and_the_systems_names() -> None:
    recipe = recipes.faster_rcnn_4step()
    assert tuple(stage.name for stage in recipe.stages) == STEPS
    lengths = [stage.settings.steps for stage in recipe.stages if isinstance(stage.settings, Settings)]
    assert lengths == [80_000, 40_000, 80_000, 40_000]
    assert [stage.is_scored for stage in recipe.stages] == [False, True, False, True]


def test_what_each_step_trains_is_there_and_the_trunk_stays_in_the_last_two() -> None:
    for stage in recipes.faster_rcnn_small_4step().stages:
        with torch.device("meta"):
            system = faster_rcnn_small_4step(["a"])
        assert isinstance(stage.settings, Settings)
        frozen = freeze(system, (), stage.settings.train_only)
        stays = any(name.startswith("backbone.") for name in frozen.names)
        assert stays == (stage.name != "detector")
        assert len(frozen.names) < len(list(system.named_parameters()))


def test_a_flag_reaches_all_steps_or_one() -> None:
    recipe = zoo.recipe_of("faster_rcnn_small_4step").with_fields({"lr": "0.005", "detector.epochs": "2"})
    settings = [stage.settings for stage in recipe.stages]
    assert [s.lr for s in settings if isinstance(s, Settings)] == [0.005] * 4
    assert [s.epochs for s in settings if isinstance(s, Settings)] == [6, 2, 3, 3]


def test_the_small_mobile_form_is_trained_at_320() -> None:
    assert recipes.faster_rcnn_320().pictures.arguments()["min_size"] == 320
