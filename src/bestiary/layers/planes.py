"""Dilated convolutions that must not see channels innermost.

With bfloat16 on a processor and channels innermost, oneDNN (as of torch 2.13) gives wrong gradients of the weights of a
dilated convolution, sometimes not finite ones, sometimes a crash, unless it has no groups and a multiple of 16 input
channels. Its outputs and the gradients of its inputs are right, and so is everything where channels are planes: a
network would train without a word and learn next to nothing in those layers.
"""

from typing import Any

import torch
from torch import Tensor, nn

SAFE_MULTIPLE = 16


def goes_wrong(convolution: nn.Conv2d) -> bool:
    """Whether its weights' gradients cannot be trusted in bfloat16 with channels innermost."""
    safe = convolution.groups == 1 and convolution.in_channels % SAFE_MULTIPLE == 0
    return max(convolution.dilation) > 1 and not safe


def see_planes(network: nn.Module) -> list[str]:
    """Have such convolutions see their channels as planes, whatever the layout around them; twice is as once.

    Returns:
        their names.
    """
    found = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and goes_wrong(module):
            # A copy: where an axis is one long, as a depthwise kernel's, `contiguous` keeps either layout's strides.
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
            if _as_planes not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_as_planes)
            found.append(name)
    return found


def _as_planes(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return (arguments[0].contiguous(), *arguments[1:])
