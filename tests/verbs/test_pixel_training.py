"""Labellers of pixels trained by the verb: classes that overlap, pictures of many channels, weights of pixels."""

from pathlib import Path

import pytest
import torch

from bestiary.data.world import World
from bestiary.errors import DataError
from bestiary.heads.segmentation import MULTI_LABEL_TASK, PixelSystem
from bestiary.pictures.encode import write_image, write_map
from bestiary.predictions import Segmentation
from bestiary.records import Sample, Target
from bestiary.verbs.datasets import open_split
from bestiary.verbs.models import load
from bestiary.verbs.training import train
from bestiary.zoo import recipe_of

QUICK = {"epochs": 1, "steps": 2, "batch": 2, "width": 2, "short_side": 48}


class Bands:
    """Pictures of five channels; the class is whether the fourth is bright."""

    categories = ("dark", "bright")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = torch.rand(5, 40, 50, generator=torch.Generator().manual_seed(index))
        target = Target(label_map=(image[3] > 0.5).to(torch.uint8))
        return Sample(image, target, str(index), (40, 50))


@pytest.mark.usefixtures("no_drawing")
def test_classes_that_overlap_are_trained_scored_and_loaded(tmp_path: Path) -> None:
    world = World(3, split="train")
    finished = train(
        "unet_padded_small",
        world,
        validation=World(1, split="val"),
        out=tmp_path / "run",
        **QUICK,
        multi_label=True,
        class_balance="inverse_frequency",
        mask_threshold=0.3,
        size_weights=True,
        edge_weight=2.0,
    )
    assert "mean_iou" in finished.scores[0].values
    assert "classes may overlap" in finished.scores[0].protocol
    assert finished.report is not None
    assert finished.report.exists()
    model = load(finished.best)
    assert isinstance(model, PixelSystem)
    assert (model.task, model.multi_label, model.mask_threshold) == (MULTI_LABEL_TASK, True, 0.3)
    assert model.class_weights is not None
    assert len(model.class_weights) == len(world.categories)
    (found,) = model.predict(world[0].image)
    assert isinstance(found, Segmentation)
    assert found.class_masks is not None
    assert found.class_masks.shape[0] == len(world.categories)


@pytest.mark.usefixtures("no_drawing")
def test_as_many_channels_as_the_pictures_have(tmp_path: Path) -> None:
    said: list[str] = []
    finished = train("unet_padded_small", Bands(), validation=Bands(), out=tmp_path / "run", say=said.append, **QUICK)
    assert "the pictures have 5 channels: in_channels is 5, unless it was given" in said
    model = load(finished.best)
    assert isinstance(model, PixelSystem)
    assert model.in_channels == 5
    assert finished.scores[0].headline == "mean_iou"


def write_label_masks(folder: Path) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    write_image(folder / "images" / "a.png", torch.zeros(3, 8, 9, dtype=torch.uint8))
    write_map(folder / "labels" / "a.png", torch.arange(72).view(8, 9).to(torch.uint8) % 2)
    (folder / "classes.txt").write_text("ground\ncell\n", encoding="utf-8")
    return folder


def test_label_maps_serve_where_there_are_no_masks(tmp_path: Path) -> None:
    found = open_split(write_label_masks(tmp_path), "all", MULTI_LABEL_TASK)[0].target
    assert found.objects is None
    masks, known = found.class_masks(2)
    assert known.all()
    assert torch.equal(masks[0], ~masks[1])
    assert int(masks[1].sum()) == 36
    with pytest.raises(DataError, match="there is no such"):
        open_split(tmp_path / "nothing", "all", MULTI_LABEL_TASK)


def test_what_is_recognised_says_what_truth_is_read() -> None:
    recipe = recipe_of("unet_padded_small")
    assert recipe.task == "segmentation"
    told = recipe.with_fields({"multi_label": "yes", "test_scales": "0.5,1", "test_flip": "yes", "crf": "none"})
    assert told.task == MULTI_LABEL_TASK
    arguments = told.pictures.arguments()
    assert arguments == {"predict_size": None, "multi_label": True, "test_scales": [0.5, 1.0], "test_flip": True}
    assert recipe.pictures.arguments() == {"predict_size": None}, "what a system does by itself is not said"
