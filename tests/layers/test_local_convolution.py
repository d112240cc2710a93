"""A convolution without shared weights."""

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.layers.local_convolution import LocalConvolution


def test_with_the_same_filters_everywhere_it_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer, filters, maps = LocalConvolution(3, 4, 3, (5, 6)), torch.randn(4, 3, 3, 3), torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        layer.weight.copy_(filters.flatten(1).expand(30, -1, -1))
        layer.bias.copy_(torch.arange(4.0)[:, None, None])
    wanted = F.conv2d(maps, filters, torch.arange(4.0), padding=1)
    torch.testing.assert_close(layer(maps), wanted, atol=1e-5, rtol=1e-5)


def test_each_place_has_its_own() -> None:
    torch.manual_seed(0)
    layer, maps = LocalConvolution(2, 3, 3, (4, 5)), torch.randn(1, 2, 4, 5)
    out = layer(maps)
    padded = F.pad(maps, (1, 1, 1, 1))[0]
    for y in range(4):
        for x in range(5):
            window = padded[:, y : y + 3, x : x + 3].flatten()
            wanted = layer.weight[y * 5 + x] @ window + layer.bias[:, y, x]
            torch.testing.assert_close(out[0, :, y, x], wanted, atol=1e-5, rtol=1e-5)
    out[0, :, 1, 2].sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum((1, 2)).nonzero().flatten().tolist() == [7]


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(RecordError, match=r"got a map of \(5, 4\), wanted \(4, 5\)"):
        LocalConvolution(2, 3, 3, (4, 5))(torch.zeros(1, 2, 5, 4))
