"""Darknet's reorg against its loop, element by element."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops.reorg import reorg


def by_darknets_loop(maps: Tensor, stride: int) -> Tensor:
    """The published rule on flat indices: the input is addressed as C / s^2 channels of s H by s W."""
    channels, height, width = maps.shape
    flat, out = maps.flatten(), torch.empty(maps.numel(), dtype=maps.dtype)
    few = channels // stride**2
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                offset, source = divmod(k, few)
                x, y = i * stride + offset % stride, j * stride + offset // stride
                out[i + width * (j + height * k)] = flat[x + width * stride * (y + height * stride * source)]
    return out.view(channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize(("shape", "stride"), [((8, 4, 6), 2), ((4, 2, 2), 2), ((18, 3, 6), 3), ((5, 3, 2), 1)])
def test_it_is_darknets_order(shape: tuple[int, int, int], stride: int) -> None:
    maps = torch.arange(math.prod(shape)).view(1, *shape)
    got = reorg(torch.cat([maps, maps + 1000]), stride)
    assert torch.equal(got[0], by_darknets_loop(maps[0], stride))
    assert torch.equal(got[1], got[0] + 1000)


def test_it_is_not_pixel_unshuffle_but_holds_the_same_numbers() -> None:
    maps = torch.arange(64 * 26 * 26).view(1, 64, 26, 26).float()
    got, other = reorg(maps), F.pixel_unshuffle(maps, 2)
    assert got.shape == other.shape == (1, 256, 13, 13)
    assert not torch.equal(got, other)
    assert torch.equal(got.flatten().sort().values, maps.flatten())


def test_gradients_come_back_to_their_places() -> None:
    maps = torch.randn(2, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 32, 2, 2, dtype=torch.float64)
    (reorg(maps) * weights).sum().backward()
    assert maps.grad is not None
    assert torch.equal(reorg(maps.grad), weights)


@pytest.mark.parametrize("shape", [(1, 4, 3, 4), (1, 4, 4, 3), (1, 6, 4, 4)])
def test_what_does_not_divide_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecordError, match="multiple of 4"):
        reorg(torch.zeros(shape))
