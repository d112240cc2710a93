"""Recipes of the first deep classifiers: AlexNet, ZFNet and GoogLeNet."""

from dataclasses import replace

from bestiary.recipes.classification import ClassificationPictures, resnet_small_pictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings

DIVIDED_THREE_TIMES = (1 / 3, 2 / 3, 8 / 9)
"""Where the learning rate falls, as shares of a run."""

SMALL_BIAS = 0.1
"""Start of the biases of AlexNet that are not 0."""


def alexnet() -> Recipe:
    """AlexNet as its paper trains it (sections 4.1 and 5): SGD 0.01 with momentum 0.9, batch 128, weight decay 5e-4, 90
    epochs; shorter side 256, random crops, mirror images, colours shifted along the principal ones with deviation 0.1.

    For torchvision's form, whose crops are of 224. Deviations: the learning rate, which the authors divided by 10 three
    times, each time the validation error stood still, is divided after 1/3, 2/3 and 8/9 of the run; the middle 256x256
    pixels are not cut out before the random crop. The paper's 40.7 % top-1 error needs ImageNet, and was not run by us.
    """
    return _like_alexnet(224, 90, "AlexNet paper, sections 4.1 and 5")


def alexnet_2012() -> Recipe:
    """As `alexnet`, with the crops of 227 that give the paper's maps. For `alexnet_2012`.

    Deviation: the biases that the paper starts from 1 start from 0.1, as in its replication for Caffe; with 1 the loss
    stood still there, and in a trial of ours of 40 steps on 64 pictures.
    """
    recipe = _like_alexnet(227, 90, "AlexNet paper, sections 4.1 and 5")
    return replace(recipe, arguments={"bias": SMALL_BIAS})


def caffenet() -> Recipe:
    """CaffeNet as Caffe's solver trains it: SGD 0.01 with momentum 0.9, batch 256, weight decay 5e-4, the learning rate
    divided by 10 every 100,000 of 450,000 steps (90 epochs of ImageNet); biases learn at twice the rate and are not
    decayed; random 227x227 crops and mirror images, colours as they are.

    The 256 are two batches of 128 whose gradients are added. Deviations: pictures are resized by their shorter side to
    256, not squeezed to 256x256; biases start as in `alexnet_2012`. Not run by us.
    """
    settings = Settings(
        epochs=90,
        batch=128,
        accumulate=2,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="step",
        milestones=(2 / 9, 4 / 9, 6 / 9, 8 / 9),
        workers=2,
    )
    pictures = ClassificationPictures(crop=227, area=None)
    return Recipe("classification", settings, pictures, "Caffe's solver of CaffeNet", arguments={"bias": SMALL_BIAS})


def zfnet() -> Recipe:
    """ZFNet as its paper trains it (section 3): SGD 0.01 with momentum 0.9, batch 128, 70 epochs, crops of 224 out of
    pictures with a shorter side of 256, mirror images. Its bound on the filters is an argument of the network.

    Deviations: the learning rate, annealed by hand when the validation error stood still, falls as in `alexnet`; crops
    are drawn at random, not from the four corners and the middle; weight decay and colours, which the paper leaves to
    the implementation of AlexNet's that it used, are those of `alexnet`. The paper's 38.4 % top-1 error needs ImageNet,
    and was not run by us.
    """
    return _like_alexnet(224, 70, "ZFNet paper, section 3")


def _like_alexnet(crop: int, epochs: int, source: str) -> Recipe:
    settings = Settings(
        epochs=epochs,
        batch=128,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=DIVIDED_THREE_TIMES,
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(crop=crop, area=None, pca_colour=0.1), source)


def googlenet_2014() -> Recipe:
    """GoogLeNet as its paper trains it (section 6): SGD with momentum 0.9, the learning rate falling by 4 % every 8
    epochs, an average of the weights (Polyak) for prediction, crops of 8 to 100 % of the picture with aspects from 3/4
    to 4/3, and photometric distortions.

    Not told by the paper: the learning rate of 0.01, batches of 32, weight decay 2e-4 and 250 epochs are those of its
    replication for Caffe. Deviations: the steps of 4 % are shares of the run, so that a shorter one falls as far (to
    28 %); the average is exponential; the distortions are brightness, contrast and saturation of Howard (2013), half
    to one and a half times; one process. The paper's 10.07 % top-5 error needs ImageNet, and was not run by us.
    """
    epochs = 250
    settings = Settings(
        epochs=epochs,
        batch=32,
        lr=0.01,
        momentum=0.9,
        weight_decay=2e-4,
        schedule="step",
        milestones=tuple(done / epochs for done in range(8, epochs, 8)),
        gamma=0.96,
        ema=0.9999,
        workers=2,
    )
    pictures = ClassificationPictures(brightness=0.5, contrast=0.5, saturation=0.5)
    return Recipe("classification", settings, pictures, "GoogLeNet paper, section 6")


def googlenet() -> Recipe:
    """GoogLeNet in 60 epochs, by the quick solver of its replication for Caffe: SGD 0.01 with momentum 0.9, batch 32,
    weight decay 2e-4, the learning rate falling as the square root of what remains of the run; crops as the paper's.

    For torchvision's form, whose file was converted from another library and has no recipe of its own. The replication
    reports 68.7 % top-1 (centre crop, without batch norm); not run by us.
    """
    settings = Settings(
        epochs=60,
        batch=32,
        lr=0.01,
        momentum=0.9,
        weight_decay=2e-4,
        schedule="poly",
        poly_power=0.5,
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(), "Caffe's quick solver of GoogLeNet")


def small_pictures() -> Recipe:
    """AlexNet and ZFNet for 32x32 pictures: as ResNet for such, `resnet_small_pictures`, but 200 steps of warm-up to
    a fifth of its learning rate, as they have no batch norm. Of no paper.
    """
    return resnet_small_pictures().with_fields({"lr": 0.02, "warmup_steps": 200})


def googlenet_small_pictures() -> Recipe:
    """GoogLeNet with batch norm for 32x32 pictures: as ResNet for such, `resnet_small_pictures`. Of no paper."""
    return replace(resnet_small_pictures(), source="ResNet's for 32x32 pictures")
