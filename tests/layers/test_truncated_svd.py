"""Truncated SVD: the nearest matrix of a rank, as two layers."""

import pytest
import torch
from torch import nn

from bestiary.errors import UsageError
from bestiary.layers.truncated_svd import FactoredLinear, factor_matrix, factor_state


@pytest.mark.parametrize("shape", [(6, 11), (11, 6), (7, 7)])
@pytest.mark.parametrize("rank", [1, 4, 6])
def test_the_factors_are_those_of_the_singular_value_decomposition(shape: tuple[int, int], rank: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(rank))
    first, second = factor_matrix(weight, rank)
    left, sizes, right = (part.float() for part in torch.linalg.svd(weight.double(), full_matrices=False))
    nearest = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    assert first.shape == (rank, shape[1])
    assert second.shape == (shape[0], rank)
    torch.testing.assert_close(second @ first, nearest, atol=2e-6, rtol=0)
    torch.testing.assert_close(second.T @ second, torch.eye(rank), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.norm(dim=1), sizes[:rank], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_full_rank_keeps_every_answer(shape: tuple[int, int]) -> None:
    layer = nn.Linear(shape[1], shape[0])
    twin = FactoredLinear(shape[1], shape[0], min(shape))
    twin.load_state_dict(
        {
            k[2:]: v
            for k, v in factor_state({f"l.{k}": v for k, v in layer.state_dict().items()}, "l", min(shape)).items()
        }
    )
    vectors = torch.randn(3, shape[1])
    torch.testing.assert_close(twin(vectors), layer(vectors), atol=1e-6, rtol=1e-5)
    assert (twin.in_features, twin.out_features, twin.rank) == (shape[1], shape[0], min(shape))


def test_a_matrix_of_low_rank_is_kept_by_that_rank_and_zero_columns_do_no_harm() -> None:
    weight = torch.randn(8, 2) @ torch.randn(2, 5)
    first, second = factor_matrix(weight, 2)
    torch.testing.assert_close(second @ first, weight, atol=1e-5, rtol=1e-5)
    for matrix in (torch.zeros(3, 2), torch.zeros(2, 3)):
        first, second = factor_matrix(matrix, 2)
        assert not (second @ first).any()


def test_the_parameters_are_t_times_the_sum_of_the_sides() -> None:
    layer = FactoredLinear(30, 20, 4)
    assert sum(p.numel() for p in layer.parameters()) == 4 * (30 + 20) + 20


@pytest.mark.parametrize("rank", [0, 6])
def test_a_rank_that_cannot_be_is_named(rank: int) -> None:
    with pytest.raises(UsageError, match=f"got {rank}, wanted 1 to 5"):
        factor_matrix(torch.zeros(5, 7), rank)
    with pytest.raises(UsageError, match=f"got {rank}, wanted 1 to 5"):
        FactoredLinear(7, 5, rank)
