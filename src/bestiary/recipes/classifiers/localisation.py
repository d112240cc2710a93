"""Recipes of the localisation of one object a picture."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomCrop
from bestiary.transforms.geometry import RandomHorizontalFlip
from bestiary.transforms.keep import Keep
from bestiary.transforms.resizing import ResizeShortSide


@dataclass(frozen=True)
class LocalisationPictures(ColourFields):
    """What happens to pictures whose largest object is to be found.

    Attributes:
        resize: shorter side that training and prediction scale to (the paper's S).
        crop: side of the window, a multiple of 32.
        flip: chance of a mirror image.
    """

    resize: int = 256
    crop: int = 224
    flip: float = 0.5

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Resize, a random window in which half of an object must be seen for it to count, mirror image, colours."""
        window = RandomCrop((self.crop, self.crop), keep=Keep(min_visible=0.5))
        steps: list[Transform] = [
            ResizeShortSide(self.resize),
            window,
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
        ]
        return Compose((*steps, *self.colour_steps()))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at."""
        return {"resize": self.resize, "crop": self.crop}


def vgg_localisation() -> Recipe:
    """VGG's localisation (appendix A of its paper): as the classifier, from the classifier's weights, with a learning
    rate of 0.001 for 256 pictures, at one scale, all layers trained.

    Start with `--weights` from a trained classifier of the same form. Deviations: one network learns classes and boxes
    at once; batch 32 with the learning rate scaled in proportion. The paper reaches 25.3 % localisation error in
    ILSVRC 2014 (not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=20,
        batch=32,
        lr=0.000125,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=(0.5, 0.75, 0.9),
        workers=2,
    )
    return Recipe("detection", settings, LocalisationPictures(), "VGG paper, appendix A")


def vgg_localisation_from_scratch() -> Recipe:
    """The form with batch norm on small windows, without a classifier to start from: 0.01 for 32 pictures, a cosine."""
    settings = Settings(
        epochs=40,
        batch=32,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_steps=100,
        workers=1,
        channels_last=True,
    )
    return Recipe("detection", settings, LocalisationPictures(resize=144, crop=128), "VGG paper, appendix A")
