"""What the nets of depthwise separable convolutions share: widths in multiples of 8, and convolution-norm-activation.

A depthwise convolution has as many groups as channels; with the 1x1 after it it costs 1 / C_out + 1 / k^2 of the full
k x k convolution (Howard et al.: MobileNets, 2017, section 3.1).
"""

from collections.abc import Callable
from typing import Literal

from torch import nn

from bestiary.layers.depthwise import DepthwiseConv2d
from bestiary.layers.frozen_norm import NormLayer

Activation = Callable[[], nn.Module]
"""A part that makes an activation."""


def make_divisible(channels: int | float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least one, and never below 90 % of `channels`."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def relu() -> nn.ReLU:
    """A ReLU that overwrites its input."""
    return nn.ReLU(inplace=True)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm: NormLayer,
    activation: Activation | None,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution without bias, norm and activation as children 0, 1 and 2; keeps the size at stride 1."""
    padding = (kernel - 1) // 2 * dilation
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
    return _with_norm(convolution, norm, activation)


def depthwise(
    channels: int, kernel: int, norm: NormLayer, activation: Activation | None, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """`conv_norm` of one filter a channel."""
    convolution = DepthwiseConv2d(channels, kernel, stride, (kernel - 1) // 2 * dilation, dilation)
    return _with_norm(convolution, norm, activation)


def _with_norm(convolution: nn.Conv2d, norm: NormLayer, activation: Activation | None) -> nn.Sequential:
    layers = (convolution, norm(convolution.out_channels))
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation())


def initialise(network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """He et al., ICCV 2015, for convolutions, N(0, 0.01) for linear layers.

    torchvision starts MobileNetV2 and V3 by fan-out, which does not know of groups: the filters of a wide depthwise
    convolution begin so small that the first steps turn them by large angles. Fan-in counts groups.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
