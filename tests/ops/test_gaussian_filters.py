import inspect
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.ops import gaussian_filters
from bestiary.ops.gaussian_filters import exact_gaussian_filter, grid_gaussian_filter


def cloud(count: int, dimensions: int, extent: float, seed: int = 0) -> Tensor:
    return torch.rand(count, dimensions, generator=torch.Generator().manual_seed(seed)) * extent


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def naive_gaussian(values: Tensor, features: Tensor) -> Tensor:
    out = torch.zeros_like(values)
    for i, here in enumerate(features):
        for j, there in enumerate(features):
            out[i] += (
                math.exp(-0.5 * sum((float(a) - float(b)) ** 2 for a, b in zip(here, there, strict=True))) * values[j]
            )
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_over_all_pairs_equals_the_loop(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = cloud(23, 3, 3.0).to(dtype), numbers(23, 2).to(dtype)
    wanted = naive_gaussian(values, features)
    torch.testing.assert_close(exact_gaussian_filter(values, features), wanted)
    monkeypatch.setattr(gaussian_filters, "_PAIRS_AT_ONCE", 50)
    torch.testing.assert_close(exact_gaussian_filter(values, features), wanted)
    assert exact_gaussian_filter(values[:0], features[:0]).shape == (0, 2)
    assert exact_gaussian_filter(values.half(), features).dtype == torch.float16


def test_the_sum_over_all_pairs_differentiates_values_and_features() -> None:
    features, values = cloud(6, 2, 3.0).double().requires_grad_(), numbers(6, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(exact_gaussian_filter, (values, features))


@pytest.mark.parametrize(
    ("height", "width", "sigma"), [(1, 1, 2.0), (9, 14, 0.8), (14, 5, 3.0), (70, 33, 3.0), (8, 8, 50)]
)
def test_on_a_grid_it_is_the_sum_over_all_pixels(height: int, width: int, sigma: float) -> None:
    values = numbers(height, width, 3).double()
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    features = torch.stack([y, x], dim=-1).flatten(0, 1).double() / sigma
    wanted = exact_gaussian_filter(values.flatten(0, 1), features).view_as(values)
    torch.testing.assert_close(grid_gaussian_filter(values, sigma), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grid_gaussian_filter(values.float(), sigma), wanted.float(), rtol=3e-6, atol=3e-6)
    turned = values.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    torch.testing.assert_close(grid_gaussian_filter(turned, sigma), wanted, rtol=1e-12, atol=1e-12)


def test_on_a_grid_it_is_scipys() -> None:
    values = numbers(40, 60, 2)
    weight = 2 * math.pi * 2.5**2
    inside = gaussian_filter(values.double().numpy(), (2.5, 2.5, 0), mode="constant", truncate=8) * weight
    assert np.abs(grid_gaussian_filter(values, 2.5).numpy() - inside).max() < 1e-4 * inside.max()


def test_grid_gradients_empties_and_errors() -> None:
    values = numbers(4, 20, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: grid_gaussian_filter(v, 1.5), (values,))
    assert grid_gaussian_filter(torch.zeros(0, 5, 2), 1).shape == (0, 5, 2)
    assert grid_gaussian_filter(torch.zeros(5, 0, 2), 1).shape == (5, 0, 2)
    assert grid_gaussian_filter(torch.zeros(5, 4, 0), 1).shape == (5, 4, 0)
    for bad in (0, -1.0, math.inf, math.nan):
        with pytest.raises(RecordError, match="positive"):
            grid_gaussian_filter(torch.zeros(2, 2, 1), bad)
    with pytest.raises(RecordError, match="H, W, C"):
        inspect.unwrap(grid_gaussian_filter)(torch.zeros(2, 2), 1.0)
    with pytest.raises(RecordError, match="wanted \\(N, C\\) and \\(N, d\\)"):
        inspect.unwrap(exact_gaussian_filter)(torch.zeros(3, 2), torch.zeros(2, 2))
