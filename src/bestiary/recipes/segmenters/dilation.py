"""Recipes of dilated convolutions: the front end, then the context module on top of it, then both."""

from dataclasses import replace

from bestiary.recipes.recipe import Recipe, Stage
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings

VOC_TRAIN = 10_582
"""VOC 2012's training pictures with those of SBD, over which the paper's numbers of steps are laid."""

NOTES = {
    "front_end": "class scores, past the context module",
    "context": "the context module on scores that stay",
    "joint": "both together",
}


def dilation() -> Recipe:
    """The paper's on VOC (sections 4 and 5; numbers it leaves open are those of the authors' code): SGD with momentum
    0.9, weight decay 5e-4, biases twice as fast and not decayed. Front end: 60,000 steps of 14 pictures at 0.001.
    Context module: 0.001, 60 pictures. Both: 1e-5, 14 pictures.

    Start with `--weights vgg16`. 14 pictures are 2 of 7 batches here, and the last two stages have 10,000 steps each,
    which the paper does not say. Pictures are mirrored around as they are; the authors crop 500 x 500 with what is
    around. The paper: 67.6 mean IoU on VOC 2012's test pictures of the front end alone, 69.8 on its validation
    pictures with COCO's to learn from, 71.3 with the basic module and 72.1 with the large one (not run by us).
    """
    common = _sgd()
    stages = (
        Stage("front_end", _steps(common, 60_000, lr=1e-3), NOTES["front_end"]),
        Stage(
            "context",
            replace(_steps(replace(common, accumulate=30), 10_000, lr=1e-3), train_only=("context",)),
            NOTES["context"],
        ),
        Stage("joint", _steps(common, 10_000, lr=1e-5), NOTES["joint"]),
    )
    return Recipe("segmentation", common, SegmentationPictures(), "Yu and Koltun, VOC", stages=stages)


def dilation_front_end() -> Recipe:
    """The first stage of `dilation`, for the front end alone."""
    return Recipe("segmentation", _steps(_sgd(), 60_000, lr=1e-3), SegmentationPictures(), "Yu and Koltun, VOC")


def dilation_city() -> Recipe:
    """The paper's for street scenes (appendix A.3): front end 40,000 steps of 8 crops at 1e-4, context module 24,000 of
    100 whole pictures at 1e-4, both 60,000 of one half picture at 1e-5; momentum 0.99.

    A crop's output has 256 x 256 pixels, a half picture's 1,024 x 1,024; here all three stages crop 512 x 512. The
    paper: 67.1 mean IoU on the test pictures of Cityscapes (not run by us).
    """
    common = replace(_sgd(), momentum=0.99)
    stages = (
        Stage("front_end", _steps(replace(common, accumulate=4), 40_000, 1e-4, 2975), NOTES["front_end"]),
        Stage(
            "context",
            replace(_steps(replace(common, accumulate=50), 24_000, 1e-4, 2975), train_only=("context",)),
            NOTES["context"],
        ),
        Stage("joint", _steps(replace(common, batch=1, accumulate=1), 60_000, 1e-5, 2975), NOTES["joint"]),
    )
    pictures = SegmentationPictures(crop=512)
    return Recipe("segmentation", common, pictures, "Yu and Koltun, Cityscapes", stages=stages)


def dilation_small() -> Recipe:
    """The three stages from random weights: the front end as the other small labellers are trained, the context module
    and both together for a few epochs at less.
    """
    plain = from_scratch("cross-entropy of Yu and Koltun's paper")
    stages = (
        Stage("front_end", replace(plain.settings, epochs=28), NOTES["front_end"]),
        Stage("context", replace(plain.settings, epochs=4, lr=1e-3, train_only=("context",)), NOTES["context"]),
        Stage("joint", replace(plain.settings, epochs=8, lr=5e-4), NOTES["joint"]),
    )
    return replace(plain, stages=stages)


def _sgd() -> Settings:
    return Settings(
        batch=2,
        accumulate=7,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="constant",
        workers=2,
    )


def _steps(settings: Settings, steps: int, lr: float, pictures: int = VOC_TRAIN) -> Settings:
    """So many steps, in as many epochs as they are of so many pictures."""
    seen = steps * settings.batch * settings.accumulate
    return replace(settings, steps=steps, epochs=-(-seen // pictures), lr=lr)
