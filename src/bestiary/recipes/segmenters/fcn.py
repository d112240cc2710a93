"""Recipes of the fully convolutional networks."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings


def fcn32s() -> Recipe:
    """The authors' published training of FCN-32s: one picture a step, the summed cross-entropy, momentum 0.99, a
    learning rate of 1e-10 that stays, weight decay 5e-4, biases twice as fast and not decayed, 100,000 steps; whole
    pictures as they are.

    Start with `--weights` of a VGG-16: a Caffe file, or any other with `--pixels imagenet`. The authors: 63.6 mean IoU
    on 736 pictures of VOC 2011 from SBD's 8,498 (not run by us). With `--train-only score_fr` it is the paper's
    "32s-fixed": 45.4 for 59.4.
    """
    return _heavy(1e-10, 100_000)


def fcn16s() -> Recipe:
    """As `fcn32s`, at 1e-12: start with `--weights` of an FCN-32s. The authors: 65.0 (not run by us)."""
    return _heavy(1e-12, 100_000)


def fcn8s() -> Recipe:
    """As `fcn32s`, at 1e-14: start with `--weights` of an FCN-16s. The authors: 65.5 (not run by us)."""
    return _heavy(1e-14, 100_000)


def fcn8s_at_once() -> Recipe:
    """As `fcn32s` with 300,000 steps, from the classifier. The authors: 65.4 (not run by us)."""
    return _heavy(1e-10, 300_000)


def fcn_small() -> Recipe:
    """The small forms from random weights, all alike."""
    return from_scratch("cross-entropy of FCN's paper")


def fcn_resnet() -> Recipe:
    """torchvision's published training: SGD 0.02 with momentum 0.9 over a polynomial of 0.9, weight decay 1e-4, the
    auxiliary classifier ten times as fast, 30 epochs of COCO's pictures with VOC's classes, 32 a step; the shorter side
    drawn from half to twice 520 pixels, crops of 480, mirror images.

    Start with `--weights resnet50.imagenet1k_v1`. Its publishers: 60.5 mean IoU on COCO's validation pictures (not run
    by us). Here a step has 8 pictures and the learning rate is a quarter, for machines with less memory.
    """
    settings = Settings(
        epochs=30,
        batch=8,
        lr=0.005,
        weight_decay=1e-4,
        schedule="poly",
        lr_factors=("aux_classifier=10",),
        workers=2,
    )
    pictures = SegmentationPictures(short_side=520, scale=(0.5, 2.0), crop=480)
    return Recipe("segmentation", settings, pictures, "torchvision, COCO with VOC's classes")


def fcn_resnet_small() -> Recipe:
    """The small form from random weights."""
    return from_scratch("cross-entropy of torchvision's FCN")


def _heavy(lr: float, steps: int) -> Recipe:
    settings = Settings(
        epochs=-(-steps // 8498),
        steps=steps,
        batch=1,
        lr=lr,
        momentum=0.99,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="constant",
        precision="fp32",
        workers=1,
    )
    return Recipe("segmentation", settings, SegmentationPictures(flip=0.0), "FCN's published solver, VOC")
