"""Recipes of the compact classifiers: SqueezeNet, SqueezeNext, MobileNet and ShuffleNet."""

import dataclasses

from bestiary.recipes.classification import ClassificationPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def squeezenet() -> Recipe:
    """SqueezeNet as its authors' released solver trains it: SGD 0.04 with momentum 0.9, falling in a line to 0 over
    170,000 steps of 512 pictures (68 epochs of ImageNet), weight decay 2e-4, random 227x227 crops and mirror images.

    The 512 are 16 batches of 32 whose gradients are added, as in the release. For a few thousand pictures these are too
    few steps: `--accumulate 1 --optimizer adamw --lr 0.0003 --clip-norm 1` then. Deviations: pictures are resized by
    their shorter side to 256, not squeezed to 256x256; channels are normalised by torchvision's mean and deviation, not
    by Caffe's mean alone.
    """
    settings = Settings(
        epochs=68,
        batch=32,
        accumulate=16,
        lr=0.04,
        momentum=0.9,
        weight_decay=2e-4,
        schedule="poly",
        poly_power=1.0,
        channels_last=True,
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(crop=227, area=None), "the release's solver")


def squeezenext() -> Recipe:
    """SqueezeNext as its authors' released solver trains it: SGD 0.4 with momentum 0.9, falling as (1 - t)^2 over
    150,000 steps of 1,024 pictures (120 epochs of ImageNet) after 780 steps of warm-up from 0.1, weight decay 1e-4,
    random 227x227 crops and mirror images.

    Deviations: batches of 32 with the learning rate in proportion (0.0125), 500 steps of warm-up; pictures and
    normalisation as in the recipe of SqueezeNet.
    """
    settings = Settings(
        epochs=120,
        batch=32,
        lr=0.0125,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="poly",
        poly_power=2.0,
        warmup_steps=500,
        warmup_factor=0.25,
        channels_last=True,
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(crop=227, area=None), "the release's solver")


def mobilenet_v1() -> Recipe:
    """MobileNet as its paper trains it (section 4): RMSprop as for Inception V3 (decay and momentum 0.9, learning rate
    0.045 times 0.94 every two epochs), little augmentation, and hardly any weight decay on the depthwise filters, as
    they hold so few numbers.

    Deviations: that RMSprop adds 1 to the running square before the root; here it is the usual small epsilon, for which
    the learning rate is 2e-4; one cosine; batches of 32 of one process instead of several asynchronous ones; weight
    decay 4e-5, on the depthwise filters too, but not on norms and biases; random crops cover a quarter of the picture
    or more.
    """
    return Recipe(
        "classification", _rmsprop(100, 4e-5), ClassificationPictures(area=(0.25, 1.0)), "MobileNet paper, section 4"
    )


def mobilenet_v2() -> Recipe:
    """MobileNetV2 as its paper trains it (section 6.1): RMSprop with decay and momentum 0.9, learning rate 0.045 times
    0.98 an epoch, weight decay 4e-5, batches of 96 on each of 16 processors.

    Deviations: epsilon, learning rate and batch as in `mobilenet_v1`; one cosine over 300 epochs in place of the factor
    an epoch; weight decay not on norms and biases.
    """
    return Recipe("classification", _rmsprop(300, 4e-5), ClassificationPictures(), "MobileNetV2 paper, section 6.1")


def mobilenet_v3() -> Recipe:
    """MobileNetV3 as its paper trains it (section 6.1.1): RMSprop with momentum 0.9, learning rate 0.1 for batches of
    4,096 falling by 0.01 of itself every 3 epochs, weight decay 1e-5, dropout 0.2, average of the weights with decay
    0.9999.

    Deviations: epsilon, learning rate and batch as in `mobilenet_v1`; one cosine over 300 epochs in place of the steps;
    weight decay not on norms and biases. torchvision's files come from RMSprop 0.064 at batches of 1,024 and 600 epochs
    with learned augmentation and random erasing.
    """
    settings = dataclasses.replace(_rmsprop(300, 1e-5), ema=0.9999)
    return Recipe("classification", settings, ClassificationPictures(), "MobileNetV3 paper, section 6.1.1")


def _rmsprop(epochs: int, weight_decay: float) -> Settings:
    return Settings(
        epochs=epochs,
        batch=32,
        optimizer="rmsprop",
        lr=2e-4,
        momentum=0.9,
        betas=(0.9, 0.9),
        weight_decay=weight_decay,
        decay_norms=False,
        warmup_steps=500,
        channels_last=True,
        workers=2,
    )


def shufflenet() -> Recipe:
    """ShuffleNet as its paper trains it (section 4), and V2 as it is: SGD with the learning rate falling in a line from
    0.5 to 0 over 300,000 steps of 1,024 pictures (240 epochs of ImageNet), weight decay 4e-5, less scale augmentation.

    Deviations: batches of 32 with the learning rate in proportion (0.0156); weight decay not on norms and biases, as in
    the authors' release; random crops cover a quarter of the picture or more.
    """
    settings = Settings(
        epochs=240,
        batch=32,
        lr=0.5 * 32 / 1024,
        momentum=0.9,
        weight_decay=4e-5,
        decay_norms=False,
        schedule="poly",
        poly_power=1.0,
        warmup_steps=500,
        channels_last=True,
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(area=(0.25, 1.0)), "ShuffleNet paper, section 4")


def small_pictures() -> Recipe:
    """The nets of depthwise convolutions on 32x32 pictures: 4 pixels of shift, mirror images, batch 128, AdamW 2e-3
    with one cosine after 100 steps of warm-up, weight decay 0.05. No paper's: none of them trains on CIFAR.

    AdamW, as depthwise filters, of nine numbers each, are turned by large angles at the learning rates that suit the
    1x1 convolutions: with SGD the loss rises above where it began before it falls. In 32 bits, as processors without a
    GPU are slower at depthwise convolutions in 16.
    """
    return Recipe("classification", dataclasses.replace(_SMALL, precision="fp32"), _SMALL_PICTURES)


def squeezenext_small_pictures() -> Recipe:
    """SqueezeNext on 32x32 pictures: as `small_pictures`, in 16 bits where the processor has them, which is faster for
    its full convolutions.
    """
    return Recipe("classification", _SMALL, _SMALL_PICTURES)


def squeezenet_small_pictures() -> Recipe:
    """SqueezeNet, which has no norms, on 32x32 pictures: as `squeezenext_small_pictures`, with a learning rate of 5e-4,
    200 steps of warm-up and gradients cut to length 1. Not its paper's, which trains on ImageNet only.

    Its solver's SGD 0.04 kills the net with ten classes within 40 steps: once no logit is above 0 the ReLU after the
    last convolution lets no gradient through, and the loss stays at log 10.
    """
    settings = dataclasses.replace(_SMALL, lr=5e-4, warmup_steps=200, clip_norm=1.0)
    return Recipe("classification", settings, _SMALL_PICTURES)


_SMALL = Settings(
    epochs=30,
    batch=128,
    optimizer="adamw",
    lr=2e-3,
    weight_decay=0.05,
    decay_norms=False,
    schedule="cosine",
    warmup_steps=100,
    channels_last=True,
)
_SMALL_PICTURES = ClassificationPictures(resize=32, crop=32, area=None, shift=4)
