"""Recipes of the detectors."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.recipes.tiles import TileFields
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import RandomShortSide


@dataclass(frozen=True)
class DetectionPictures(ColourFields, TileFields):
    """What happens to pictures with boxes.

    Attributes:
        short_side: length of the shorter side that prediction works at.
        longest: the longer side never exceeds this.
        train_short_sides: lengths that training draws from; empty for `short_side` alone.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image (microscopes and satellites have no up).
    """

    short_side: int = 800
    longest: int = 1333
    train_short_sides: tuple[int, ...] = ()
    flip: float = 0.5
    vertical_flip: float = 0.0

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """A tile if tiles are wanted, resize, mirror image, colours."""
        steps: list[Transform] = [
            *self.tile_steps(),
            RandomShortSide(self.train_short_sides or (self.short_side,), self.longest),
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
            RandomVerticalFlip(self.vertical_flip, joint_pairs=joint_pairs),
        ]
        steps += self.colour_steps()
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at, and its tiles."""
        return {"min_size": self.short_side, "max_size": self.longest, **self.tile_arguments()}


SMALL_PICTURES = DetectionPictures(short_side=320, longest=533)
"""For small machines."""

FROM_SCRATCH = Settings(
    epochs=16,
    batch=4,
    lr=0.02,
    weight_decay=5e-4,
    schedule="cosine",
    warmup_steps=50,
    evaluate_every=4,
    workers=1,
    channels_last=True,
)
"""From random weights, with batch norm, which wants several pictures a step: one cosine. As many epochs as suit some
hundreds of pictures and two cores."""


def faster_rcnn() -> Recipe:
    """Faster R-CNN with FPN as torchvision's and Detectron's "1x" recipe, for fine-tuning published weights.

    SGD 0.02 for 16 pictures a step (here 0.005 for 4), momentum 0.9, weight decay 1e-4, 500 steps of warm-up from
    0.001, divided by 10 at 8/12 and 11/12, shorter side 800, mirror images. torchvision reaches 37.0 AP on COCO with
    ResNet-50 in 26 epochs (not run by us: it needs COCO and days of GPUs).
    """
    settings = Settings(
        epochs=12,
        batch=4,
        lr=0.005,
        schedule="step",
        milestones=(8 / 12, 11 / 12),
        warmup_steps=500,
        decay_norms=True,
        workers=1,
    )
    return Recipe("detection", settings, DetectionPictures(), "Detectron 1x schedule, Faster R-CNN with FPN")


def faster_rcnn_from_scratch() -> Recipe:
    """Faster R-CNN with FPN trained from random parameters on a small data set, with trainable batch norm.

    He, Girshick, Dollar: Rethinking ImageNet Pre-training, ICCV 2019: with normalisation that works for the batch and
    enough epochs, detectors need no pre-training. SGD 0.02 over one cosine, batch 4, shorter side 320. Command,
    hardware, time and our number are on the page of the model, docs/models/faster_rcnn.md.
    """
    settings = Settings(epochs=6, batch=4, lr=0.02, schedule="cosine", warmup_steps=50, evaluate_every=1, workers=1)
    pictures = DetectionPictures(short_side=320, longest=533)
    return Recipe("detection", settings, pictures, "from scratch on small data: SGD 0.02, cosine")
