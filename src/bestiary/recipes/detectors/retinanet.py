"""Recipes of RetinaNet."""

from dataclasses import replace

from bestiary.recipes.detection import FROM_SCRATCH, SMALL_PICTURES, DetectionPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def retinanet() -> Recipe:
    """The paper's training on COCO (section 4.1), from ImageNet's weights.

    SGD 0.01 for 16 pictures a step (here 0.0025 for 4), momentum 0.9, weight decay 1e-4, divided by 10 at 60,000 and
    80,000 of 90,000 steps, that is 12 epochs, after 500 steps of warm-up; shorter side 800, mirror images. Start with
    `--weights` from a classifier of the same trunk and `--trainable-layers 3`. Detectron: 35.7 AP with ResNet-50 (not
    run by us: it needs COCO and days of GPUs).
    """
    settings = Settings(
        epochs=12,
        batch=4,
        lr=0.0025,
        schedule="step",
        milestones=(60 / 90, 80 / 90),
        warmup_steps=500,
        workers=1,
    )
    return Recipe("detection", settings, DetectionPictures(), "RetinaNet, section 4.1, COCO")


def retinanet_from_scratch() -> Recipe:
    """The forms with norms everywhere from random weights: 4 pictures a step, one cosine from 0.01; shorter side 320.

    Steps as large as the two-stage detectors' are too large for the subnets' small first parameters, so that the
    gradient is cut at 10. The number of epochs suits some hundreds of pictures and two cores.
    """
    settings = replace(FROM_SCRATCH, epochs=24, lr=0.01, weight_decay=1e-4, warmup_steps=100, clip_norm=10.0)
    return Recipe("detection", settings, SMALL_PICTURES, "from scratch on small data: SGD 0.01, cosine")
