"""The dense labellers that learn at the resolution of their last map, as DeepLab v1 and v2.

A picture's sides are 8 n + 1: then every eighth pixel, the first and the last among them, is the centre of a place of
the map, and its label is what the scores there learn from. To predict, the scores are interpolated so that corners stay
corners.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, PixelTruth, WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import BYTE_STD, Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits

PixelScale = Literal["imagenet", "caffe"]
"""Red, green, blue as torchvision's classifiers want them; or blue, green, red 0..255 less a mean."""

CAFFE_MEAN = (122.675 / 255, 116.669 / 255, 104.008 / 255)
"""Red, green, blue of the authors' nets."""


class CoarseScores(WholePicture):
    """Base of these labellers. A subclass's `outputs` gives scores at the map's own size; the objective is applied to
    them and to each auxiliary output, whatever its size, at the pixels that are the centres of its places.
    """

    padding: ClassVar[Padding] = "mean"
    geometry = InputGeometry(grid=8)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel: the scores, interpolated."""
        scores = self.outputs(pixels).logits
        return resize_logits(scores, (pixels.shape[-2], pixels.shape[-1]), align_corners=True)

    def loss_terms(self, outputs: PixelOutputs, truth: PixelTruth) -> dict[str, Tensor]:
        """The objective on the scores and, each counting as much, on the auxiliary outputs."""
        terms = self.objective_of(outputs.logits, at_places(truth, outputs.logits))
        for name, scores in outputs.auxiliary.items():
            further = self.objective_of(scores, at_places(truth, scores))
            terms |= {f"{name}_{term}": value for term, value in further.items()}
        return terms


def at_places(truth: PixelTruth, scores: Float[Tensor, "B K h w"]) -> PixelTruth:
    """The truth at the pixels that are nearest to the centres of a map's places, corners lying on corners."""
    picked = {}
    for field in dataclasses.fields(truth):
        plane = getattr(truth, field.name)
        if isinstance(plane, Tensor):
            rows, columns = (_places(int(plane.shape[axis]), int(scores.shape[axis]), plane) for axis in (-2, -1))
            picked[field.name] = plane.index_select(-2, rows).index_select(-1, columns)
    return dataclasses.replace(truth, **picked)


def _places(side: int, places: int, like: Tensor) -> Int64[Tensor, " n"]:
    steps = torch.arange(places, dtype=torch.float64)  # on the processor: some devices have no such floats
    return (steps * ((side - 1) / max(1, places - 1))).round().long().to(like.device)


def pixel_values(scale: PixelScale, in_channels: int) -> Normalize:
    """The part that scales pictures."""
    if scale == "imagenet":
        return channel_normalize(in_channels)
    return channel_normalize(in_channels, CAFFE_MEAN, BYTE_STD, "bgr")
