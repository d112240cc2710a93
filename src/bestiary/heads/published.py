"""The category names that published checkpoints were trained on, in the order of their outputs."""

from functools import cache
from importlib import resources

VOC_20: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC 2007 and 2012, alphabetical."""

VOC_21: tuple[str, ...] = ("background", *VOC_20)
"""PASCAL VOC's classes of pixels."""

STANFORD_8: tuple[str, ...] = ("sky", "tree", "road", "grass", "water", "building", "mountain", "foreground")
"""The Stanford Background data set's classes of pixels, in the order of its labels."""

NO_CATEGORY = "N/A"
"""Stands where COCO's ids have a gap: an output that was never trained."""

_COCO_TEXT = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, N/A, stop sign, parking meter, bench, bird, cat, dog, horse, sheep,
cow, elephant, bear, zebra, giraffe, N/A, backpack, umbrella, N/A, N/A,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, bottle, N/A, wine glass, cup, fork, knife, spoon,
bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, N/A, dining table, N/A, N/A, toilet,
N/A, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, N/A, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""

COCO_90: tuple[str, ...] = tuple(name.strip() for name in _COCO_TEXT.replace("\n", " ").split(","))
"""COCO's ids 1 .. 90 at index id - 1, with `NO_CATEGORY` at the ten ids that no object has."""

COCO_80: tuple[str, ...] = tuple(name for name in COCO_90 if name != NO_CATEGORY)
"""COCO's 80 categories without the gaps, in the order of their ids."""


@cache
def imagenet_categories() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012, in the order of their WordNet ids."""
    text = resources.files("bestiary.heads").joinpath("published", "imagenet.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
