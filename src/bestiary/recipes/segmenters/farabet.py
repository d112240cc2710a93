"""Recipes of Farabet et al.'s multi-scale network."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def farabet() -> Recipe:
    """Stochastic gradient descent over jittered pictures: mirror images, turns of up to 8 degrees, sizes of 0.9 to 1.1.

    The authors draw pixels of each class equally often, or as they come; `--class-balance inverse_frequency` weighs
    them as the first does on average. Learning rate, schedule and length are ours. They report 81.4 % of the pixels of
    the Stanford Background data set with their best cover (not run by us).
    """
    settings = Settings(
        epochs=200, batch=1, lr=0.01, momentum=0.9, weight_decay=1e-5, schedule="cosine", evaluate_every=10, workers=1
    )
    pictures = SegmentationPictures(scale=(0.9, 1.1), rotate=8.0)
    return Recipe("segmentation", settings, pictures, "Farabet et al., PAMI 2013")


def farabet_small() -> Recipe:
    """`from_scratch`."""
    return from_scratch("Farabet et al., PAMI 2013")
