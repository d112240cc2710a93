"""Recipes of zoom-out features."""

import dataclasses

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def zoom_out() -> Recipe:
    """The perceptron alone learns, with classes weighed by their inverse frequency; start with `--weights` of a VGG-16.

    Optimiser, learning rate and length are ours. The authors report 64.4 mean IoU on VOC 2012's test set (not run by
    us).
    """
    settings = Settings(
        epochs=30,
        batch=4,
        lr=1e-3,
        weight_decay=1e-3,
        schedule="cosine",
        evaluate_every=5,
        workers=2,
    )
    pictures = SegmentationPictures(class_balance="inverse_frequency")
    return Recipe("segmentation", settings, pictures, "Mostajabi et al., CVPR 2015")


def zoom_out_small() -> Recipe:
    """`from_scratch`, all of it."""
    recipe = from_scratch("Mostajabi et al., CVPR 2015")
    pictures = dataclasses.replace(recipe.pictures, class_balance="median_frequency")
    return dataclasses.replace(recipe, pictures=pictures)
