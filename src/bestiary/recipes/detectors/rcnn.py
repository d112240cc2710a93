"""Recipes of R-CNN and SPP-net: fine-tuning, then SVMs, then box regressors."""

from dataclasses import dataclass, replace
from typing import Any

from bestiary.recipes.colours import ColourFields
from bestiary.recipes.detection import FROM_SCRATCH
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.recipes.tiles import TileFields
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip


@dataclass(frozen=True)
class RegionPictures(ColourFields, TileFields):
    """What happens to pictures whose regions are brought to one size by the system itself.

    Attributes:
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image (microscopes and satellites have no up).
    """

    flip: float = 0.5
    vertical_flip: float = 0.0

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """A tile if tiles are wanted, mirror images, colours; boxes and proposals move along."""
        steps: list[Transform] = [
            *self.tile_steps(),
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
            RandomVerticalFlip(self.vertical_flip, joint_pairs=joint_pairs),
        ]
        return Compose((*steps, *self.colour_steps()))

    def arguments(self) -> dict[str, Any]:
        """The tiles that prediction works by."""
        return self.tile_arguments()


def rcnn() -> Recipe:
    """R-CNN's (sections 2.3 and 3.4, appendices B and C; numbers of the authors' code), from ImageNet's weights.

    Fine-tuning: SGD 0.001, a tenth of ImageNet's, divided by 10 every 20,000 of 70,000 steps, momentum 0.9, decay
    5e-4, biases twice as fast, mirror images; 128 windows a step, a quarter of them objects, here from 4 pictures.
    Then SVMs with one pass of hard negatives, and ridge regressions. Start with `--weights` from a classifier of the
    same layers. The paper: 58.5 mAP on VOC 2007 with AlexNet, 66.0 with VGG-16 (not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=56,
        steps=70_000,
        batch=4,
        lr=0.001,
        weight_decay=5e-4,
        bias_lr=2.0,
        schedule="step",
        milestones=(20 / 70, 40 / 70, 60 / 70),
        evaluate_every=4,
        workers=2,
    )
    return _staged(settings, RegionPictures(), "R-CNN paper and code, VOC 2007")


def rcnn_from_scratch() -> Recipe:
    """The small form from random weights: 128 windows of 4 pictures a step, one cosine from 0.02 with batch norm.

    The number of epochs suits some hundreds of pictures and two cores; most of the time goes into the features of all
    proposals, which the SVMs see.
    """
    return _staged(replace(FROM_SCRATCH, epochs=8), RegionPictures(), "R-CNN's stages, from scratch on small data")


def spp_net() -> Recipe:
    """SPP-net's (section 4.2): the fully connected layers alone are fine-tuned, 250,000 steps of 128 regions at 1e-4
    and 50,000 at 1e-5; then R-CNN's SVMs and box regressors.

    Start with `--weights` from a classifier with the same convolutions: they stay as they are. The paper: 59.2 mAP on
    VOC 2007 with five scales (not run by us: it needs ImageNet).
    """
    settings = Settings(
        epochs=240,
        steps=300_000,
        batch=4,
        lr=1e-4,
        weight_decay=5e-4,
        bias_lr=2.0,
        schedule="step",
        milestones=(250 / 300,),
        evaluate_every=4,
        workers=2,
    )
    return _staged(settings, RegionPictures(), "SPP-net paper, VOC 2007")


def spp_net_small() -> Recipe:
    """The small form on another network's convolutions (`--weights` of a trained `rcnn_small`): fc6 and fc7 from random
    weights, one cosine from 0.01.
    """
    settings = replace(FROM_SCRATCH, epochs=12, lr=0.01, channels_last=False)
    return _staged(settings, RegionPictures(), "SPP-net's stages on small data")


def _staged(settings: Settings, pictures: RegionPictures, source: str) -> Recipe:
    stages = (
        # To score a validation picture is to look at all its proposals: the loss chooses instead.
        Stage("finetune", settings, "the network learns to tell regions apart", is_scored=False),
        Stage("svm", FitSettings(), "one SVM a category, with hard negatives", is_scored=False),
        Stage("boxes", FitSettings(), "ridge regressions move the regions"),
    )
    return Recipe("detection", settings, pictures, source, stages=stages)
