"""Pooling, unpooling, upsampling, corner pooling and response normalisation beside torch's own."""

from collections.abc import Callable

import torch
from benchmarks.op_cases import Case, Peers
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.convolution import interleaved_convolution
from bestiary.ops.corner_pooling import Direction, corner_pool
from bestiary.ops.pooling import max_pool_with_indices
from bestiary.ops.response_norm import local_response_norm
from bestiary.ops.unpooling import max_unpool
from bestiary.ops.upsampling import bilinear_filler, sub_pixel, upsample, upsample_bilinear_transposed


def with_gradient(op: Callable[[Tensor], Tensor], maps: Tensor) -> Callable[[], object]:
    """Forward and backward, with a gradient that is not constant."""
    leaf, weight = maps.clone().requires_grad_(), torch.randn(op(maps).shape)
    return lambda: torch.autograd.grad((op(leaf) * weight).sum(), leaf)


def cumulative(maps: Tensor, axis: int, back: bool) -> Tensor:
    """Corner pooling as it is written with torch."""
    return torch.cummax(maps.flip(axis), axis).values.flip(axis) if back else torch.cummax(maps, axis).values


def cases(peers: Peers) -> list[Case]:
    """The peer is torch itself; nothing may be slower."""
    maps = torch.randn(2, 64, 128, 128, generator=torch.Generator().manual_seed(0))
    last = maps.contiguous(memory_format=torch.channels_last)
    found: list[Case] = []

    def add(name: str, ours: Callable[[], object], peer: Callable[[], object], peer_name: str) -> None:
        found.append(Case(f"{name}, 2x64x128x128", ours, peer, 1.0, peer_name))

    scans: list[tuple[Direction, int, bool]] = [("top", 2, True), ("bottom", 2, False)]
    scans.append(("left", 3, True))
    scans.append(("right", 3, False))
    for direction, axis, back in scans:
        add(
            f"corner_pool {direction}",
            lambda d=direction: corner_pool(maps, d),
            lambda a=axis, b=back: cumulative(maps, a, b),
            "torch.cummax",
        )
        add(
            f"corner_pool {direction} and gradient",
            with_gradient(lambda m, d=direction: corner_pool(m, d), maps),
            with_gradient(lambda m, a=axis, b=back: cumulative(m, a, b), maps),
            "torch.cummax",
        )
    for name, layout in (("", maps), (" channels-last", last)):
        pooled, indices = max_pool_with_indices(layout, 2)
        add(
            f"max_unpool{name}",
            lambda p=pooled, i=indices: max_unpool(p, i, (128, 128)),
            lambda p=pooled, i=indices: F.max_unpool2d(p, i, [2, 2]),
            "F.max_unpool2d",
        )
        add(
            f"local_response_norm{name}",
            lambda m=layout: local_response_norm(m),
            lambda m=layout: F.local_response_norm(m, 5, 5e-4, 0.75, 2.0),
            "F.local_response_norm",
        )
    add(
        "local_response_norm and gradient",
        with_gradient(local_response_norm, maps),
        with_gradient(lambda m: F.local_response_norm(m, 5, 5e-4, 0.75, 2.0), maps),
        "F.local_response_norm",
    )
    add(
        "max_pool_with_indices",
        lambda: max_pool_with_indices(maps, 2),
        lambda: F.max_pool2d(maps, 2, return_indices=True),
        "F.max_pool2d",
    )
    add("sub_pixel", lambda: sub_pixel(maps, 2), lambda: F.pixel_shuffle(maps, 2), "F.pixel_shuffle")
    add(
        "upsample linear",
        lambda: upsample(maps, 2),
        lambda: F.interpolate(maps, scale_factor=2, mode="bilinear"),
        "F.interpolate",
    )
    filler = bilinear_filler(4, 64, groups=64)
    add(
        "upsample_bilinear_transposed",
        lambda: upsample_bilinear_transposed(maps, 2),
        lambda: F.conv_transpose2d(maps, filler, stride=2, padding=1, groups=64),
        "F.conv_transpose2d",
    )
    weight = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(1))
    found.append(
        Case(
            "interleaved_convolution, dilation 4, 2x64x128x128",
            lambda: interleaved_convolution(maps, weight, None, 4, 4),
            lambda: F.conv2d(maps, weight, None, 1, 4, 4),
            None,
            "F.conv2d",
        )
    )
    return found
