import pytest
import torch

from bestiary.errors import UsageError
from bestiary.layers.sparse_convolution import SparseConv2d, drawn_connections

SEEN = [[0, 2], [1], [0, 1, 2, 3]]


def test_each_map_is_the_sum_over_those_it_sees() -> None:
    conv, features = SparseConv2d(4, SEEN, 3), torch.rand(2, 4, 6, 7)
    torch.nn.init.normal_(conv.bias)
    found, row = conv(features), 0
    for output, inputs in enumerate(SEEN):
        total = conv.bias[output].expand(2, 4, 5)
        for i in inputs:
            kernel = conv.weight[row][None, None]
            total = total + torch.nn.functional.conv2d(features[:, i : i + 1], kernel)[:, 0]
            row += 1
        assert torch.allclose(found[:, output], total, atol=1e-5)


def test_only_connections_have_weights_and_all_learn() -> None:
    conv = SparseConv2d(4, SEEN, 3)
    assert sum(p.numel() for p in conv.parameters()) == 7 * 9 + 3
    conv(torch.rand(1, 4, 5, 5)).square().sum().backward()
    assert conv.weight.grad is not None
    assert (conv.weight.grad.abs().sum((1, 2)) > 0).all()


def test_the_variance_of_the_inputs_is_kept() -> None:
    torch.manual_seed(0)
    conv = SparseConv2d(16, drawn_connections(16, 200, 8, 0), 7)
    assert float(conv(torch.randn(1, 16, 20, 20)).detach().std()) == pytest.approx(1, abs=0.05)


def test_drawn_tables_are_fair_and_the_same_again() -> None:
    table = drawn_connections(16, 64, 8, 1)
    assert table == drawn_connections(16, 64, 8, 1)
    assert table != drawn_connections(16, 64, 8, 2)
    assert all(len(set(row)) == 8 for row in table)
    uses = torch.tensor([i for row in table for i in row]).bincount(minlength=16)
    assert uses.tolist() == [32] * 16
    assert len({tuple(row) for row in table}) > 32


@pytest.mark.parametrize("seen", [[[]], [[0, 0]], [[4]], [[-1]]])
def test_tables_that_cannot_be_are_refused(seen: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="each once"):
        SparseConv2d(4, seen, 3)
