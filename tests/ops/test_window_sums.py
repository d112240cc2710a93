"""Means from running sums, against the operator that they stand in for."""

import pytest
import torch

from bestiary.ops.window_pooling import Windows, mean_in_windows
from bestiary.ops.window_sums import mean_by_sums


def windows(count: int, bins: tuple[int, int], size_hw: tuple[int, int]) -> Windows:
    """Windows of any extent, some of them empty, in two pictures."""
    draw = torch.Generator().manual_seed(0)

    def edges(number: int, side: int) -> torch.Tensor:
        first = torch.randint(0, side, (count, number), generator=draw)
        last = first + torch.randint(-1, side, (count, number), generator=draw)
        return torch.stack([first, last.clamp(0, side)], -1)

    pictures = torch.randint(0, 2, (count,), generator=draw)
    return Windows(pictures, edges(bins[0], size_hw[0]), edges(bins[1], size_hw[1]))


@pytest.mark.parametrize("by_position", [True, False])
def test_means_are_those_of_the_operator(by_position: bool) -> None:
    maps = torch.randn(2, 12, 17, 23, generator=torch.Generator().manual_seed(1)) + 5
    asked = windows(30, (3, 2), (17, 23))
    wanted = mean_in_windows(maps, asked, by_position)
    got = mean_by_sums(maps, *asked, by_position)
    assert got.shape == wanted.shape == (30, 2 if by_position else 12, 3, 2)
    assert (wanted == 0).any(), "a window without a pixel"
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


def test_a_large_mean_costs_no_digits() -> None:
    maps = torch.randn(1, 4, 60, 80, generator=torch.Generator().manual_seed(2)) + 1000
    asked = Windows(torch.zeros(1, dtype=torch.int64), torch.tensor([[[58, 60]]]), torch.tensor([[[77, 80]]]))
    torch.testing.assert_close(
        mean_by_sums(maps, *asked)[0, :, 0, 0], maps[0, :, 58:, 77:].mean((1, 2)), rtol=0, atol=1e-3
    )


def test_no_region_is_legal() -> None:
    nothing = Windows(torch.zeros(0, dtype=torch.int64), *(torch.zeros(0, 2, 2, dtype=torch.int64) for _ in range(2)))
    assert mean_by_sums(torch.rand(1, 8, 5, 5), *nothing, True).shape == (0, 2, 2, 2)
