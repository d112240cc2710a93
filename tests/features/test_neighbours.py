"""Nearest rows are exact, tie by order, and do not depend on threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import RecordError
from bestiary.features.neighbours import nearest_histograms, nearest_rows, vote


def brute(queries: torch.Tensor, store: torch.Tensor, k: int, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    gaps = queries.double()[:, None] - store.double()[None]
    # whole numbers are exact, so rows are ranked before the root is taken
    order = torch.sort(gaps.abs().sum(2) if metric == "l1" else gaps.square().sum(2), dim=1, stable=True)
    return order.values[:, :k] if metric == "l1" else order.values[:, :k].sqrt(), order.indices[:, :k]


@given(st.integers(1, 9), st.integers(1, 200), st.integers(1, 40), st.sampled_from(["l1", "l2"]), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_nearest_rows_are_those_of_brute_force(queries: int, rows: int, size: int, metric: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few values, so that equal distances abound.
    a = torch.randint(0, 4, (queries, size), generator=generator).to(torch.uint8) * 85
    b = torch.randint(0, 4, (rows, size), generator=generator).to(torch.uint8) * 85
    k = min(rows, 5)
    distances, indices = nearest_rows(a, b, k, metric)
    wanted = brute(a, b, k, metric)
    assert torch.equal(indices, wanted[1])
    # two roots may differ in the last bit
    torch.testing.assert_close(distances, wanted[0], rtol=1e-15, atol=0)


def test_long_rows_do_not_overflow() -> None:
    low, high = torch.zeros(1, 70_000, dtype=torch.uint8), torch.full((1, 70_000), 255, dtype=torch.uint8)
    assert nearest_rows(low, high, 1, "l2")[0].item() == (70_000 * 255**2) ** 0.5
    assert nearest_rows(high, low, 1, "l1")[0].item() == 70_000 * 255


def test_threads_change_nothing() -> None:
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    rows = torch.randint(0, 256, (300, 50), generator=generator).to(torch.uint8)
    bins = torch.rand(20, 300, generator=generator)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append((*nearest_rows(rows, rows, 3, "l1"), *nearest_histograms(bins.T.contiguous(), bins, 3)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nearest_histograms_have_most_in_common() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, store = torch.rand(7, 30, generator=generator), torch.rand(90, 30, generator=generator)
    queries[queries < 0.6] = 0  # most bins are empty, as in real ones
    common, indices = nearest_histograms(queries, store.T.contiguous(), 4)
    wanted = torch.minimum(queries[:, None].double(), store[None].double()).sum(2)
    order = torch.sort(wanted, dim=1, descending=True, stable=True)
    torch.testing.assert_close(common, order.values[:, :4], rtol=1e-6, atol=1e-6)
    assert torch.equal(indices, order.indices[:, :4])


def test_of_equal_histograms_the_first_is_nearest() -> None:
    store = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]]).T.contiguous()
    assert nearest_histograms(torch.tensor([[0.5, 0.5]]), store, 3)[1].tolist() == [[1, 2, 0]]


def test_votes_are_shares() -> None:
    assert vote(torch.tensor([[2, 0, 2, 2]]), 3).tolist() == [[0.25, 0.0, 0.75]]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    rows = torch.zeros(3, 5, dtype=torch.uint8)
    with pytest.raises(RecordError, match="1 to 3"):
        nearest_rows(rows, rows, k, "l1")


def test_rows_of_different_lengths_are_refused(unchecked: None) -> None:
    with pytest.raises(RecordError, match="shapes"):
        nearest_rows(torch.zeros(3, 5, dtype=torch.uint8), torch.zeros(3, 6, dtype=torch.uint8), 1, "l1")
