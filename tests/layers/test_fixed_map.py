"""A map of one size, and the error for every other."""

import pytest
import torch
from torch import fx, nn

from bestiary.errors import UsageError
from bestiary.layers.fixed_map import FixedMap


def test_lets_the_right_size_through_untouched() -> None:
    features = torch.rand(2, 3, 6, 6)
    assert FixedMap(6, 227)(features) is features


@pytest.mark.parametrize("size", [(5, 6), (6, 7), (1, 1)])
def test_refuses_all_others_and_says_what_to_give(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"map of {size[0]}x{size[1]}, wanted 6x6.*227x227.*crop=SIDE"):
        FixedMap(6, 227)(torch.rand(1, 3, *size))


@pytest.mark.usefixtures("unchecked")
def test_still_refuses_in_a_traced_graph() -> None:
    graph = fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 1, 1), FixedMap(4, 32)))
    assert graph(torch.rand(1, 1, 4, 4)).shape == (1, 1, 4, 4)
    with pytest.raises(UsageError, match="wanted 4x4"):
        graph(torch.rand(1, 1, 5, 5))
