"""Response normalisation: the paper's closed form, Caffe's numbers, and one node of a graph."""

import pytest
import torch
from torch import fx, nn

from bestiary.layers.response_norm import LocalResponseNorm, caffe_response_norm


def test_of_ones_inside_is_the_papers_number() -> None:
    normal = LocalResponseNorm()(torch.ones(1, 7, 2, 2))
    assert float(normal[0, 3, 0, 0]) == pytest.approx((2 + 5e-4) ** -0.75)
    assert float(normal[0, 3, 0, 0]) == pytest.approx(0.5945, abs=5e-5)
    assert float(normal[0, 0, 0, 0]) == pytest.approx((2 + 3e-4) ** -0.75), "two neighbours are cut off"


def test_caffes_numbers_are_torchs_layer_with_torchs_defaults() -> None:
    features = 30 * torch.randn(2, 9, 5, 4, generator=torch.Generator().manual_seed(0))
    theirs = nn.LocalResponseNorm(5)  # alpha 1e-4 of the mean, beta 0.75, k 1: as Caffe
    torch.testing.assert_close(caffe_response_norm()(features), theirs(features))


@pytest.mark.usefixtures("unchecked")
def test_is_one_node_of_a_trace() -> None:
    layer = LocalResponseNorm(3, 0.1)
    graph = fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    features = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(graph(features), layer(features).relu())
