import inspect

import pytest
import torch

from bestiary import zoo
from bestiary.recipes.segmenters.deconv_net import deconv_net
from bestiary.recipes.segmenters.dilation import dilation, dilation_city, dilation_front_end
from bestiary.recipes.segmenters.segnet import segnet, segnet_basic
from bestiary.training.settings import Settings


def test_segnet_is_trained_as_its_authors_files_say() -> None:
    for recipe, lr, steps in ((segnet(), 0.001, 40_000), (segnet_basic(), 0.1, 10_000)):
        settings = recipe.settings
        assert isinstance(settings, Settings)
        told = (settings.lr, settings.steps, settings.batch, settings.momentum, settings.weight_decay, settings.bias_lr)
        assert told == (lr, steps, 4, 0.9, 5e-4, 2.0)
        assert settings.schedule == "constant"
        assert settings.epochs * 367 // 4 >= steps  # the epochs do not end before the steps do
        assert settings.recompute_norms > 0
        assert recipe.pictures.arguments()["class_balance"] == "median_frequency"


def test_deconv_net_has_the_steps_and_drops_of_its_solvers() -> None:
    objects, proposals = (stage.settings for stage in deconv_net().stages)
    assert isinstance(objects, Settings)
    assert isinstance(proposals, Settings)
    assert (objects.steps, proposals.steps) == (20_000, 40_000)
    assert [m * 20_000 for m in objects.milestones] == [9_000, 18_000]
    assert [m * 40_000 for m in proposals.milestones] == [10_000, 20_000, 30_000]
    crops = inspect.signature(zoo.find("deconv_net").build).parameters["crops"].default
    assert objects.batch * crops == 64


def test_dilation_learns_front_end_context_and_both() -> None:
    settings = [stage.settings for stage in dilation().stages]
    assert [(s.lr, s.batch * s.accumulate) for s in settings] == [(1e-3, 14), (1e-3, 60), (1e-5, 14)]  # type: ignore[union-attr]
    assert [s.train_only for s in settings] == [(), ("context",), ()]  # type: ignore[union-attr]
    assert dilation_front_end().settings == settings[0]
    city = [stage.settings for stage in dilation_city().stages]
    assert [(s.steps, s.lr, s.momentum) for s in city] == [  # type: ignore[union-attr]
        (40_000, 1e-4, 0.99),
        (24_000, 1e-4, 0.99),
        (60_000, 1e-5, 0.99),
    ]


@pytest.mark.parametrize("name", ["deconv_net", "deconv_net_small", "dilation", "dilation10", "dilation_small"])
def test_every_stage_is_known_to_its_system_and_trains_something_of_it(name: str) -> None:
    entry = zoo.find(name)
    with torch.device("meta"):
        system = zoo.build(name, ["a", "b"])
    parts = {parameter.split(".")[0] for parameter, _ in system.named_parameters()}
    for stage in entry.recipe().stages:
        system.begin_stage(stage.name)
        assert system.stage == stage.name  # type: ignore[comparison-overlap]
        assert isinstance(stage.settings, Settings)
        assert set(stage.settings.train_only) <= parts
