"""Recipes of VGG."""

from bestiary.recipes.classification import ClassificationPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def vgg() -> Recipe:
    """VGG as its paper trains it (section 3.1): SGD with momentum 0.9, batch 256, learning rate 0.01 divided by 10
    three times, weight decay 5e-4, dropout 0.5, 74 epochs (370,000 steps); shorter side drawn from 256..512 for each
    picture, a random 224 crop of it, mirror images, and AlexNet's shift of colours.

    The paper stops dividing when the validation score no longer improves; here the three steps stand at fixed places.
    Deviation: batch 32 with the learning rate scaled in proportion, for machines with little memory. Deep nets without
    batch norm start from net A: `bestiary train vgg16 --weights runs/classification/vgg11`. The paper tests with
    `--views dense --view-sides 256,384,512 --view-flip yes`; the default is the centre crop. 25.5 % top-1 error of
    vgg19 on ImageNet, one scale (table 3; not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=74,
        batch=32,
        lr=0.00125,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=(0.5, 0.75, 0.9),
        workers=2,
    )
    pictures = ClassificationPictures(area=None, resize_range=(256, 512), pca_colour=0.1)
    return Recipe("classification", settings, pictures, "VGG paper, section 3.1")


def vgg_batch_norm() -> Recipe:
    """VGG with batch norm, which learns from scratch at any depth: the recipe of `vgg` with a learning rate eight times
    as high, as torchvision trains these forms (0.1 for 256 pictures there is 0.0125 for 32), and a cosine.
    """
    settings = Settings(
        epochs=74,
        batch=32,
        lr=0.0125,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_steps=500,
        workers=2,
    )
    pictures = ClassificationPictures(area=None, resize_range=(256, 512))
    return Recipe("classification", settings, pictures, "VGG paper, section 3.1, with a cosine")


def vgg_small_pictures() -> Recipe:
    """VGG with batch norm for 32x32 pictures: 4 pixels of shift, mirror images, batch 128, a cosine from 0.05, weight
    decay 5e-4, 200 steps of warm-up.

    For `vgg11_bn_cifar`: 0.15 billion multiply-adds a picture. Shorter runs do better without the dropout.
    """
    settings = Settings(
        epochs=40,
        batch=128,
        lr=0.05,
        weight_decay=5e-4,
        optimizer="nesterov",
        schedule="cosine",
        warmup_steps=200,
        channels_last=True,
    )
    pictures = ClassificationPictures(resize=32, crop=32, area=None, shift=4)
    return Recipe("classification", settings, pictures, "usual for CIFAR")


def vgg_from_scratch() -> Recipe:
    """The thin VGG with batch norm from random weights on some thousands of pictures: batch 32, AdamW with a cosine
    from 0.001, weight decay 0.05, gradients clipped to 1, 100 steps of warm-up; crops of 224 pixels, so that its hidden
    layers are those of a fully convolutional net, and of a quarter of the picture at least.

    For `vgg11_bn_half`: 1.9 billion multiply-adds a picture; `--resize 144 --crop 128` takes a third of it. Its hidden
    layers have no batch norm: with SGD at 0.05, as `vgg11_bn_cifar` takes, it stayed at chance for 12 passes over 1,500
    pictures.
    """
    settings = Settings(
        epochs=20,
        batch=32,
        lr=0.001,
        weight_decay=0.05,
        optimizer="adamw",
        schedule="cosine",
        warmup_steps=100,
        clip_norm=1.0,
        channels_last=True,
        workers=1,
    )
    return Recipe("classification", settings, ClassificationPictures(area=(0.25, 1.0)), "from scratch on small data")
