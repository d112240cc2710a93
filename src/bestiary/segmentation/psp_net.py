"""PSPNet: Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017.

A ResNet that dilates from stride 8 on; the means of its last map over grids of 1, 2, 3 and 6 bins a side, each brought
to a quarter of the channels and back to the map's size, stand beside the map when its cells are classified. A second
classifier, of the fourth stage, helps training alone.

Numbers and state names behind the trunk (`ppm`, `cls`, `aux`) are those of the authors' public PyTorch code; its files
load, and `from_caffe_order` turns what their Caffe networks concatenate the other way round. The trunk begins with
three 3x3 convolutions, and all blocks of a dilated stage dilate (torchvision's first one does not).

Maps have a corner on each corner of the input: at stride 8 a side of 8 n + 1 pixels has n + 1 cells, and upsampling
puts each cell's score on the pixel it was taken at. Pictures are extended to such sizes with the mean colour, as the
authors do. Ours: `psp_net_resnet18`, for small machines.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.atrous import set_output_stride
from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import DEEP_STEM, IMAGENET_STEM, VARIANTS, ResNet, Stem, Variant
from bestiary.heads.deep_stem import start_past_the_stem
from bestiary.heads.published import VOC_21
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits
from bestiary.ops.pyramid_pooling import grid_means

BINS = (1, 2, 3, 6)

AUTHORS: tuple[tuple[str, str], ...] = (
    (r"^layer0\.([0-6])\.", r"backbone.conv1.\1."),
    (r"^layer0\.7\.", "backbone.bn1."),
    (r"^(layer[1-4])\.", r"backbone.\1."),
)
"""The authors' names of the trunk, and ours."""


class PyramidPooling(nn.Module):
    """The map and, of each grid of bins, the projected means at the map's size (section 3.2).

    Args:
        in_channels: C.
        width: channels of each projection, C / number of grids in the paper.
        bins: a side of each grid.
    """

    features: nn.ModuleList

    def __init__(self, in_channels: int, width: int, bins: Sequence[int] = BINS) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(
                GridMeans(n), nn.Conv2d(in_channels, width, 1, bias=False), LoneBatchNorm2d(width), nn.ReLU(True)
            )
            for n in bins
        )

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """[map, coarsest means .. finest means]."""
        size_hw = (features.shape[-2], features.shape[-1])
        means = (branch(features) for branch in self.features)
        larger = [F.interpolate(mean, size=size_hw, mode="bilinear", align_corners=True) for mean in means]
        return torch.cat([features, *larger], dim=1)


class GridMeans(nn.Module):
    """`ops.pyramid_pooling.grid_means` as a layer."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C _n _n"]:
        """Means."""
        return grid_means(features, self.bins)

    def extra_repr(self) -> str:
        """For printing."""
        return str(self.bins)


class PSPNet(WholePicture):
    """The network.

    The loss is the mean cross-entropy of the labelled pixels plus 0.4 times that of the auxiliary classifier (section
    4).

    Args:
        backbone: pictures to maps C2 to C5; C4 and C5 are used, and the corner cells of C5 must stand on the corners of
            a picture of a multiple of its stride, plus 1.
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        bins: of the pyramid.
        dropout: probability, of whole channels, before the last layer of both classifiers.
    """

    padding: ClassVar[Padding] = "mean"
    auxiliary_weights: ClassVar[Mapping[str, float]] = {"aux": 0.4}
    head_names = ("cls.4", "aux.4")

    backbone: Trunk
    ppm: PyramidPooling
    cls: nn.Sequential
    aux: nn.Sequential

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        bins: Sequence[int] = BINS,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(categories, normalize)
        last, before = backbone.levels[-1], backbone.levels[-2]
        self.geometry = InputGeometry(grid=last.stride, smallest=last.stride + 1)
        self.backbone = backbone
        self.ppm = PyramidPooling(last.channels, last.channels // len(bins), bins)
        pooled = last.channels + len(bins) * (last.channels // len(bins))
        self.cls = _classifier(pooled, last.channels // 4, len(categories), dropout)
        self.aux = _classifier(before.channels, before.channels // 4, len(categories), dropout)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel, and "aux"."""
        *_, c4, c5 = self.backbone(pixels)
        return PixelOutputs(self._logits(c5, pixels), {"aux": _at_size_of(pixels, self.aux(c4))})

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel; the auxiliary classifier does not run."""
        return self._logits(self.backbone(pixels)[-1], pixels)

    def _logits(self, c5: Tensor, pixels: Tensor) -> Float[Tensor, "B K H W"]:
        return _at_size_of(pixels, self.cls(self.ppm(c5)))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions; the authors' file by our names."""
        if "layer0.0.weight" not in state:
            return start_past_the_stem(state, self.state_dict())
        renamed = {_renamed(name): value for name, value in state.items()}
        return renamed, f"{len(renamed)} entries of the authors' file loaded"


