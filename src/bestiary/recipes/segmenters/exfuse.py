"""Recipes of ExFuse."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def exfuse() -> Recipe:
    """All numbers are ours, as the paper's could not be read: SGD 0.1 and a tenth of that for the trunk, momentum 0.9,
    weight decay 1e-4, poly with power 0.9 over 50 epochs of 16 pictures a step; factors of 0.5 to 2, mirror images,
    squares of 512 pixels.

    With `--layer-rearrangement false` a classifier on ResNeXt-101 of the same depths can be the start (`--weights`).
    """
    settings = Settings(
        epochs=50,
        batch=16,
        lr=0.1,
        lr_factors=("backbone=0.1",),
        schedule="poly",
        workers=1,
    )
    pictures = SegmentationPictures(scale=(0.5, 2.0), crop=512)
    return Recipe("segmentation", settings, pictures, "ExFuse, with our numbers")


def exfuse_small() -> Recipe:
    """`exfuse_resnet18` from random weights."""
    return from_scratch("ExFuse, section 3")
