"""`Sample -> Sample`: geometry that moves every annotation with the picture, and colours.

    train = Compose((RandomShortSide(range(480, 801), 1333), RandomHorizontalFlip(0.5), ColourJitter(0.2, 0.2, 0.2)))
    sample = train(sample, numpy.random.default_rng(0))

| module | what is in it |
|---|---|
| `compose` | `Compose`, `Sometimes`, `OneOf` |
| `resizing` | `Resize`, `ResizeShortSide`, `ResizeLongSide`, `RandomShortSide`, `Letterbox`, `ScaleJitter` |
| `crops` | `CenterCrop`, `RandomCrop`, `RandomResizedCrop`, `RandomIoUCrop`, `RandomZoomOut`, `Pad` |
| `centred_crops` | `RandomCentredCrop`, CornerNet's |
| `darknet` | `RandomFrame`, `HSVJitter` |
| `photometric` | `PhotometricDistortion`, SSD's |
| `tiling` | `RandomTile`, for detectors that look tile by tile |
| `geometry` | `RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomQuarterTurn`, `RandomAffine` |
| `warping` | `Elastic` |
| `colour` | `ColourJitter`, `PCAColour`, `RandomGrey` |
| `degrading` | `GaussianBlur`, `GaussianNoise`, `RandomErasing` |
| `border_weights` | `BorderWeights` |
| `moving` | what happens to each field of a sample, in one table |
"""

from bestiary.transforms.centred_crops import RandomCentredCrop
from bestiary.transforms.colour import ColourJitter, PCAColour, RandomGrey
from bestiary.transforms.compose import Compose, OneOf, Sometimes
from bestiary.transforms.crops import CenterCrop, Pad, RandomCrop, RandomIoUCrop, RandomResizedCrop, RandomZoomOut
from bestiary.transforms.darknet import HSVJitter, RandomFrame
from bestiary.transforms.degrading import GaussianBlur, GaussianNoise, RandomErasing
from bestiary.transforms.geometry import RandomAffine, RandomHorizontalFlip, RandomQuarterTurn, RandomVerticalFlip
from bestiary.transforms.keep import KEEP, KEEP_ALL, Keep
from bestiary.transforms.photometric import PhotometricDistortion
from bestiary.transforms.resizing import (
    Letterbox,
    RandomShortSide,
    Resize,
    ResizeLongSide,
    ResizeShortSide,
    ScaleJitter,
)
from bestiary.transforms.tiling import RandomTile
from bestiary.transforms.transform import Transform
from bestiary.transforms.warping import Elastic

__all__ = [
    "KEEP",
    "KEEP_ALL",
    "CenterCrop",
    "ColourJitter",
    "Compose",
    "Elastic",
    "GaussianBlur",
    "GaussianNoise",
    "HSVJitter",
    "Keep",
    "Letterbox",
    "OneOf",
    "PCAColour",
    "Pad",
    "PhotometricDistortion",
    "RandomAffine",
    "RandomCentredCrop",
    "RandomCrop",
    "RandomErasing",
    "RandomFrame",
    "RandomGrey",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomQuarterTurn",
    "RandomResizedCrop",
    "RandomShortSide",
    "RandomTile",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "Resize",
    "ResizeLongSide",
    "ResizeShortSide",
    "ScaleJitter",
    "Sometimes",
    "Transform",
]
