"""DeepLab's recipes say what the papers say, and reach the parts of the networks that they name."""

import pytest
import torch

from bestiary import zoo
from bestiary.heads.atrous_encoder import FIRST, SECOND
from bestiary.recipes.segmenters import deeplab
from bestiary.training.freezing import freeze
from bestiary.training.optimisers import parameter_groups
from bestiary.training.schedules import lr_factor, poly
from bestiary.training.settings import Settings

NAMES = [name for name in zoo.list_models("segmentation") if name.startswith("deeplab")]


def settings_of(name: str) -> Settings:
    settings = zoo.find(name).recipe().settings
    assert isinstance(settings, Settings)
    return settings


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_with_their_own_learning_rates_are_there(name: str) -> None:
    with torch.device("meta"):
        system = zoo.build(name, ["a", "b"])
    groups = parameter_groups(system, settings_of(name))
    assert sum(len(group["params"]) for group in groups) == len(list(system.parameters()))


def test_v1_learns_scores_ten_times_as_fast_and_steps_down_every_2000() -> None:
    settings = settings_of("deeplab_v1")
    with torch.device("meta"):
        groups = parameter_groups(zoo.build("deeplab_v1"), settings)
    factors = {name: (g["lr_factor"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert factors["backbone.features.0.weight"] == (1, 5e-4)
    assert factors["large_fov.fc6.0.bias"] == (2, 0)
    assert factors["large_fov.score.weight"] == (10, 5e-4)
    assert factors["large_fov.score.bias"] == (20, 0)
    rates = [settings.lr * lr_factor(step, 6000, 529, settings) for step in (0, 1999, 2000, 3999, 4000)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


def test_v1s_side_branches_learn_alone() -> None:
    settings = settings_of("deeplab_v1_multi_scale")
    with torch.device("meta"):
        system = zoo.build("deeplab_v1_multi_scale")
    frozen = freeze(system, settings.freeze, settings.train_only)
    assert {name.split(".")[0] for name, p in system.named_parameters() if p.requires_grad} == {"sides"}
    assert all(not name.startswith("sides.") for name in frozen.names)


def test_v2_has_three_learning_rates_over_a_polynomial() -> None:
    settings = settings_of("deeplab_v2")
    with torch.device("meta"):
        groups = parameter_groups(zoo.build("deeplab_v2"), settings)
    factors = {name: (g["lr_factor"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert set(factors.values()) == {(1, 5e-4), (10, 5e-4), (20, 0)}
    assert factors["aspp.3.bias"] == (20, 0)
    assert settings.batch * settings.accumulate == 10
    for step in (0, 5000, 19_999):
        assert lr_factor(step, 20_000, 1059, settings) == pytest.approx((1 - step / 20_000) ** 0.9)
    assert poly(1.0, 0.9) == 0.0
    with torch.device("meta"):
        scores = parameter_groups(zoo.build("deeplab_v2_vgg16"), settings_of("deeplab_v2_vgg16"))
    tenfold = {name for g in scores if g["lr_factor"] >= 10 for name in g["names"]}
    assert tenfold == {f"aspp.{i}.score.{kind}" for i in range(4) for kind in ("weight", "bias")}


@pytest.mark.parametrize("make", [deeplab.deeplab_v3, deeplab.deeplab_v3_plus])
def test_v3_has_two_stages_of_30000_steps(make: object) -> None:
    recipe = make()  # type: ignore[operator]
    assert [stage.name for stage in recipe.stages] == [FIRST, SECOND]
    assert [stage.settings.lr for stage in recipe.stages] == [0.007, 0.001]
    assert {stage.settings.steps for stage in recipe.stages} == {30_000}
    assert (recipe.pictures.crop, recipe.pictures.scale) == (513, (0.5, 2.0))


@pytest.mark.parametrize("name", ["deeplab_v1", "deeplab_v2", "deeplab_v3_resnet101"])
def test_epochs_suffice_for_the_steps_on_the_papers_pictures(name: str) -> None:
    settings = settings_of(name)
    assert settings.steps is not None
    seen = settings.steps * settings.batch * settings.accumulate
    assert seen <= settings.epochs * deeplab.VOC_PICTURES < seen + 2 * deeplab.VOC_PICTURES


@pytest.mark.parametrize("name", [n for n in NAMES if "small" in n or "18" in n])
def test_small_forms_share_one_recipe(name: str) -> None:
    assert zoo.find(name).recipe() == deeplab.deeplab_small()
