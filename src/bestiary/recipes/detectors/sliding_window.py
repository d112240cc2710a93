"""Recipes of the sliding-window CNN."""

from bestiary.recipes.detection import FROM_SCRATCH, DetectionPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def sliding_window() -> Recipe:
    """The VGG-16 form, from a classifier's weights (`--weights`), by R-CNN's fine-tuning (Girshick et al., CVPR 2014,
    section 2.3): SGD 0.001 for 128 windows a step, a quarter of them objects, momentum 0.9, decay 5e-4.

    OverFeat trained its windows on ImageNet from scratch; its result, 24.3 mAP in ILSVRC 2013 detection after the
    competition, is of other data (not run by us).
    """
    settings = Settings(
        epochs=24,
        batch=4,
        lr=0.001,
        weight_decay=5e-4,
        schedule="step",
        milestones=(2 / 3, 8 / 9),
        warmup_steps=200,
        evaluate_every=4,
        workers=2,
    )
    pictures = DetectionPictures(short_side=480, longest=800)
    return Recipe("detection", settings, pictures, "fine-tuning as R-CNN's, windows as OverFeat's")


def sliding_window_from_scratch() -> Recipe:
    """The small form from random weights: 128 windows of 4 pictures a step, one cosine from 0.02 with batch norm.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    pictures = DetectionPictures(short_side=240, longest=400)
    return Recipe("detection", FROM_SCRATCH, pictures, "from scratch on small data: SGD 0.02, cosine")
