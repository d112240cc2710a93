"""Recipes of Fast R-CNN."""

from bestiary.recipes.detection import FROM_SCRATCH, SMALL_PICTURES, DetectionPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def fast_rcnn() -> Recipe:
    """Fast R-CNN's (section 2.3; numbers of the authors' code), from ImageNet's weights.

    SGD 0.001 with momentum 0.9, biases twice as fast and not decayed, decay 5e-4, 40,000 steps of 2 pictures with 64
    regions each, divided by 10 after 30,000; shorter side 600 up to 1,000; mirror images. Start with `--weights` from a
    classifier of the same layers and `--frozen-blocks 2`. The paper: 66.9 mAP on VOC 2007 with VGG-16 (not run by us:
    it needs ImageNet and a GPU).
    """
    settings = Settings(
        epochs=16,
        steps=40_000,
        batch=2,
        lr=0.001,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="step",
        milestones=(30 / 40,),
        evaluate_every=4,
        workers=2,
    )
    pictures = DetectionPictures(short_side=600, longest=1000)
    return Recipe("detection", settings, pictures, "Fast R-CNN paper and code, VOC 2007")


def fast_rcnn_from_scratch() -> Recipe:
    """The small form from random weights: 64 regions of each of 4 pictures, for the sake of batch norm, and one cosine
    from 0.02; shorter side 320.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    return Recipe("detection", FROM_SCRATCH, SMALL_PICTURES, "from scratch on small data: SGD 0.02, cosine")
