"""Recipes of PSPNet."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def psp_net() -> Recipe:
    """The paper's training (section 5.1) with the numbers of the authors' code for VOC.

    SGD 0.01 and ten times that for all behind the trunk, momentum 0.9, weight decay 1e-4, poly with power 0.9 over 50
    epochs of 16 pictures a step; factors of 0.5 to 2, rotations up to 10 degrees, mirror images, squares of 473 pixels
    (713 for Cityscapes: `--crop 713`). Ours: no Gaussian blur, and batch norm is not synchronised. Start with
    `--weights` of the authors' file, or of a classifier.

    Their test is `--test-window 473`, two thirds of which is the step, with `--test-scales 0.5,0.75,1,1.25,1.5,1.75`
    and `--test-flip` for the last percent.
    """
    settings = Settings(
        epochs=50,
        batch=16,
        lr=0.01,
        lr_factors=("ppm=10", "cls=10", "aux=10"),
        schedule="poly",
        workers=1,
    )
    pictures = SegmentationPictures(scale=(0.5, 2.0), rotate=10.0, crop=473)
    return Recipe("segmentation", settings, pictures, "PSPNet, section 5.1, the authors' code for VOC")


def psp_net_small() -> Recipe:
    """`psp_net_resnet18` from random weights."""
    return from_scratch("PSPNet, section 3.3")
