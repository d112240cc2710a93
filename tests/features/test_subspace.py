"""Principal components are those of the singular value decomposition."""

import itertools

import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.features.subspace import PrincipalSubspace


def rows(count: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator) * torch.linspace(3, 0.3, size) + 2


def fitted(data: torch.Tensor, components: int | float) -> PrincipalSubspace:
    space = PrincipalSubspace(components)
    space.fit(data)
    return space


@pytest.mark.parametrize(("count", "size"), [(9, 40), (60, 12)])
def test_components_are_singular_vectors_up_to_sign(count: int, size: int) -> None:
    data = rows(count, size)
    space = fitted(data, 6)
    _, values, vectors = torch.linalg.svd(data.double() - data.double().mean(0), full_matrices=False)
    cosines = (space.components.double() * vectors[:6]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(6, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(space.variances.double(), values[:6] ** 2 / count, rtol=1e-5, atol=0)
    torch.testing.assert_close(space.components @ space.components.T, torch.eye(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "size"), [(9, 40), (60, 12)])
def test_all_components_rebuild_and_fewer_rebuild_worse(count: int, size: int) -> None:
    data = rows(count, size)
    rank = min(count - 1, size)
    errors = [float(fitted(data, k).distance(data).square().sum()) for k in range(1, rank + 1)]
    assert errors[-1] < 1e-6 * errors[0]
    assert all(later <= sooner for sooner, later in itertools.pairwise(errors))
    assert len(fitted(data, rank + 5).components) == rank


def test_coefficients_have_mean_zero_and_the_stated_variances() -> None:
    data = rows(30, 50)
    space = fitted(data, 7)
    coefficients = space.project(data)
    torch.testing.assert_close(coefficients.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(coefficients.var(0, correction=0), space.variances, rtol=1e-4, atol=0)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_share_of_the_variance_takes_as_few_as_hold_it(share: float) -> None:
    data = rows(40, 20)
    total = float(data.double().var(0, correction=0).sum())
    held = fitted(data, share).variances.double().cumsum(0) / total
    assert held[-1] >= share - 1e-6
    assert len(held) == 1 or held[-2] < share


def test_signs_do_not_depend_on_the_way() -> None:
    data = rows(12, 11)
    gram, covariance = fitted(data[:11], 4), fitted(torch.cat([data[:11], data[:11]]), 4)
    torch.testing.assert_close(gram.components, covariance.components, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_equal_rows_span_nothing(count: int) -> None:
    space = fitted(torch.full((count, 5), 2.0), 3)
    assert space.components.shape == (0, 5)
    assert float(space.distance(torch.full((1, 5), 3.0))) == pytest.approx(5**0.5)


@pytest.mark.parametrize("components", [0, -1, 1.5])
def test_impossible_numbers_of_components_are_refused(components: float) -> None:
    with pytest.raises(UsageError, match="components"):
        PrincipalSubspace(components)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RecordError, match="finite"):
        PrincipalSubspace(2).fit(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
