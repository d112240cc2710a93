"""Recipes of CornerNet."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.recipes.tiles import TileFields
from bestiary.training.settings import Settings
from bestiary.transforms.centred_crops import CORNER_NET_FACTORS, RandomCentredCrop
from bestiary.transforms.colour import PCAColour
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import ResizeShortSide

COCO_EIGENVALUES = (0.2141788, 0.01817699, 0.00341571)
COCO_EIGENVECTORS = (
    (-0.56089297, 0.71832671, 0.41158938),
    (-0.5832747, 0.00994535, -0.81221408),
    (-0.58752847, -0.69563484, 0.41340352),
)
"""Principal colours of the authors' code, rows red, green, blue."""


@dataclass(frozen=True)
class CornerPictures(ColourFields, TileFields):
    """What happens to pictures with boxes.

    Attributes:
        side: pixels a side of the crops that training sees.
        crop_factors: sides of a crop before it is resized, over `side`.
        border: pixels that the middle of a crop keeps from the picture's edges.
        short_side: length of the shorter side that pictures are brought to first, in training and prediction; none for
            the one they have.
        longest: the longer side never exceeds this.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image (microscopes and satellites have no up).
        lighting: how far colours move along the principal ones of COCO.
    """

    side: int = 511
    crop_factors: tuple[float, ...] = CORNER_NET_FACTORS
    border: int = 128
    short_side: int | None = None
    longest: int = 1333
    flip: float = 0.5
    vertical_flip: float = 0.0
    lighting: float = 0.1

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """A tile if tiles are wanted, resize, crop, mirror image, colours."""
        steps: list[Transform] = list(self.tile_steps())
        if self.short_side is not None:
            steps.append(ResizeShortSide(self.short_side, self.longest))
        steps += [
            RandomCentredCrop((self.side, self.side), self.crop_factors, self.border),
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
            RandomVerticalFlip(self.vertical_flip, joint_pairs=joint_pairs),
            *self.colour_steps(),
        ]
        if self.lighting:
            steps.append(PCAColour(self.lighting, COCO_EIGENVALUES, COCO_EIGENVECTORS))
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at, and its tiles."""
        return {"min_size": self.short_side, "max_size": self.longest, **self.tile_arguments()}


def corner_net() -> Recipe:
    """CornerNet as its authors trained it (numbers of their code), from torch's random weights.

    Adam 2.5e-4 without decay, 500,000 steps of 49 pictures on ten GPUs (here seven times 7), divided by 10 after
    450,000; crops of 511 x 511, mirror images, brightness, contrast and saturation by up to 0.4, lighting 0.1. The
    authors report 40.5 AP on COCO's test-dev with one scale, 42.1 with five (not run by us: it needs COCO and weeks of
    GPUs).
    """
    settings = Settings(
        epochs=208,
        steps=500_000,
        batch=7,
        accumulate=7,
        optimizer="adam",
        lr=2.5e-4,
        weight_decay=0.0,
        schedule="step",
        milestones=(0.9,),
        evaluate_every=10,
        workers=4,
    )
    pictures = CornerPictures(brightness=0.4, contrast=0.4, saturation=0.4)
    return Recipe("detection", settings, pictures, "CornerNet's code, COCO trainval")


def corner_net_small() -> Recipe:
    """The small form on small data: crops of 255 x 255 of pictures with a shorter side of 255, Adam, one cosine.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    settings = Settings(
        epochs=40,
        batch=4,
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine",
        warmup_steps=50,
        evaluate_every=8,
        workers=1,
        channels_last=True,
    )
    pictures = CornerPictures(
        side=255, border=64, short_side=255, longest=383, brightness=0.2, contrast=0.2, saturation=0.2, lighting=0.0
    )
    return Recipe("detection", settings, pictures, "from scratch on small data: Adam 1e-3, cosine")
