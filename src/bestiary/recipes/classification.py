"""Recipes of the classifiers."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings
from bestiary.transforms.colour import PCAColour
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomCrop, RandomResizedCrop
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import ResizeShortSide


@dataclass(frozen=True)
class ClassificationPictures(ColourFields):
    """What happens to pictures that have one class each.

    Attributes:
        resize: shorter side before the centre crop of prediction.
        crop: side of the square that the network sees.
        area: share of the picture that a random crop covers, smallest and largest; none for no random scale.
        aspect: width over height of a random crop, smallest and largest.
        shift: instead of a random scale: pad by so many pixels and crop back at a random place.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image.
        pca_colour: standard deviation of AlexNet's colour shift along the principal colours; 0.1 in its paper.
        label_smoothing: share of the target spread over all classes.
    """

    resize: int = 256
    crop: int = 224
    area: tuple[float, float] | None = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 0
    flip: float = 0.5
    vertical_flip: float = 0.0
    pca_colour: float = 0.0
    label_smoothing: float = 0.0

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Random crop, mirror image, colours."""
        size = (self.crop, self.crop)
        steps: list[Transform]
        if self.area is None:
            steps = [ResizeShortSide(self.resize), RandomCrop(size, pad=self.shift)]
        else:
            steps = [RandomResizedCrop(size, self.area, self.aspect)]
        steps += [RandomHorizontalFlip(self.flip), RandomVerticalFlip(self.vertical_flip)]
        steps += self.colour_steps()
        if self.pca_colour:
            steps.append(PCAColour(self.pca_colour))
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at."""
        return {"resize": self.resize, "crop": self.crop, "label_smoothing": self.label_smoothing}


def resnet() -> Recipe:
    """ResNet as its paper trains it (section 3.4): SGD 0.1 with momentum 0.9, divided by 10 twice, weight decay 1e-4,
    batch 256.

    The paper: 60e4 steps of 256 pictures, shorter side drawn from 256..480, colour as AlexNet. Deviations: random
    crops are of the Inception kind, as every public reimplementation has it; the batch is 32 with the learning rate
    scaled in proportion (0.0125), for machines with little memory; 90 epochs as torchvision, whose ResNet-18 reaches
    69.76 % on ImageNet (not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=90,
        batch=32,
        lr=0.0125,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="step",
        milestones=(1 / 3, 2 / 3),
        workers=2,
    )
    return Recipe("classification", settings, ClassificationPictures(), "ResNet paper, section 3.4")


def resnet_small_pictures() -> Recipe:
    """ResNet for 32x32 pictures (section 4.2 of its paper): 4 pixels of shift, mirror images, batch 128, SGD 0.1,
    decay 1e-4.

    Command, hardware, time and our number are on the page of the model, docs/models/resnet.md. Deviations: one cosine
    instead of two steps, five epochs of warm-up replaced by 100 steps, weight decay 5e-4 as is usual for the wide form.
    """
    settings = Settings(
        epochs=30,
        batch=128,
        lr=0.1,
        weight_decay=5e-4,
        optimizer="nesterov",
        schedule="cosine",
        warmup_steps=100,
        channels_last=True,
    )
    pictures = ClassificationPictures(resize=32, crop=32, area=None, shift=4)
    return Recipe("classification", settings, pictures, "ResNet paper, section 4.2, with a cosine")
