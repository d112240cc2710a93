"""Recipes of SegNet."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings

CAMVID_TRAIN = 367
"""Pictures of CamVid to learn from, over which the authors' numbers of steps are laid."""


def segnet() -> Recipe:
    """The authors' published training on CamVid: SGD 0.001 that stays, momentum 0.9, 4 pictures of 480 x 360 a step,
    weight decay 5e-4, biases twice as fast and not decayed, 40,000 steps; cross-entropy with each class weighted by
    median frequency balancing; norms' statistics taken anew before the test. Pictures as they are.

    Start with `--weights vgg16_bn`. The weights are counted on your training pictures. (The authors' file has eleven
    numbers for CamVid; counted with "void" as a twelfth class, ten of them come out within a tenth, and that of signs
    is 2.7 times ours: their labels of signs were others.) The paper: 60.1 mean IoU (not run by us).
    """
    return _published(0.001, 40_000)


def segnet_basic() -> Recipe:
    """As `segnet`, at 0.1 over 10,000 steps, from random weights: the authors' files; the paper has 12 pictures a
    step.
    """
    return _published(0.1, 10_000)


def segnet_small() -> Recipe:
    """The small forms from random weights, as all small labellers; `--class-balance median_frequency` balances the
    classes as the paper does.
    """
    return from_scratch("cross-entropy of SegNet's paper")


def _published(lr: float, steps: int) -> Recipe:
    settings = Settings(
        epochs=-(-steps * 4 // CAMVID_TRAIN),
        steps=steps,
        batch=4,
        lr=lr,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="constant",
        recompute_norms=CAMVID_TRAIN,
        evaluate_every=5,
        workers=1,
    )
    pictures = SegmentationPictures(flip=0.0, class_balance="median_frequency")
    return Recipe("segmentation", settings, pictures, "SegNet's published solver, CamVid")
