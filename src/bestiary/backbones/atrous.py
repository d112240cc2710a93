"""Trunks that dilate instead of striding, as DeepLab has them (Chen et al.: DeepLab, TPAMI 2018, section 3.1;
Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, sections 3.1 and 3.2).

Every block of a stage that no longer strides is dilated, the first one too, unlike `ResNet(dilate=...)`, which is
torchvision's. The parameters are the strided net's, so that a classifier can be the start, and the stride can be
changed at any time: DeepLab v3 learns at 16 and is tested at 8.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.backbones.vgg import VGG
from bestiary.errors import UsageError
from bestiary.layers.frozen_norm import NormLayer

OutputStride = Literal[8, 16, 32]
"""Pixels of the picture per step of the last map."""


class AtrousResNet(ResNet):
    """A `ResNet` whose last map has `output_stride`.

    Args:
        variant: a row of `resnet.VARIANTS`.
        output_stride: 8, 16, or 32 for none that dilates.
        multi_grid: factor on the dilation of each block of the last stage, in turn ((1, 2, 4) in DeepLab v3); one
            factor for all.
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Raises:
        UsageError: another stride, or factors that are not as many as the last stage has blocks.
    """

    def __init__(
        self,
        variant: Variant,
        output_stride: OutputStride = 8,
        multi_grid: Sequence[int] = (1,),
        *,
        norm: NormLayer = nn.BatchNorm2d,
        in_channels: int = 3,
    ) -> None:
        super().__init__(variant, norm=norm, in_channels=in_channels)
        self.multi_grid = tuple(multi_grid)
        self.set_output_stride(output_stride)

    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Another stride for the same parameters."""
        set_output_stride(self, output_stride, self.multi_grid)


def set_output_stride(trunk: ResNet, output_stride: OutputStride, multi_grid: Sequence[int] = (1,)) -> None:
    """Give each stage the stride and dilation that make the last map's step `output_stride`. Arguments as
    `AtrousResNet`.
    """
    if output_stride not in (8, 16, 32):
        raise UsageError(f"got {output_stride}, wanted 8, 16 or 32", where="output_stride")
    if len(multi_grid) not in (1, len(trunk.layer4)) or min(multi_grid) < 1:
        wanted = f"one factor or {len(trunk.layer4)}, each at least 1"
        raise UsageError(f"got {tuple(multi_grid)}, wanted {wanted}", where="multi_grid")
    stages, levels, dilation = (trunk.layer2, trunk.layer3, trunk.layer4), [trunk.levels[0]], 1
    for stage, level in zip(stages, trunk.levels[1:], strict=True):
        strides = levels[-1].stride < output_stride
        dilation *= 1 if strides else 2
        factors = multi_grid if stage is trunk.layer4 else (1,)
        _set_stride(stage[0], 2 if strides else 1)
        for i, block in enumerate(stage):
            _set_dilation(block, dilation * factors[i % len(factors)])
        levels.append(replace(level, stride=levels[-1].stride * (2 if strides else 1)))
    trunk.levels = tuple(levels)


def _set_stride(block: nn.Module, stride: int) -> None:
    """Of a stage's first block: of the convolution that strides, and of the shortcut."""
    strides_first = isinstance(block, BasicBlock) or getattr(block, "stride_in_first", False)
    for convolution in (block.conv1 if strides_first else block.conv2, block.downsample[0]):  # type: ignore[index]
        convolution.stride = (stride, stride)  # type: ignore[union-attr]


def _set_dilation(block: nn.Module, dilation: int) -> None:
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (3, 3):
            convolution.dilation = convolution.padding = (dilation, dilation)


def atrous_vgg(trunk: VGG) -> VGG:
    """The same trunk with 3x3 pools that keep the corners of a map on the picture's: at stride 8, sides of 8 n + 1
    pixels become n + 1 places (the authors' released nets). It should have been made with `output_stride=8`.
    """
    for place, layer in enumerate(trunk.features):
        if isinstance(layer, nn.MaxPool2d):
            trunk.features[place] = nn.MaxPool2d(3, layer.stride, 1)
    return trunk
