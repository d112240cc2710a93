"""Recipes of the segmenters."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings
from bestiary.transforms.border_weights import BorderWeights
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomCrop
from bestiary.transforms.geometry import RandomAffine, RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import ResizeShortSide, ScaleJitter
from bestiary.transforms.warping import Elastic


@dataclass(frozen=True)
class SegmentationPictures(ColourFields):
    """What happens to pictures with label maps.

    Attributes:
        short_side: length of the shorter side that training and prediction work at; none for the picture's own.
        scale: factor drawn for each training picture, smallest and largest; none for no jitter.
        crop: side of the random square that training sees; none for the whole picture.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image.
        rotate: largest angle in degrees, either way.
        elastic: standard deviation in pixels of the 3 x 3 displacements of a smooth warp; 10 in U-Net's paper, 0 for
            none.
        border_weights: weigh pixels between touching objects more (U-Net's equation 2).
    """

    short_side: int | None = None
    scale: tuple[float, float] | None = None
    crop: int | None = None
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotate: float = 0.0
    elastic: float = 0.0
    border_weights: bool = False

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Resize, warp, crop, mirror image, colours, pixel weights."""
        steps: list[Transform] = []
        if self.short_side is not None:
            steps.append(ResizeShortSide(self.short_side))
        if self.scale is not None:
            steps.append(ScaleJitter(self.scale))
        if self.rotate:
            steps.append(RandomAffine(degrees=self.rotate))
        if self.elastic:
            steps.append(Elastic(self.elastic))
        if self.crop is not None:
            steps.append(RandomCrop((self.crop, self.crop)))
        steps += [RandomHorizontalFlip(self.flip), RandomVerticalFlip(self.vertical_flip)]
        steps += self.colour_steps()
        if self.border_weights:
            steps.append(BorderWeights())
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at."""
        return {"predict_size": self.short_side}


def unet_paper() -> Recipe:
    """U-Net as its paper trains it (section 3): SGD with momentum 0.99, one picture a batch, elastic warps, border
    weights.

    The paper gives no learning rate and no number of epochs (10 hours on one GPU); 1e-3 and 100 are ours.
    """
    settings = Settings(epochs=100, batch=1, lr=1e-3, momentum=0.99, weight_decay=0.0, schedule="constant", workers=1)
    pictures = SegmentationPictures(elastic=10.0, rotate=15.0, vertical_flip=0.5, border_weights=True)
    return Recipe("segmentation", settings, pictures, "U-Net paper, section 3")


def unet_padded() -> Recipe:
    """The U-Net that people train today: padded convolutions, batch norm, cross-entropy plus Dice, AdamW over one
    cosine.

    Command, hardware, time and our number are on the page of the model, docs/models/unet.md.
    """
    settings = Settings(
        epochs=40,
        batch=4,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=1e-2,
        schedule="cosine",
        warmup_steps=50,
        clip_norm=1.0,
        workers=1,
    )
    pictures = SegmentationPictures(brightness=0.2, contrast=0.2)
    return Recipe("segmentation", settings, pictures, "padded U-Net as commonly trained today")
