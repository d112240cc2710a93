"""Recipes of DeconvNet: windows of single objects first, then proposals."""

from dataclasses import replace

from bestiary.recipes.recipe import Recipe, Stage
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings

NOTES = {"objects": "windows of one object each", "proposals": "windows around proposals"}


def deconv_net() -> Recipe:
    """The authors' published training on VOC: SGD 0.01 with momentum 0.9, weight decay 5e-4, biases twice as fast and
    not decayed, 64 windows a step; 20,000 steps on objects, the learning rate divided by 10 every 9,000, then 40,000 on
    proposals, every 10,000; mirror images; norms' statistics taken anew before the test.

    Start with `--weights vgg16`. Windows are drawn anew in every step, 4 of each of 16 pictures, where the authors cut
    them beforehand. The paper: 69.6 mean IoU on VOC 2012's test pictures, 71.7 with FCN-8s, 72.5 with the CRF too (not
    run by us).
    """
    common = Settings(
        batch=16,
        lr=0.01,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="step",
        recompute_norms=1000,
        evaluate_every=5,
        workers=2,
    )
    stages = (
        Stage(
            "objects",
            replace(common, epochs=31, steps=20_000, milestones=(9 / 20, 18 / 20)),
            NOTES["objects"],
            is_scored=False,
        ),
        Stage(
            "proposals",
            replace(common, epochs=61, steps=40_000, milestones=(1 / 4, 2 / 4, 3 / 4)),
            NOTES["proposals"],
            is_scored=False,
        ),
    )
    return Recipe("segmentation", common, SegmentationPictures(), "DeconvNet's published solvers, VOC", stages=stages)


def deconv_net_small() -> Recipe:
    """Both stages from random weights, each as the other small labellers are trained: a third of the epochs on objects,
    then two thirds on proposals.

    A window is 96 x 96 whatever the picture's size, so that small pictures lose little.
    """
    plain = from_scratch("cross-entropy of DeconvNet's paper")
    stages = (
        Stage("objects", replace(plain.settings, epochs=14), NOTES["objects"], is_scored=False),
        Stage("proposals", replace(plain.settings, epochs=26, lr=1e-3), NOTES["proposals"]),
    )
    return replace(plain, stages=stages)
