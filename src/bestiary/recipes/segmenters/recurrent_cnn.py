"""Recipes of the recurrent network of Pinheiro and Collobert."""

import dataclasses

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def recurrent_cnn() -> Recipe:
    """Plain stochastic gradient descent over windows drawn at random, every round with a loss of its own.

    The paper's learning rate falls by hand; ours, the number of windows a step and of steps are our choice. It reports
    80.2 % of the pixels of the Stanford Background data set (not run by us).
    """
    settings = Settings(
        epochs=200, batch=1, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="cosine", evaluate_every=10, workers=1
    )
    return Recipe("segmentation", settings, SegmentationPictures(), "Pinheiro, Collobert, ICML 2014")


def recurrent_cnn_small() -> Recipe:
    """`from_scratch`, with channels outermost, as `layers.dense_windows` needs them."""
    recipe = from_scratch("Pinheiro, Collobert, ICML 2014")
    return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, channels_last=False))
