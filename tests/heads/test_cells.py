"""The heads that make cells of maps."""

import pytest
import torch
from torch import nn

from bestiary.heads.cells import CellHead, ConnectedHead, ConvolutionHead, LocalHead

HEADS = [
    lambda: ConnectedHead(6, 3, 4, 2, hidden=(5,)),
    lambda: ConnectedHead(6, 3, 4, 2, hidden=()),
    lambda: LocalHead(6, 3, 4, 2, width=5),
    lambda: ConvolutionHead(6, 3, 4, 2),
]


@pytest.mark.parametrize("make", HEADS)
def test_each_gives_all_numbers_of_all_cells(make) -> None:
    torch.manual_seed(0)
    head: CellHead = make().eval()
    out = head(torch.randn(2, 6, 3, 3))
    assert out.shape == (2, 3, 3, 4 + 5 * 2)
    assert out.flatten(0, 2).std(0).min() > 0


def test_darknets_order_is_a_permutation() -> None:
    head = ConnectedHead(6, 3, 4, 2)
    flat = torch.arange(9.0 * 14)[None]
    cells = head.to_cells(flat)
    assert sorted(cells.flatten().tolist()) == flat[0].tolist()
    assert cells[0, 1, 2].tolist() == [20, 21, 22, 23, 36 + 10, 36 + 11, *range(54 + 40, 54 + 48)]


def test_the_hidden_layers_of_the_first_tiny_form() -> None:
    head = ConnectedHead(6, 3, 4, 2, hidden=(5, 7), linear=(0,))
    assert [type(layer) for layer in head.hidden] == [nn.Linear, nn.Linear, nn.LeakyReLU, nn.Dropout]


def test_boxes_of_the_convolution_begin_in_the_middle_and_apart() -> None:
    head = ConvolutionHead(6, 3, 4, 2)
    boxes = head(torch.zeros(1, 6, 3, 3))[0, 0, 0, 6:].view(2, 4)
    torch.testing.assert_close(boxes, torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.5, 0.5, 0.5, 0.5]]))
