"""Convolutions of one filter a channel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` of one filter a channel, without bias; on the CPU in float32 where bfloat16 is slow.

    For a stride, a larger kernel than 3x3, or a dilation oneDNN's gradients in bfloat16 take much longer than those in
    float32: nearly half of a training step of MobileNetV3-small (benchmarks/depthwise.py). Such layers leave autocast
    for float32; what comes out is of autocast's type again.

    Args:
        channels: in and out.
        kernel, stride, padding, dilation: as of `nn.Conv2d`.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
        self.leaves_autocast = stride > 1 or kernel > 3 or dilation > 1

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
        """One filter a channel."""
        if not (self.leaves_autocast and torch.is_autocast_enabled("cpu") and input.device.type == "cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))
