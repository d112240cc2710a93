"""Recipes of DFN."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def dfn() -> Recipe:
    """With the numbers of the first author's public code for VOC, from ImageNet's weights.

    SGD 0.001 and ten times that for both networks behind the trunk, momentum 0.9, weight decay 1e-5 on all but biases
    and norms, poly with power 0.9 over 120 epochs of 32 pictures a step (here 8, four of whose gradients make a step);
    factors of 0.5 to 2, mirror images, squares of 512 pixels. Ours: a factor is any number of that range, where the
    code draws one of six. Its test is `--test-window 512`.
    """
    settings = Settings(
        epochs=120,
        batch=8,
        accumulate=4,
        lr=1e-3,
        lr_factors=("smooth=10", "border=10"),
        weight_decay=1e-5,
        decay_norms=False,
        schedule="poly",
        workers=1,
    )
    pictures = SegmentationPictures(scale=(0.5, 2.0), crop=512)
    return Recipe("segmentation", settings, pictures, "DFN, the first author's code for VOC")


def dfn_small() -> Recipe:
    """`dfn_resnet18` from random weights."""
    return from_scratch("DFN, sections 3.1 and 3.2")
