"""Recipes of the classifiers."""

from dataclasses import dataclass
from typing import Any

from bestiary.errors import UsageError
from bestiary.heads.views import View
from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings
from bestiary.transforms.colour import PCAColour
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomCrop, RandomResizedCrop
from bestiary.transforms.geometry import RandomAffine, RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import RandomShortSide, ResizeShortSide


@dataclass(frozen=True)
class ClassificationPictures(ColourFields):
    """What happens to pictures that have one class each.

    Attributes:
        resize: shorter side before the centre crop of prediction.
        crop: side of the square that the network sees.
        resize_range: shorter side before the random crop of training, smallest and largest (the scale jitter of VGG and
            ResNet); none for `area`, or for `resize` where that is none too.
        area: share of the picture that a random crop covers, smallest and largest; none for no random scale.
        aspect: width over height of a random crop, smallest and largest.
        shift: instead of a random area: pad by so many pixels and crop back at a random place.
        turn: largest rotation either way, degrees.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image.
        pca_colour: standard deviation of AlexNet's colour shift along the principal colours; 0.1 in its paper.
        label_smoothing: share of the target spread over all classes.
        views: what prediction looks at: the centre crop; ten crops (corners, centre, their mirror images); or the dense
            map of the whole picture. The trained model remembers it.
        view_sides: shorter sides that prediction scales to, one after the other, in place of `resize`.
        view_flip: prediction looks at the mirror image of each view, too.
    """

    resize: int = 256
    crop: int = 224
    resize_range: tuple[int, int] | None = None
    area: tuple[float, float] | None = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 0
    turn: float = 0.0
    flip: float = 0.5
    vertical_flip: float = 0.0
    pca_colour: float = 0.0
    label_smoothing: float = 0.0
    views: View = "centre"
    view_sides: tuple[int, ...] = ()
    view_flip: bool = False

    def __post_init__(self) -> None:
        if self.resize_range is None:
            return
        low, high = self.resize_range
        if not self.crop <= low <= high:
            raise UsageError(f"got {low},{high}, wanted two sides from the crop's {self.crop} on", where="resize_range")
        if self.area is not None:
            mend = "Each is a random scale: set --area none, or --resize-range none."
            raise UsageError("got a range of sides and a range of areas", where="resize_range", mend=mend)

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Rotation, random crop, mirror image, colours."""
        size = (self.crop, self.crop)
        steps: list[Transform] = [RandomAffine(degrees=self.turn)] if self.turn else []
        if self.area is not None:
            steps.append(RandomResizedCrop(size, self.area, self.aspect))
        elif self.resize_range is not None:
            low, high = self.resize_range
            steps += [RandomShortSide(range(low, high + 1)), RandomCrop(size, pad=self.shift)]
        else:
            steps += [ResizeShortSide(self.resize), RandomCrop(size, pad=self.shift)]
        steps += [RandomHorizontalFlip(self.flip), RandomVerticalFlip(self.vertical_flip)]
        steps += self.colour_steps()
        if self.pca_colour:
            steps.append(PCAColour(self.pca_colour))
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """Size, views and smoothing, which the system holds itself."""
        sizes = {"resize": self.resize, "crop": self.crop, "label_smoothing": self.label_smoothing}
        return {**sizes, "views": self.views, "view_sides": self.view_sides, "view_flip": self.view_flip}


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