def from_caffe_order(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state whose `cls.0` reads [map, 6, 3, 2, 1 bins], as in the authors' Caffe networks, for ours, which reads
    [map, 1, 2, 3, 6].
    """
    widths = [value.shape[0] for name, value in state.items() if re.fullmatch(r"ppm\.features\.\d+\.1\.weight", name)]
    weight = state["cls.0.weight"]
    parts = weight.split([weight.shape[1] - sum(widths), *reversed(widths)], dim=1)
    return {**state, "cls.0.weight": torch.cat([parts[0], *reversed(parts[1:])], dim=1)}


def psp_net_resnet50(categories: Sequence[str] | None = None, in_channels: int = 3) -> PSPNet:
    """On ResNet-50: 46,716,373 parameters for VOC's 21 classes, and 2,365,205 of the auxiliary classifier.

    Args:
        categories: K names; None gives VOC's 21.
        in_channels: channels of a picture.
    """
    return _build(VARIANTS["resnet50"], categories, in_channels, DEEP_STEM)


def psp_net_resnet101(categories: Sequence[str] | None = None, in_channels: int = 3) -> PSPNet:
    """On ResNet-101: 65,708,501 parameters for VOC's 21 classes, and 2,365,205 of the auxiliary classifier. The authors
    report a mean IoU of 0.854 on VOC's test pictures. Arguments as `psp_net_resnet50`.
    """
    return _build(VARIANTS["resnet101"], categories, in_channels, DEEP_STEM)


def psp_net_resnet18(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
    output_stride: Literal[8, 16] = 16,
) -> PSPNet:
    """On ResNet-18 with its plain stem, for small machines: 12,769,302 parameters for 11 classes.
    Arguments as `psp_net_resnet50`.

    Args:
        width: channels of the trunk's first stage, of which each later one has twice as many; a classifier can be the
            start at 64 only.
        output_stride: pixels per cell of the classified map; 8 in the paper, which costs three times as much.
    """
    variant = replace(VARIANTS["resnet18"], width=width)
    return _build(variant, categories, in_channels, IMAGENET_STEM, output_stride)


def _build(
    variant: Variant,
    categories: Sequence[str] | None,
    in_channels: int,
    stem: Stem,
    output_stride: Literal[8, 16] = 8,
) -> PSPNet:
    trunk = ResNet(variant, stem=stem, in_channels=in_channels)
    set_output_stride(trunk, output_stride)
    return PSPNet(trunk, VOC_21 if categories is None else categories, channel_normalize(in_channels))


def _classifier(in_channels: int, width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(width, num_classes, 1),
    )


def _at_size_of(pixels: Tensor, logits: Tensor) -> Float[Tensor, "B K H W"]:
    """Upsampled, corner cells on corner pixels."""
    return resize_logits(logits, (pixels.shape[-2], pixels.shape[-1]), align_corners=True)


def _renamed(name: str) -> str:
    for pattern, replacement in AUTHORS:
        name = re.sub(pattern, replacement, name)
    return name
