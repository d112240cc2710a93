"""Recipes of the sliding-window pixel classifiers."""

import dataclasses

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def pixel_windows() -> Recipe:
    """Ciresan et al., section 2: plain gradient descent over windows, as many of membrane as of the rest, turned and
    mirrored; the network draws and turns them itself (`--windows`, `--turn`).

    The learning rate, its schedule, the number of windows a step and of steps are ours (the authors train for 30
    passes over 3 million windows).
    """
    settings = Settings(
        epochs=300, batch=1, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="cosine", evaluate_every=10, workers=1
    )
    pictures = SegmentationPictures(flip=0.0)
    return Recipe("segmentation", settings, pictures, "sliding windows, Ciresan et al. 2012, section 2")


def pixel_windows_small() -> Recipe:
    """`from_scratch` on all windows of a picture, without weight decay, and with channels outermost, as
    `layers.dense_windows` needs them.
    """
    recipe = from_scratch("sliding windows")
    settings = dataclasses.replace(recipe.settings, weight_decay=0.0, channels_last=False)
    return dataclasses.replace(recipe, settings=settings)
