"""Recipes of RefineNet."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def refine_net() -> Recipe:
    """From ImageNet's weights (`--weights`, a classifier of the same trunk): random factors, mirror images, and squares
    of 400 pixels as in the authors' demonstration.

    Ours, as the paper's own numbers could not be read: SGD 5e-4 and ten times that for the paths, momentum 0.9, weight
    decay 1e-4, poly with power 0.9 over 100 epochs of 4 pictures a step, factors of 0.7 to 1.3.
    """
    settings = Settings(
        epochs=100,
        batch=4,
        lr=5e-4,
        lr_factors=("paths=10", "classifier=10"),
        schedule="poly",
        workers=1,
    )
    pictures = SegmentationPictures(scale=(0.7, 1.3), crop=400)
    return Recipe("segmentation", settings, pictures, "RefineNet, with our numbers")


def refine_net_small() -> Recipe:
    """`refine_net_resnet18` from random weights."""
    return from_scratch("RefineNet, section 3")
