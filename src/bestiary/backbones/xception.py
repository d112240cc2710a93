"""The modified aligned Xception of DeepLab v3+ (Chen, Zhu, Papandreou, Schroff, Adam, ECCV 2018, section 3.2 and figure
4), after Chollet (Xception, CVPR 2017) and Qi et al. (COCO 2017 challenge).

All convolutions but the first two and the shortcuts are a 3x3 filter a channel and a 1x1 convolution; a unit has three,
the third of which strides where the original pools; a norm follows each filter and each 1x1. As in the authors'
released code: a ReLU stands before each separable convolution, only in the last unit after the filter and after the 1x1
instead; C2 is taken behind the second separable convolution of the second unit; a unit that would have strided keeps
the dilation before it. The entry has 64 to 728 channels, the middle 16 units of 728, the end 2,048.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.backbones.separable import conv_norm, depthwise, initialise, relu
from bestiary.errors import UsageError
from bestiary.layers.frozen_norm import NormLayer

Shortcut = Literal["convolution", "identity", "none"]


def small_epsilon_norm(channels: int) -> nn.Module:
    """Batch norm with an epsilon of 1e-3: a `norm` part."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class AlignedXception(Trunk):
    """The trunk: pictures to C2, at stride 4, and C5.

    Args:
        middle: units of the middle flow: 16 make Xception-65, 8 Xception-41.
        output_stride: of C5: 8, 16, or 32 for none that dilates.
        norm: makes every normalisation layer.
        in_channels: of the pictures.

    Raises:
        UsageError: another stride.
    """

    conv1: nn.Sequential
    conv2: nn.Sequential
    entry: nn.ModuleList
    middle: nn.ModuleList
    exit: nn.ModuleList

    def __init__(
        self,
        middle: int = 16,
        output_stride: Literal[8, 16, 32] = 16,
        *,
        norm: NormLayer = small_epsilon_norm,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = conv_norm(in_channels, 32, 3, norm, relu, stride=2)
        self.conv2 = conv_norm(32, 64, 3, norm, relu)
        widths = (64, 128, 256, 728)
        self.entry = nn.ModuleList(
            XceptionUnit(i, (o, o, o), "convolution", norm) for i, o in itertools.pairwise(widths)
        )
        self.middle = nn.ModuleList(XceptionUnit(728, (728, 728, 728), "identity", norm) for _ in range(middle))
        first = XceptionUnit(728, (728, 1024, 1024), "convolution", norm)
        last = XceptionUnit(1024, (1536, 1536, 2048), "none", norm, activates=True)
        self.exit = nn.ModuleList([first, last])
        initialise(self, "fan_in")
        self.set_output_stride(output_stride)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """C2 and C5."""
        _, features = self.entry[0](self.conv2(self.conv1(pixels)))  # stride 4
        early, features = self.entry[1](features)  # stride 4 and 8
        later: list[nn.Module] = [self.entry[2], *self.middle, *self.exit]
        for unit in later:
            _, features = unit(features)
        return early, features

    def set_output_stride(self, output_stride: Literal[8, 16, 32]) -> None:
        """Strides and dilations that make C5's step `output_stride`; the parameters are the same at any."""
        if output_stride not in (8, 16, 32):
            raise UsageError(f"got {output_stride}, wanted 8, 16 or 32", where="output_stride")
        stride, dilation = 2, 1
        for unit in self.modules():
            if not isinstance(unit, XceptionUnit):
                continue
            strides = unit.shortcut_kind == "convolution"
            dilates = strides and stride == output_stride
            unit.set_step(2 if strides and not dilates else 1, dilation)
            stride *= 2 if strides and not dilates else 1
            dilation *= 2 if dilates else 1
        self.levels = (Level("C2", 256, 4), Level("C5", 2048, output_stride))


class XceptionUnit(nn.Module):
    """Three separable convolutions and the shortcut.

    Args:
        in_channels: of the input.
        widths: channels after each convolution.
        shortcut: a strided 1x1 convolution, the input itself, or none.
        norm: makes the normalisation layers.
        activates: a ReLU after each filter and each 1x1 instead of one before each pair.
    """

    convs: nn.ModuleList
    shortcut: nn.Sequential | None

    def __init__(
        self, in_channels: int, widths: Sequence[int], shortcut: Shortcut, norm: NormLayer, activates: bool = False
    ) -> None:
        super().__init__()
        self.shortcut_kind, self.activates = shortcut, activates
        inputs, act = (in_channels, *widths[:-1]), relu if activates else None
        self.convs = nn.ModuleList(
            nn.Sequential(depthwise(i, 3, norm, act), conv_norm(i, o, 1, norm, act))
            for i, o in zip(inputs, widths, strict=True)
        )
        self.shortcut = conv_norm(in_channels, widths[-1], 1, norm, None) if shortcut == "convolution" else None

    def forward(
        self, features: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B C2 H W"], Float[Tensor, "B C3 H2 W2"]]:
        """The map after the second convolution, and the unit's own."""
        found = [features]
        for convolution in self.convs:
            found.append(convolution(found[-1] if self.activates else F.relu(found[-1])))
        if self.shortcut_kind == "none":
            return found[2], found[3]
        return found[2], found[3] + (features if self.shortcut is None else self.shortcut(features))

    def set_step(self, stride: int, dilation: int) -> None:
        """The stride of the third convolution and the shortcut, and the dilation of all filters."""
        filters = [m for m in self.convs.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for convolution in filters:
            convolution.dilation = convolution.padding = (dilation, dilation)
        strided = [filters[-1], *(m for m in (self.shortcut or ()) if isinstance(m, nn.Conv2d))]
        for convolution in strided:
            convolution.stride = (stride, stride)
