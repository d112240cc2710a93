"""Tiles in a recipe: what training cuts is what prediction is told."""

import numpy as np
import torch

from bestiary import zoo
from bestiary.detection.faster_rcnn import FasterRCNN
from bestiary.recipes.detection import DetectionPictures
from bestiary.recipes.tiles import TileFields
from bestiary.records import Objects, Sample, Target

SAMPLE = Sample(
    torch.zeros(3, 300, 400, dtype=torch.uint8),
    Target(objects=Objects(torch.tensor([[200.0, 100, 230, 140]]), torch.tensor([0]))),
    "one",
    (300, 400),
)


def test_without_tiles_nothing_is_cut_or_told() -> None:
    assert TileFields().tile_steps() == []
    assert TileFields().tile_arguments() == {}
    assert set(DetectionPictures().arguments()) == {"min_size", "max_size"}


def test_a_tile_is_cut_first_and_then_scaled_up() -> None:
    pictures = DetectionPictures(short_side=200, longest=300, tile=100, flip=0.0)
    made = [pictures.train_transform()(SAMPLE, np.random.default_rng(seed)) for seed in range(20)]
    assert {sample.size_hw for sample in made} == {(200, 200)}
    sides = [s.target.objects.boxes_xyxy for s in made if s.target.objects is not None]
    whole = [
        boxes for boxes in sides if len(boxes) and torch.equal(boxes[0, 2:] - boxes[0, :2], torch.tensor([60.0, 80]))
    ]
    assert len(whole) >= 10, "objects are seen twice as large, most of them whole"


def test_half_of_the_pictures_stay_whole_where_prediction_looks_at_the_whole() -> None:
    pictures = DetectionPictures(short_side=150, longest=300, tile=100, tile_whole=True, flip=0.0)
    made = [pictures.train_transform()(SAMPLE, np.random.default_rng(seed)).size_hw for seed in range(60)]
    assert 18 <= made.count((150, 200)) <= 42
    assert set(made) == {(150, 200), (150, 150)}


def test_the_system_is_told_by_the_recipe() -> None:
    name = "fasterrcnn_resnet18_fpn"
    recipe = zoo.recipe_of(name).with_fields({"tile": "128", "tile_overlap": "0.3", "short_side": "64"})
    system = zoo.build(name, ("a",), recipe.pictures.arguments())
    assert isinstance(system, FasterRCNN)
    assert (system.tiling.tile, system.tiling.overlap, system.tiling.whole) == (128, 0.3, False)
    assert system.arguments["tile"] == 128, "a checkpoint remembers it"
