"""Recipes of Darknet-19."""

from bestiary.recipes.classification import ClassificationPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def darknet() -> Recipe:
    """Darknet-19 as its paper trains it (section 3, "training for classification"), with the numbers of its
    configuration file: SGD from 0.1 for 128 pictures, momentum 0.9, weight decay 5e-4, 1,000 steps of warm-up, the
    rate falling with the fourth power of what is left, 160 epochs; random crops, rotations up to 7 degrees, hue 0.1,
    saturation and exposure 0.75.

    Deviations: the batch is 32 with the learning rate scaled in proportion; saturation and exposure are factors from
    0.57 to 1.43, where Darknet draws a factor up to 1.75 or its inverse; warm-up is a line where Darknet's is a
    fourth power. The paper trains at 224, the configuration file (and this recipe) at 256. 72.9 % top-1 on ImageNet
    (not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=160,
        batch=32,
        lr=0.025,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="poly",
        poly_power=4.0,
        warmup_steps=1000,
        workers=2,
        channels_last=True,
    )
    return Recipe("classification", settings, _pictures(256), "Darknet-19: YOLO9000 paper, section 3")


def darknet_448() -> Recipe:
    """The ten epochs at 448 pixels that follow (section 2, "high resolution classifier"): learning rate 0.001, all else
    as before. Start with `--weights` from a trained `darknet19`.

    76.5 % top-1 on ImageNet (not run by us). Deviation: batch 16 with the learning rate scaled in proportion.
    """
    settings = Settings(
        epochs=10,
        batch=16,
        lr=0.000125,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="poly",
        poly_power=4.0,
        workers=2,
        channels_last=True,
    )
    return Recipe("classification", settings, _pictures(448), "Darknet-19: YOLO9000 paper, section 2")


def darknet_small_pictures() -> Recipe:
    """Darknet-19 for 32x32 pictures: 4 pixels of shift, mirror images, batch 128, a cosine from 0.1, weight decay 5e-4,
    100 steps of warm-up.

    For `darknet19_cifar`: 0.13 billion multiply-adds a picture.
    """
    settings = Settings(
        epochs=40,
        batch=128,
        lr=0.1,
        weight_decay=5e-4,
        optimizer="nesterov",
        schedule="cosine",
        warmup_steps=100,
        channels_last=True,
    )
    pictures = ClassificationPictures(resize=32, crop=32, area=None, shift=4)
    return Recipe("classification", settings, pictures, "usual for CIFAR")


def _pictures(side: int) -> ClassificationPictures:
    return ClassificationPictures(
        resize=side,
        crop=side,
        area=(0.3, 1.0),
        turn=7.0,
        hue=0.1,
        saturation=0.43,
        brightness=0.43,
    )
