"""Hypercolumns: Hariharan, Arbelaez, Girshick, Malik: Hypercolumns for Object Segmentation and Fine-grained
Localization, CVPR 2015.

A pixel's hypercolumn is what all units above it say: the values of several maps, interpolated bilinearly, one after
the other. Linear classifiers read it, one for each cell of a grid over the picture, as what a feature means depends on
where it is. Faithful: pool2, conv4 and fc7; each classifier learns from the pixels of its cell, and only predictions
blend the four around a pixel; projecting each map by a 1x1 convolution first and interpolating afterwards, which is the
same as classifying hypercolumns and far cheaper.

The paper labels the inside of detected boxes, each warped to one size, on a grid of 50 x 50 places, one kind of object
against the rest. Here whole pictures are labelled, so fc7 is a convolution (the paper's is one vector a box), the
places are pool2's cells, four pixels apart, and the classes compete in a softmax. The small form is ours.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.fcn_vgg import SAME_SIZE, ConvolutionalVGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.heads.published import VOC_21
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture, resize_logits
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import channel_normalize


class Hypercolumns(WholePicture):
    """The system.

    Args:
        trunk: its maps must lie as their strides say (`SAME_SIZE`).
        categories: K names.
        grid: classifiers along either side of the picture; 1 for the same everywhere.

    Raises:
        UsageError: a grid below 1.
    """

    padding: ClassVar[Padding] = "mean"
    # Whole cells of every map: then interpolation by the strides' ratios puts each where it belongs.
    geometry: InputGeometry = InputGeometry(grid=32, smallest=32)
    head_names = ("scores",)

    def __init__(self, trunk: ConvolutionalVGG, categories: Sequence[str], *, grid: int = 10) -> None:
        super().__init__(categories, channel_normalize(trunk.in_channels))
        if grid < 1:
            raise UsageError(f"got {grid}, wanted 1 or more", where="grid")
        self.backbone, self.grid = trunk, grid
        outputs, last = len(categories) * grid**2, trunk.levels[-1].name
        self.scores = nn.ModuleDict(
            {level.name: nn.Conv2d(level.channels, outputs, 1, bias=level.name == last) for level in trunk.levels}
        )
        for name, parameter in self.scores.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, 0, 0.01)

    @property
    def channels(self) -> int:
        """Length of a hypercolumn."""
        return sum(level.channels for level in self.backbone.levels)

    def hypercolumns(
        self, pixels: Float[Tensor, "B C H W"], points_xy: Float[Tensor, "N 2"]
    ) -> Float[Tensor, "B N _length"]:
        """The hypercolumns at points of normalised pixels whose sides are multiples of 32."""
        size = points_xy.new_tensor([pixels.shape[-1], pixels.shape[-2]])
        places = (2 * points_xy / size - 1).expand(len(pixels), 1, -1, -1)
        sampled = [
            F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]
            for maps in self.backbone(pixels)
        ]
        return torch.cat(sampled, 1).mT

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel by its own cell's classifier, as these learn."""
        return PixelOutputs(self._logits(pixels, blended=False))

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel, the classifiers around it blended bilinearly."""
        return self._logits(pixels, blended=True)

    def _logits(self, pixels: Tensor, blended: bool) -> Float[Tensor, "B K H W"]:
        scores = self.cell_scores(pixels)
        if self.grid > 1:
            rows, columns = (
                shares(scores.shape[axis], self.grid, blended, scores.dtype, scores.device) for axis in (-2, -1)
            )
            scores = torch.einsum("bkrchw,rh,cw->bkhw", scores, rows, columns)
        else:
            scores = scores[:, :, 0, 0]
        return resize_logits(scores, (pixels.shape[-2], pixels.shape[-1]))

    def cell_scores(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K grid grid _h _w"]:
        """What the classifier of each cell says at every place of the finest map."""
        maps = self.backbone(pixels)
        finest, *coarser = (
            self.scores[level.name](features) for level, features in zip(self.backbone.levels, maps, strict=True)
        )
        total = sum((resize_logits(scores, (finest.shape[-2], finest.shape[-1])) for scores in coarser), finest)
        return total.unflatten(1, (len(self.categories), self.grid, self.grid))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier, its convolutions, and fc6 and fc7 as convolutions."""
        if any(name.startswith("backbone.") for name in state):
            return state, ""
        taken = {f"backbone.{name}": value for name, value in self.backbone.own_names(state).items()}
        return (taken, "starts from a classifier: its convolutions, fc6 and fc7") if taken else (state, "")


def shares(
    places: int, cells: int, blended: bool, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, "cells places"]:
    """How much the classifier of each cell has to say at each of the places along one side.

    Args:
        places: along the side.
        cells: likewise.
        blended: by the distance to the cells' centres, as bilinear interpolation; else all to the place's own cell.
        dtype: of the shares.
        device: likewise.
    """
    at = (torch.arange(places, dtype=dtype, device=device) + 0.5) * cells / places
    index = torch.arange(cells, dtype=dtype, device=device)[:, None]
    if not blended:
        return (at.floor() == index).to(dtype)
    return (1 - ((at - 0.5).clamp(0, cells - 1) - index).abs()).clamp(min=0)


def hypercolumns(categories: Sequence[str] | None = None, in_channels: int = 3, grid: int = 10) -> Hypercolumns:
    """On VGG-16: hypercolumns of 4,736 numbers; 144,208,244 parameters for VOC's 21 classes.

    Args:
        categories: K names; None gives PASCAL VOC's 21, the background among them.
        in_channels: channels of a picture.
        grid: classifiers along either side of the picture; 1 for the same everywhere.
    """
    trunk = ConvolutionalVGG(maps=("pool2", "conv4_3"), paddings=SAME_SIZE, in_channels=in_channels)
    return Hypercolumns(trunk, VOC_21 if categories is None else categories, grid=grid)


def hypercolumns_small(categories: Sequence[str] | None = None, in_channels: int = 3, grid: int = 5) -> Hypercolumns:
    """On half of VGG-11 with batch norm, fc6 and fc7 of 128 channels, which learns from random weights, or from
    `vgg11_bn_half`. Arguments as `hypercolumns`.
    """
    trunk = ConvolutionalVGG(
        DEPTHS["vgg11"],
        maps=("pool2", "conv4_2"),
        batch_norm=True,
        width=0.5,
        fc_width=128,
        paddings=SAME_SIZE,
        in_channels=in_channels,
    )
    return Hypercolumns(trunk, VOC_21 if categories is None else categories, grid=grid)
