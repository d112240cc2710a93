"""Recipes of the labellers before FCN, and the small U-Net's."""

import pytest
import torch

from bestiary import zoo
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.records import Target
from bestiary.training.settings import Settings

SMALL = ("pixel_windows_small", "farabet_small", "recurrent_cnn_small", "zoom_out_small")


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_finite_as_the_recipe_trains(name: str) -> None:
    settings = zoo.recipe_of(name).settings
    assert isinstance(settings, Settings)
    torch.manual_seed(0)
    system = zoo.build(name, ("a", "b", "c")).train()
    images = torch.rand(2, 3, 24, 32)
    if settings.channels_last:
        system, images = system.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    targets = [Target(label_map=(image[0] * 3).to(torch.uint8)) for image in images]
    with torch.autocast("cpu", torch.bfloat16):
        loss = system.loss(images, targets).total
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in system.parameters())


def test_fields_of_the_networks_are_flags() -> None:
    recipe = zoo.recipe_of("pixel_windows").with_fields({"windows": "64", "sampling": "natural", "turn": "false"})
    assert recipe.arguments == {"windows": 64, "sampling": "natural", "turn": False}
    assert zoo.recipe_of("pixel_windows").with_fields({"windows": "none"}).arguments == {"windows": None}
    assert zoo.recipe_of("recurrent_cnn").with_fields({"step": "1", "rounds": "3"}).arguments == {
        "step": 1,
        "rounds": 3,
    }


def test_zoom_out_weighs_classes_by_their_inverse_frequency() -> None:
    pictures = zoo.recipe_of("zoom_out").pictures
    assert isinstance(pictures, SegmentationPictures)
    assert pictures.arguments()["class_balance"] == "inverse_frequency"


def test_the_small_unet_sees_what_the_papers_does() -> None:
    pictures = zoo.recipe_of("unet_small").pictures
    assert pictures == zoo.recipe_of("unet").pictures
    assert (pictures.elastic, pictures.border_weights) == (10.0, True)
    assert pictures.brightness > 0
