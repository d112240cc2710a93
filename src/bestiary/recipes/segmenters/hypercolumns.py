"""Recipes of hypercolumns."""

from dataclasses import replace

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def hypercolumns() -> Recipe:
    """From a trained VGG-16 (`--weights vgg16.imagenet1k_v1`): SGD 0.001 with momentum 0.9, the classifiers ten times
    as fast, 20,000 steps of 4 pictures over a polynomial of 0.9.

    Pictures come whole and one by one, as the grid of classifiers lies over all that the network sees at once. The
    paper's task is another, boxes that a detector found, so all numbers are ours.
    """
    settings = Settings(
        epochs=60,
        steps=20_000,
        batch=1,
        accumulate=4,
        lr=0.001,
        weight_decay=5e-4,
        schedule="poly",
        lr_factors=("scores=10",),
        workers=2,
    )
    return Recipe("segmentation", settings, SegmentationPictures(), "ours: fine-tuned from a classifier")


def hypercolumns_small() -> Recipe:
    """The small form from random weights, as the other small forms, but with pictures of one size (`hypercolumns`)."""
    recipe = from_scratch("cross-entropy of the classifiers of each cell")
    return replace(recipe, pictures=replace(recipe.pictures, scale=None))
