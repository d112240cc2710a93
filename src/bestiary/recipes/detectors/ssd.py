"""Recipes of SSD."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.detection import FROM_SCRATCH
from bestiary.recipes.recipe import Recipe
from bestiary.recipes.tiles import TileFields
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomIoUCrop, RandomZoomOut
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.photometric import PhotometricDistortion
from bestiary.transforms.resizing import Resize

COLOURS = PhotometricDistortion()


@dataclass(frozen=True)
class SSDPictures(ColourFields, TileFields):
    """What happens to pictures: SSD's augmentation (section 2.2 and the authors' code), which is worth more than
    anything else in it: 65.5 to 74.3 mAP in the paper.

    Attributes:
        zoom_out: chance that a picture lies somewhere on a larger canvas.
        largest_canvas: its sides over the picture's, at most.
        crops: parts are cut out that overlap an object enough.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image (microscopes and satellites have no up).
        brightness: largest addition, as a share of the range; this and the next three happen half of the time each.
        contrast: colours are multiplied by 1 - contrast to 1 + contrast.
        saturation: saturation likewise.
        hue: largest turn, as a fraction of the colour circle.
    """

    square: ClassVar[int] = 300

    zoom_out: float = 0.5
    largest_canvas: float = 4.0
    crops: bool = True
    flip: float = 0.5
    vertical_flip: float = 0.0
    brightness: float = COLOURS.brightness
    contrast: float = COLOURS.contrast
    saturation: float = COLOURS.saturation
    hue: float = COLOURS.hue

    def sides_hw(self) -> tuple[int, int]:
        """Of the square that every picture is brought to."""
        return self.square, self.square

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """A tile if tiles are wanted, colours, canvas, part, square, mirror images."""
        steps: list[Transform] = [*self.tile_steps()]
        strengths = self.brightness, self.contrast, self.saturation, self.hue
        steps += [PhotometricDistortion(*strengths)] if any(strengths) else []
        steps += [RandomZoomOut(self.zoom_out, (1.0, self.largest_canvas))] if self.zoom_out else []
        steps += [RandomIoUCrop()] if self.crops else []
        steps += [
            Resize(self.sides_hw()),
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
            RandomVerticalFlip(self.vertical_flip, joint_pairs=joint_pairs),
        ]
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The tiles that prediction works by."""
        return self.tile_arguments()


@dataclass(frozen=True)
class SSD512Pictures(SSDPictures):
    """The same at 512 pixels."""

    square: ClassVar[int] = 512


@dataclass(frozen=True)
class SSDSquarePictures(SSDPictures):
    """The same for systems that take squares of any size.

    Attributes:
        side: of the square that every picture is brought to.
    """

    side: int = 300

    def sides_hw(self) -> tuple[int, int]:
        """Of the square that every picture is brought to."""
        return self.side, self.side

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at, and its tiles."""
        return {"side": self.side, **super().arguments()}


def ssd300() -> Recipe:
    """The paper's (section 3.1; numbers of the authors' code), from ImageNet's VGG-16.

    SGD 0.001 with momentum 0.9, biases twice as fast and not decayed, decay 5e-4, 120,000 steps of 32 pictures, divided
    by 10 at 80,000 and 100,000. Start with `--weights vgg16.imagenet1k_features`. The authors: 77.2 mAP on VOC 2007
    with VOC 2007 + 2012 (not run by us: it needs ImageNet and a GPU).
    """
    return Recipe("detection", _published(), SSDPictures(), "SSD paper and code, VOC 2007 + 2012")


def ssd512() -> Recipe:
    """As `ssd300` at 512 pixels. The authors: 79.8 mAP on VOC 2007 (not run by us)."""
    return Recipe("detection", _published(), SSD512Pictures(), "SSD paper and code, VOC 2007 + 2012")


def ssd_mobilenet() -> Recipe:
    """`ssd300` for MobileNet: the same steps from 0.01, for the sake of batch norm, over one cosine.

    The papers give no recipe for it. Start with `--weights` from a MobileNet classifier.
    """
    settings = replace(_published(), lr=0.01, schedule="cosine", warmup_steps=1000, bias_lr=1.0)
    return Recipe("detection", settings, SSDSquarePictures(), "SSD's augmentation and steps; ours")


def ssdlite320() -> Recipe:
    """`ssd_mobilenet` at 320 pixels."""
    return replace(ssd_mobilenet(), pictures=SSDSquarePictures(side=320))


def ssd_from_scratch() -> Recipe:
    """The small forms from random weights: 8 pictures a step, one cosine from 0.02 with batch norm, the running average
    measured; a canvas of at most twice the picture, half the strength of the colours.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    settings = replace(FROM_SCRATCH, epochs=80, batch=8, evaluate_every=10, clip_norm=10.0, ema=0.998)
    colours = {name: getattr(COLOURS, name) / 2 for name in ("brightness", "contrast", "saturation", "hue")}
    pictures = SSDSquarePictures(largest_canvas=2.0, **colours)
    return Recipe("detection", settings, pictures, "from scratch on small data: SGD 0.02, cosine")


def _published() -> Settings:
    return Settings(
        epochs=232,
        steps=120_000,
        batch=32,
        lr=0.001,
        weight_decay=5e-4,
        decay_norms=False,
        bias_lr=2.0,
        schedule="step",
        milestones=(8 / 12, 10 / 12),
        evaluate_every=10,
        workers=2,
    )
