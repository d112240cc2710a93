"""Modulated deformable convolution."""

import torch
from benchmarks.op_cases import Case, Peers
from benchmarks.op_cases.regions import forward_and_backward

from bestiary.ops.deformable import deform_conv2d


def cases(peers: Peers) -> list[Case]:
    """256 to 256 channels, 3 x 3, on a map of 50 x 76: all five gradients in the backward pass."""
    g, rows = torch.Generator().manual_seed(0), []
    vision = peers.vision.ops if peers.vision else None
    for suffix, layout in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        leaves = [
            torch.randn(1, 256, 50, 76, generator=g).contiguous(memory_format=layout),
            torch.randn(1, 18, 50, 76, generator=g),
            torch.randn(256, 256, 3, 3, generator=g) * 0.02,
            torch.randn(256, generator=g),
            torch.rand(1, 9, 50, 76, generator=g),
        ]
        rows += forward_and_backward(
            f"deform_conv2d 256 -> 256, 3 x 3, 50 x 76{suffix}",
            lambda x, offset, weight, bias, mask: deform_conv2d(x, offset, weight, bias, 1, 1, 1, mask),
            (lambda x, o, w, b, m: vision.deform_conv2d(x, o, w, b, 1, 1, 1, m)) if vision else None,
            [leaf.requires_grad_() for leaf in leaves],
            (1.8, 7),
        )
    return rows
