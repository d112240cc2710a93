"""The residual blocks of ResNet (He et al., CVPR 2016, figure 5) and of its grouped and widened descendants."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.layers.frozen_norm import NormLayer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (figure 5, left).

    Args:
        in_channels: of the block's input.
        width: channels of the stage before `expansion`.
        stride: of the first convolution.
        dilation: of both.
        groups: must be 1: grouping is defined for bottlenecks only.
        group_width: must be 64.
        norm: makes the normalisation layers.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, dilation: int, groups: int, group_width: int, norm: NormLayer
    ) -> None:
        super().__init__()
        if groups != 1 or group_width != 64:
            raise UsageError(f"got groups={groups}, group_width={group_width}, wanted 1 and 64", where="BasicBlock")
        self.conv1 = conv3x3(in_channels, width, stride, dilation)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, 1, dilation)
        self.bn2 = norm(width)
        self.downsample = projection(in_channels, width, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the addition: with its weight at zero the branch vanishes."""
        return self.bn2

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """relu(F(x) + shortcut(x))."""
        branch = F.relu(self.bn1(self.conv1(features)), inplace=True)
        branch = self.bn2(self.conv2(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        return F.relu(branch + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt), 1x1 to four times the width, and the shortcut (figure 5, right).

    Args: as `BasicBlock`; the 3x3 has `groups * (width * group_width / 64)` channels.
    """

    expansion: ClassVar[int] = 4
    stride_in_first: ClassVar[bool] = False

    def __init__(
        self, in_channels: int, width: int, stride: int, dilation: int, groups: int, group_width: int, norm: NormLayer
    ) -> None:
        super().__init__()
        inner, outer = width * group_width // 64 * groups, width * self.expansion
        first, second = (stride, 1) if self.stride_in_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, first, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = conv3x3(inner, inner, second, dilation, groups)
        self.bn2 = norm(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = norm(outer)
        self.downsample = projection(in_channels, outer, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the addition: with its weight at zero the branch vanishes."""
        return self.bn3

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """relu(F(x) + shortcut(x))."""
        branch = F.relu(self.bn1(self.conv1(features)), inplace=True)
        branch = F.relu(self.bn2(self.conv2(branch)), inplace=True)
        branch = self.bn3(self.conv3(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        return F.relu(branch + shortcut, inplace=True)


class MSRABottleneck(Bottleneck):
    """The paper's form: stride on the first 1x1. MSRA, Caffe and Detectron files need it."""

    stride_in_first: ClassVar[bool] = True


Block = BasicBlock | Bottleneck


def conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


def projection(in_channels: int, out_channels: int, stride: int, norm: NormLayer) -> nn.Sequential | None:
    """The 1x1 shortcut of equation 2, or None where the identity fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))
