"""Depthwise convolutions: those that bfloat16 slows down are computed in float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.layers.depthwise import DepthwiseConv2d


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 1), (3, 1, 2), (5, 2, 1)])
def test_under_autocast_the_type_is_autocasts_and_the_slow_ones_are_float32_inside(
    kernel: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(6, kernel, stride, kernel // 2 * dilation, dilation)
    pixels = torch.randn(2, 6, 11, 9).bfloat16().float().requires_grad_()
    exact = F.conv2d(pixels, layer.weight, None, stride, kernel // 2 * dilation, dilation, 6)
    assert torch.equal(layer(pixels), exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(pixels.bfloat16())
    assert found.dtype == torch.bfloat16
    rounded_weights = F.conv2d(
        pixels, layer.weight.bfloat16().float(), None, stride, kernel // 2 * dilation, dilation, 6
    )
    is_exact = torch.equal(found, exact.bfloat16())
    assert is_exact == ((kernel, stride, dilation) != (3, 1, 1))
    if not is_exact:  # the weights were rounded, as autocast does
        torch.testing.assert_close(found.float(), rounded_weights, rtol=2**-7, atol=1e-3)
    wanted = torch.autograd.grad(exact.sum(), [pixels, layer.weight])
    got = torch.autograd.grad(found.float().sum(), [pixels, layer.weight])
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g.float(), w, rtol=0.02, atol=0.05)


def test_it_is_the_plain_layer_but_for_that() -> None:
    torch.manual_seed(0)
    mine = DepthwiseConv2d(4, 3, 2, 1)
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False)
    assert isinstance(mine, nn.Conv2d)
    assert list(mine.state_dict()) == ["weight"]
    assert torch.equal(mine.weight, plain.weight)
