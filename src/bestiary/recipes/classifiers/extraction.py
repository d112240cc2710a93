"""Recipe of the classifier that YOLO starts from."""

from bestiary.recipes.classification import ClassificationPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def extraction() -> Recipe:
    """The first twenty convolutions of YOLO on ImageNet at 224 pixels (section 2.2 of its paper: a week, 88 % top-5;
    not run by us).

    The paper gives no numbers. These are Darknet's usual ones for classifiers: momentum 0.9, decay 5e-4, a rate that
    falls with the fourth power of what is left, random crops; the rate is 0.01 for 128 pictures (here in proportion for
    32), which a deep net without batch norm bears. With `--norm true` ten times as much is usual.
    """
    settings = Settings(
        epochs=90,
        batch=32,
        lr=0.0025,
        weight_decay=5e-4,
        schedule="poly",
        poly_power=4.0,
        warmup_steps=1000,
        workers=2,
        channels_last=True,
    )
    pictures = ClassificationPictures(resize=256, crop=224, area=(0.3, 1.0), hue=0.1, saturation=0.33, brightness=0.33)
    return Recipe("classification", settings, pictures, "YOLO paper, section 2.2, with Darknet's usual numbers")
