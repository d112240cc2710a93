"""Recipes of the segmenters."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from bestiary.heads.pixel_views import ViewMerge
from bestiary.heads.segmentation import MULTI_LABEL_TASK, ClassBalance, PixelSystem
from bestiary.recipes.colours import ColourFields
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings
from bestiary.transforms.border_weights import BorderWeights
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.crops import RandomCrop
from bestiary.transforms.edge_weights import EdgeWeights
from bestiary.transforms.geometry import RandomAffine, RandomHorizontalFlip, RandomVerticalFlip
from bestiary.transforms.resizing import ResizeShortSide, ScaleJitter
from bestiary.transforms.size_weights import SizeWeights
from bestiary.transforms.warping import Elastic


@dataclass(frozen=True, kw_only=True)
class ObjectiveFields:
    """What a dense labeller minimises; `losses.pixel_objective.PixelObjective` has the words.

    Attributes:
        losses: their names, each `name` or `name=weight`: cross_entropy, cross_entropy_sum, dice, dice_classes,
            dice_squared, focal, ohem; empty for those of the model's paper.
        focal_gamma: exponent of the focal loss.
        ohem_prob: a pixel is hard if its true class has less than this probability.
        ohem_share: but at least this share of the labelled pixels, the hardest, counts.
        class_weights: weight of each category's pixels, in their order; empty for `class_balance`.
        class_balance: weights from the frequencies of the categories in the training pictures: none, median_frequency
            (SegNet, section 4) or inverse_frequency.
    """

    losses: tuple[str, ...] = ()
    focal_gamma: float = 2.0
    ohem_prob: float = 0.7
    ohem_share: float = 1 / 16
    class_weights: tuple[float, ...] = ()
    class_balance: ClassBalance = "none"

    def objective_arguments(self) -> dict[str, Any]:
        """What the system is told, less what it knows by itself."""
        return _told(self, ObjectiveFields)


@dataclass(frozen=True, kw_only=True)
class LookFields:
    """How a dense labeller looks at pictures when it predicts; validation and `predict` do it alike.

    Attributes:
        test_scales: factors on the size that it works at; empty for 1 alone.
        test_flip: also the mirror image of each view.
        test_merge: of the views' probabilities: mean or max.
        test_window: side of overlapping windows that each view is seen in, pixels; 0 for the whole at once.
        window_overlap: least share of a side that neighbouring windows have in common.
        crf: numbers of the dense CRF that the probabilities are refined by (`heads.dense_crf.DENSE_CRFS`); none for no
            such.
        multi_label: a pixel may belong to several categories, or to none: the truth is the objects' masks, each
            category has its own sigmoid, and every loss is that of a sigmoid.
        mask_threshold: the probability from which a pixel then belongs to a category.
    """

    test_scales: tuple[float, ...] = ()
    test_flip: bool = False
    test_merge: ViewMerge = "mean"
    test_window: int = 0
    window_overlap: float = 1 / 3
    crf: str = "none"
    multi_label: bool = False
    mask_threshold: float = 0.5

    @property
    def task(self) -> str:
        """What is recognised, which says what truth is read and how it is scored."""
        return MULTI_LABEL_TASK if self.multi_label else PixelSystem.task

    def look_arguments(self) -> dict[str, Any]:
        """What the system is told, less what it does by itself."""
        return _told(self, LookFields)


def _told(fields: Any, kind: type) -> dict[str, Any]:
    """Those fields of a class that are not at their defaults, as plain JSON."""
    plain = kind()
    names = [field.name for field in dataclasses.fields(kind)]
    told = {name: getattr(fields, name) for name in names if getattr(fields, name) != getattr(plain, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


@dataclass(frozen=True)
class SegmentationPictures(ColourFields, ObjectiveFields, LookFields):
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
        edge_weight: weigh pixels at the borders of classes so much more; 0 for not at all.
        edge_width: pixels on either side of a border that do.
        size_weights: weigh the pixels of small connected regions more, so that each region counts alike.
    """

    short_side: int | None = None
    scale: tuple[float, float] | None = None
    crop: int | None = None
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotate: float = 0.0
    elastic: float = 0.0
    border_weights: bool = False
    edge_weight: float = 0.0
    edge_width: int = 2
    size_weights: bool = False

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
        if self.size_weights:
            steps.append(SizeWeights())
        if self.edge_weight:
            steps.append(EdgeWeights(self.edge_weight, self.edge_width))
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at, the objective, and how pictures are looked at."""
        return {"predict_size": self.short_side, **self.objective_arguments(), **self.look_arguments()}


def unet_paper() -> Recipe:
    """U-Net as its paper trains it (section 3): SGD with momentum 0.99, one picture a batch, elastic warps, border
    weights.

    The paper gives no learning rate, no number of epochs (10 hours on one GPU) and not how far it turns pictures and
    varies their grey values: 1e-3, 100, 15 degrees and a tenth are ours.
    """
    settings = Settings(epochs=100, batch=1, lr=1e-3, momentum=0.99, weight_decay=0.0, schedule="constant", workers=1)
    pictures = SegmentationPictures(
        elastic=10.0, rotate=15.0, vertical_flip=0.5, border_weights=True, brightness=0.1, contrast=0.1
    )
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
