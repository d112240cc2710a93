"""Recipes of Faster R-CNN on one map: jointly, and in the paper's four steps."""

from dataclasses import replace

from bestiary.recipes.detection import FROM_SCRATCH, SMALL_PICTURES, DetectionPictures, faster_rcnn
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.training.settings import Settings

STEPS = (
    ("rpn", ("rpn", "rpn_backbone"), "the proposal network, on a trunk of its own"),
    ("detector", ("backbone", "roi_heads"), "a detector on its proposals, with another trunk"),
    ("shared_rpn", ("rpn",), "the proposal network anew on the detector's trunk, which stays"),
    ("shared_detector", ("roi_heads",), "the box head on its proposals; the trunk stays"),
)
"""The four steps of section 3.2: name, what learns, what for."""


def faster_rcnn_one_map() -> Recipe:
    """The authors' joint training on VOC 2007: SGD 0.001 for 50,000 steps and 0.0001 for 20,000, momentum 0.9, decay
    5e-4, biases twice as fast, one picture a step (256 anchors, 128 regions), shorter side 600, mirror images.

    Start with `--weights` from a classifier of the same trunk, its first blocks frozen (`--frozen-blocks 2`, of ResNet
    `--trainable-layers 3`). The paper: 69.9 mAP with VGG-16 (not run by us: it needs ImageNet's weights and a GPU).
    """
    settings = _published(70_000, 50 / 70)
    pictures = DetectionPictures(short_side=600, longest=1000)
    return Recipe("detection", settings, pictures, "Faster R-CNN, authors' code, joint training on VOC 2007")


def faster_rcnn_4step() -> Recipe:
    """The paper's alternating training (section 3.2, numbers of the authors' code): 80,000, 40,000, 80,000 and 40,000
    steps of one picture, each at 0.001 for three quarters and then at 0.0001; the rest as `faster_rcnn_one_map`.

    Deviation: a step of the detector draws 128 regions from one picture, in the code 64 from each of two.
    """
    pictures = DetectionPictures(short_side=600, longest=1000)
    settings = [_published(steps, 0.75) for steps in (80_000, 40_000, 80_000, 40_000)]
    return _four_steps(settings, pictures, "Faster R-CNN, four-step alternating training on VOC 2007")


def faster_rcnn_small() -> Recipe:
    """The small form from random weights: one cosine from 0.02, batch 4, shorter side 320, trainable batch norm.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    return Recipe("detection", _from_scratch(20), SMALL_PICTURES, "from scratch on small data: SGD 0.02, cosine")


def faster_rcnn_small_4step() -> Recipe:
    """The small form in four steps, each one cosine from 0.02; a random trunk needs most of the time in the second."""
    settings = [_from_scratch(epochs) for epochs in (6, 8, 3, 3)]
    return _four_steps(settings, SMALL_PICTURES, "four-step alternating training, from scratch on small data")


def faster_rcnn_320() -> Recipe:
    """`faster_rcnn` at the 320 pixels of torchvision's small form on MobileNetV3."""
    return replace(faster_rcnn(), pictures=DetectionPictures(short_side=320, longest=640))


def _published(steps: int, milestone: float) -> Settings:
    return Settings(
        epochs=-(-steps // 5011),
        steps=steps,
        batch=1,
        lr=0.001,
        weight_decay=5e-4,
        bias_lr=2.0,
        schedule="step",
        milestones=(milestone,),
        workers=1,
    )


def _from_scratch(epochs: int) -> Settings:
    return replace(FROM_SCRATCH, epochs=epochs, weight_decay=1e-4, evaluate_every=1)


def _four_steps(settings: list[Settings], pictures: DetectionPictures, source: str) -> Recipe:
    stages = tuple(
        Stage(name, replace(of_step, train_only=parts), note, is_scored="rpn" not in name)
        for (name, parts, note), of_step in zip(STEPS, settings, strict=True)
    )
    return Recipe("detection", stages[0].settings, pictures, source, stages=stages)
