"""Interpolation and the transposed convolution that it stands for."""

import pytest
import torch
from torch import nn

from bestiary.errors import UsageError
from bestiary.layers.bilinear_upsampling import BilinearUpsampling


@pytest.mark.parametrize("factor", [2, 8, 32])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (6, 1)])
def test_interpolation_is_the_transposed_convolution(factor: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    fixed, learned = (BilinearUpsampling(3, factor, learns).double() for learns in (False, True))
    got, wanted = fixed(maps), learned(maps)
    assert got.shape[-2:] == tuple(factor * (n + 1) for n in size)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    signal = torch.randn_like(got)
    gradients = [torch.autograd.grad(output, maps, signal)[0] for output in (got, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-10)


def test_kernels_are_caffes_and_learn_only_if_told() -> None:
    for learns in (False, True):
        layer = BilinearUpsampling(4, 2, learns)
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])
        assert torch.equal(layer.weight, torch.eye(4)[..., None, None] * line[:, None] * line)
        assert layer.bias is None
        assert [p.requires_grad for p in layer.parameters()] == [learns]


def test_learned_kernels_count() -> None:
    layer = BilinearUpsampling(2, 4, True)
    nn.init.normal_(layer.weight)
    maps = torch.randn(1, 2, 3, 3)
    assert torch.equal(layer(maps), nn.functional.conv_transpose2d(maps, layer.weight, stride=4))


@pytest.mark.parametrize("factor", [0, 3])
def test_an_odd_factor_is_refused(factor: int) -> None:
    with pytest.raises(UsageError, match="wanted an even number"):
        BilinearUpsampling(1, factor, False)
