"""Recipes of YOLOv2: k-means on the boxes, then the detector at a new size every ten batches."""

from dataclasses import dataclass, replace
from typing import Any

from bestiary.recipes.darknet_pictures import DarknetPictures
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.darknet import GREY
from bestiary.transforms.resizing import Letterbox

SIZES = tuple(range(320, 609, 32))


@dataclass(frozen=True)
class YOLOv2Pictures(DarknetPictures):
    """What happens to pictures that are seen at several sizes.

    Attributes:
        size: side of the square that prediction works at, a multiple of 32.
        train_sizes: sides that training draws from, a new one every ten batches (`320,352,384`); empty for `size`
            alone.
        letterbox: pictures keep their proportions within the square, with grey around; otherwise they are stretched.
    """

    size: int = 416
    jitter: float = 0.3
    train_sizes: tuple[int, ...] = SIZES
    letterbox: bool = False

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """`DarknetPictures` at the largest size, from which the system makes each batch's."""
        largest = max(self.train_sizes, default=self.size)
        whole = DarknetPictures.train_transform(replace(self, size=largest, tile=0), joint_pairs)
        square: list[Transform] = [Letterbox((largest, largest), GREY)] if self.letterbox else []
        return Compose((*self.tile_steps(), *square, whole))

    def arguments(self) -> dict[str, Any]:
        """The sizes, the shape of the square, and the tiles."""
        looks = {"train_sizes": self.train_sizes, "letterbox": self.letterbox}
        return {**super().arguments(), **looks}


VOC_STEPS = Settings(
    epochs=310,
    steps=80_200,
    batch=8,
    accumulate=8,
    lr=0.001,
    weight_decay=5e-4,
    schedule="step",
    milestones=(40_000 / 80_200, 60_000 / 80_200),
    warmup_steps=1000,
    evaluate_every=10,
    workers=2,
)


def yolo_v2() -> Recipe:
    """YOLOv2's (sections 2 and 3; numbers of `yolo-voc.cfg`), from Darknet-19 at 448.

    Priors by k-means; SGD 0.001 for 64 pictures a step (here 8 times 8), momentum 0.9, decay 5e-4, 1,000 steps of
    warm-up, 80,200 steps, divided by 10 after 40,000 and 60,000; frames moved by up to 0.3, hue 0.1, saturation and
    exposure 1.5, mirror images, sizes 320 .. 608. Start with `--weights` from a trained `darknet19_448`. The paper:
    76.8 mAP on VOC 2007 at 416, 78.6 at 544 (not run by us: it needs ImageNet and a GPU).

    Deviations: warm-up is a line where Darknet's is a fourth power; batch norm sees 8 pictures, as Darknet's does with
    its 8 subdivisions.
    """
    return _staged(VOC_STEPS, YOLOv2Pictures(), "YOLO9000 paper and yolo-voc.cfg")


def yolo_v2_coco() -> Recipe:
    """As `yolo_v2` for COCO: 500,200 steps, divided by 10 after 400,000 and 450,000, prediction at 608. The paper: 44.0
    AP50 on test-dev (not run by us).
    """
    settings = replace(VOC_STEPS, epochs=271, steps=500_200, milestones=(400 / 500.2, 450 / 500.2))
    return _staged(settings, YOLOv2Pictures(size=608), "YOLO9000 paper and yolo.cfg")


def tiny_yolo_v2() -> Recipe:
    """Tiny YOLO's (`tiny-yolo-voc.cfg`): 40,100 steps, divided by 10 after 20,000 and 30,000; frames moved by up to
    0.2. Darknet's page: 57.1 mAP on VOC 2007 (not run by us).
    """
    milestones = 20_000 / 40_100, 30_000 / 40_100
    settings = replace(VOC_STEPS, epochs=156, steps=40_100, milestones=milestones, warmup_steps=100)
    return _staged(settings, YOLOv2Pictures(jitter=0.2), "tiny-yolo-voc.cfg")


def yolo_v2_small() -> Recipe:
    """The small form from random weights: Adam with one cosine from 0.001, 8 pictures a step.

    The number of epochs suits some hundreds of pictures and two cores.
    """
    settings = Settings(
        epochs=80,
        batch=8,
        optimizer="adamw",
        lr=0.001,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_steps=50,
        clip_norm=10.0,
        evaluate_every=8,
        workers=1,
        channels_last=True,
    )
    pictures = YOLOv2Pictures(jitter=0.2, train_sizes=(352, 384, 416, 448, 480))
    return _staged(settings, pictures, "from scratch on small data: AdamW 0.001, cosine")


def yolo_v2_ladder() -> Recipe:
    """The rungs of table 2 at a quarter of the width, all with the settings of `yolo_v2_small`; multi-scale training is
    off until `train_sizes` says so.
    """
    recipe = yolo_v2_small()
    return replace(recipe, pictures=replace(recipe.pictures, train_sizes=()), source="YOLO9000 paper, table 2, small")


def yolo9000() -> Recipe:
    """YOLO9000's (numbers of `yolo9000.cfg`): as `yolo_v2` for 500,200 steps, divided by 10 after 400,000 and 450,000;
    frames moved by up to 0.2, prediction at 544. The paper learns from COCO and the 9,000 largest classes of ImageNet
    together, as many pictures of COCO as of ImageNet: 19.7 mAP on ImageNet's detection task (not run by us).
    """
    settings = replace(VOC_STEPS, epochs=271, steps=500_200, milestones=(400 / 500.2, 450 / 500.2))
    return _staged(settings, YOLOv2Pictures(size=544, jitter=0.2), "YOLO9000 paper and yolo9000.cfg")


def _staged(settings: Settings, pictures: YOLOv2Pictures, source: str) -> Recipe:
    stages = (
        Stage("priors", FitSettings(), "k-means on the sizes of the boxes", is_scored=False),
        Stage("detector", settings, "boxes, objectness and classes together"),
    )
    return Recipe("detection", settings, pictures, source, stages=stages)
