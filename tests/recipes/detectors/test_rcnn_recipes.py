"""Recipes of R-CNN and SPP-net: their stages, what happens to pictures and proposals, and that flags reach them."""

import numpy as np
import pytest
import torch

from bestiary import zoo
from bestiary.detection.rcnn import rcnn_small
from bestiary.recipes.detectors import rcnn
from bestiary.recipes.detectors.rcnn import RegionPictures
from bestiary.records import Objects, Sample, Target
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings

NAMES = ("rcnn_alexnet", "rcnn_vgg16", "rcnn_small", "spp_net_zf", "spp_net_small")


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_then_svms_then_boxes(name: str) -> None:
    recipe = zoo.recipe_of(name)
    assert [stage.name for stage in recipe.stages] == ["finetune", "svm", "boxes"]
    assert [type(stage.settings) for stage in recipe.stages] == [Settings, FitSettings, FitSettings]
    assert [stage.is_scored for stage in recipe.stages] == [False, False, True]
    assert {"proposals", "proposal_options", "proposal_count", "class_weights", "flip", "tile"} <= set(recipe.fields())


def test_the_papers_numbers() -> None:
    tuning = rcnn.rcnn().settings
    assert isinstance(tuning, Settings)
    assert (tuning.lr, tuning.momentum, tuning.weight_decay, tuning.steps) == (0.001, 0.9, 5e-4, 70_000)
    assert [round(m * 70_000) for m in tuning.milestones] == [20_000, 40_000, 60_000]
    pyramid = rcnn.spp_net().settings
    assert isinstance(pyramid, Settings)
    assert (pyramid.lr, pyramid.steps, round(pyramid.milestones[0] * 300_000)) == (1e-4, 300_000, 250_000)


def test_a_stage_can_be_told_apart() -> None:
    recipe = rcnn.rcnn_from_scratch().with_fields({"finetune.epochs": 2, "seed": 7})
    tuning, svm, boxes = (stage.settings for stage in recipe.stages)
    assert isinstance(tuning, Settings)
    assert (tuning.epochs, tuning.seed, svm.seed, boxes.seed) == (2, 7, 7, 7)


def test_mirror_images_take_proposals_along_and_tiles_are_told_to_the_system() -> None:
    boxes = torch.tensor([[2.0, 3.0, 10.0, 20.0]])
    target = Target(objects=Objects(boxes, torch.tensor([0])), proposals_xyxy=boxes)
    sample = Sample(torch.zeros(3, 30, 40, dtype=torch.uint8), target, "a", (30, 40))
    moved = RegionPictures(flip=1.0, vertical_flip=1.0).train_transform()(sample, np.random.default_rng(0))
    wanted = torch.tensor([[30.0, 10.0, 38.0, 27.0]])
    assert moved.target.objects is not None
    torch.testing.assert_close(moved.target.objects.boxes_xyxy, wanted)
    torch.testing.assert_close(moved.target.proposals_xyxy, wanted)
    assert RegionPictures().arguments() == {}
    assert RegionPictures(tile=64).arguments()["tile"] == 64
    system = rcnn_small(["a"], proposals="sliding_windows")
    system.take(RegionPictures(tile=64).arguments())
    assert system.tiling.tile == 64
