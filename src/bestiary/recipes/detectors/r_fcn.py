"""Recipes of R-FCN."""

from bestiary.recipes.detection import FROM_SCRATCH, SMALL_PICTURES, DetectionPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def r_fcn() -> Recipe:
    """R-FCN's joint training with hard examples (numbers of the authors' code), from ImageNet's weights.

    SGD 0.001 with momentum 0.9, biases twice as fast, decay 5e-4, 110,000 steps of 2 pictures one after the other,
    divided by 10 after 80,000; shorter side 600 up to 1,000; mirror images. Start with `--weights` from a classifier of
    the same ResNet and `--trainable-layers 3`: stem and conv2 stay. The authors' code: 79.4 mAP on VOC 2007 with
    ResNet-101 and VOC 2007 + 2012 (not run by us: it needs ImageNet and a GPU).
    """
    settings = Settings(
        epochs=14,
        steps=110_000,
        batch=1,
        accumulate=2,
        lr=0.001,
        weight_decay=5e-4,
        bias_lr=2.0,
        schedule="step",
        milestones=(8 / 11,),
        evaluate_every=2,
        workers=2,
    )
    pictures = DetectionPictures(short_side=600, longest=1000)
    return Recipe("detection", settings, pictures, "R-FCN's code with OHEM, VOC 2007 + 2012")


def r_fcn_from_scratch() -> Recipe:
    """The forms with batch norm from random weights: 4 pictures a step, one cosine from 0.02; shorter side 320.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    return Recipe("detection", FROM_SCRATCH, SMALL_PICTURES, "from scratch on small data: SGD 0.02, cosine")
