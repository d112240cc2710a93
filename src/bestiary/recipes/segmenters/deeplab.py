"""Recipes of the DeepLabs."""

from dataclasses import replace

from bestiary.heads.atrous_encoder import FIRST, SECOND
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.recipes.segmenters.fcn import fcn_resnet
from bestiary.recipes.segmenters.from_scratch import from_scratch
from bestiary.training.settings import Settings

VOC_PICTURES = 10_582
"""Of VOC 2012's training pictures with the further annotations of SBD, on which the papers train."""


def deeplab_v1() -> Recipe:
    """The paper's (section 4): SGD 0.001, ten times that for the scores, divided by 10 every 2,000 steps; 20 pictures a
    step, momentum 0.9, weight decay 5e-4; of the released solver, 6,000 steps, biases twice as fast and not decayed,
    crops of 321, mirror images.

    Start with `--weights` of a VGG-16. With the CRF the paper reports 70.3 mean IoU on VOC 2012's test set (not run by
    us: it needs VOC and SBD).
    """
    settings = Settings(
        epochs=_epochs(6000, 20),
        steps=6000,
        batch=20,
        lr=1e-3,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        lr_factors=("large_fov.score=10",),
        schedule="step",
        milestones=(1 / 3, 2 / 3),
        workers=2,
    )
    return Recipe("segmentation", settings, SegmentationPictures(crop=321), "DeepLab v1 paper, section 4")


def deeplab_v1_multi_scale() -> Recipe:
    """As `deeplab_v1`, for the side branches alone, as the paper trains them. Start with `--weights` of a trained
    `deeplab_v1`. With the CRF the paper reports 71.6 mean IoU on VOC 2012's test set (not run by us).
    """
    recipe = deeplab_v1()
    settings = replace(recipe.settings, lr_factors=(), lr=1e-2, train_only=("sides",))  # type: ignore[type-var]
    return replace(recipe, settings=settings)


def deeplab_v2() -> Recipe:
    """The paper's for ResNet-101, by the numbers of its best known port: SGD 2.5e-4 over a polynomial of 0.9, ten times
    that for the scores' weights and twenty times for their biases, which are not decayed; 20,000 steps of 10 pictures
    (2 times 5), momentum 0.9, weight decay 5e-4; sizes from half to one and a half, crops of 321, mirror images.

    Start with `--weights` of a ResNet-101; the paper's was trained on COCO too. With the CRF it reports 79.7 mean IoU
    on VOC 2012's test set (not run by us). The authors' solver moves the learning rate every tenth step, here it moves
    every step.
    """
    return _poly_v2(2.5e-4, ("aspp=10",), 5, 2)


def deeplab_v2_vgg16() -> Recipe:
    """The paper's for VGG-16: as `deeplab_v2` with 0.001, the factor for the last layer of each branch alone. Start
    with `--weights` of a VGG-16.
    """
    return _poly_v2(1e-3, tuple(f"aspp.{i}.score=10" for i in range(4)), 10, 1)


def deeplab_v3() -> Recipe:
    """The paper's (section 4.1): two stages of 30,000 steps of 16 pictures over a polynomial of 0.9. In the first batch
    norm learns, at stride 16 and 0.007; in the second it rests, at stride 8 and 0.001. Sizes from half to twice, crops
    of 513, mirror images; weight decay 4e-5 is of the authors' released code.

    Start with `--weights` of the trunk's classifier. The paper reports 85.7 mean IoU on VOC 2012's test set with
    ResNet-101 and COCO (not run by us). Batch norm's running statistics follow by 0.1 a step, as torch has it, where
    the paper's follow by 0.0003; its second stage has VOC's own pictures only.
    """
    first = Settings(
        epochs=_epochs(30_000, 16),
        steps=30_000,
        batch=16,
        lr=0.007,
        weight_decay=4e-5,
        schedule="poly",
        workers=2,
    )
    second = replace(first, lr=0.001)
    stages = (
        Stage(FIRST, first, "all of it, at the stride of training"),
        Stage(SECOND, second, "at stride 8, with batch norm as it is"),
    )
    pictures = SegmentationPictures(scale=(0.5, 2.0), crop=513)
    return Recipe("segmentation", first, pictures, "DeepLab v3 paper, section 4.1", stages=stages)


def deeplab_v3_plus() -> Recipe:
    """v3's, which the paper keeps (section 4). It reports 89.0 mean IoU on VOC 2012's test set, with its Xception and
    more data (not run by us).
    """
    return replace(deeplab_v3(), source="DeepLab v3+ paper, section 4")


def deeplabv3_torchvision() -> Recipe:
    """torchvision's, the same as of its FCN. Start with `--weights resnet50.imagenet1k_v1`. Its publishers: 66.4 mean
    IoU on COCO's validation pictures with ResNet-50, 67.4 with ResNet-101 (not run by us).
    """
    return fcn_resnet()


def deeplab_small() -> Recipe:
    """The small forms, from random weights, all alike."""
    return from_scratch("cross-entropy of DeepLab's papers")


def _poly_v2(lr: float, lr_factors: tuple[str, ...], batch: int, accumulate: int) -> Recipe:
    settings = Settings(
        epochs=_epochs(20_000, batch * accumulate),
        steps=20_000,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        lr_factors=lr_factors,
        schedule="poly",
        workers=2,
    )
    pictures = SegmentationPictures(scale=(0.5, 1.5), crop=321)
    return Recipe("segmentation", settings, pictures, "DeepLab v2 paper, section 4.1")


def _epochs(steps: int, batch: int) -> int:
    """Enough for the steps on the papers' pictures."""
    return -(-steps * batch // VOC_PICTURES) + 1
