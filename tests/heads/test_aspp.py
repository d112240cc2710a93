"""Atrous spatial pyramid pooling: sums are sums, a dilation beyond the map is its centre tap, a mean is a mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.heads.aspp import ASPP, LargeFOV, PictureMean, SummedASPP, score_convolution


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_summed_form_is_the_sum_of_its_branches() -> None:
    torch.manual_seed(0)
    branches = [score_convolution(6, 3, 3, rate).double() for rate in (1, 2, 5)]
    pyramid, maps = SummedASPP(branches), features(2, 6, 9, 7)
    each = [F.conv2d(maps, c.weight, c.bias, padding=r, dilation=r) for c, r in zip(branches, (1, 2, 5), strict=True)]
    torch.testing.assert_close(pyramid(maps), each[0] + each[1] + each[2])
    with torch.no_grad():
        for parameter in pyramid[1].parameters():
            parameter.mul_(-2)
    torch.testing.assert_close(pyramid(maps), each[0] - 2 * each[1] + each[2])


def test_scores_start_small() -> None:
    torch.manual_seed(0)
    convolution = score_convolution(512, 21, 3, 6)
    assert convolution.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert convolution.bias is not None
    assert not convolution.bias.any()


@pytest.mark.parametrize("rate", [7, 12, 24])
def test_a_dilation_beyond_the_map_leaves_the_centre_tap(rate: int) -> None:
    convolution, maps = score_convolution(4, 3, 3, rate).double(), features(1, 4, 7, 7)
    centre = F.conv2d(maps, convolution.weight[..., 1:2, 1:2], convolution.bias)
    torch.testing.assert_close(convolution(maps), centre)


def test_a_large_field_of_view_has_vggs_layers() -> None:
    head = LargeFOV(8, 3, width=5, rate=4)
    assert [type(m) for m in head.fc6] == [nn.Conv2d, nn.ReLU, nn.Dropout]
    assert [type(m) for m in LargeFOV(8, 3, width=5, norm=True).fc7] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout]
    assert {name: tuple(p.shape) for name, p in head.named_parameters() if p.ndim > 1} == {
        "fc6.0.weight": (5, 8, 3, 3),
        "fc7.0.weight": (5, 5, 1, 1),
        "score.weight": (3, 5, 1, 1),
    }
    assert head.eval()(torch.rand(2, 8, 6, 11)).shape == (2, 3, 6, 11)


def test_the_picture_branch_is_the_same_everywhere_and_takes_one_picture_in_training() -> None:
    torch.manual_seed(0)
    branch, maps = PictureMean(6, 4).double(), features(1, 6, 5, 8)
    assert branch(maps).shape == (1, 4, 5, 8)  # in training mode, with one value a channel
    branch.eval()
    wanted = branch[2](branch[1](maps.mean((2, 3), keepdim=True))).relu()
    torch.testing.assert_close(branch(maps), wanted.expand(1, 4, 5, 8))


def test_the_joined_form_joins_in_order_and_changes_its_rates() -> None:
    torch.manual_seed(0)
    pyramid, maps = ASPP(6, (1, 2), width=4, dropout=0.0).double().eval(), features(1, 6, 9, 9)
    joined = torch.cat([branch(maps) for branch in pyramid.convs], dim=1)
    torch.testing.assert_close(pyramid(maps), pyramid.project(joined))
    assert joined.shape[1] == 16
    before, first = pyramid(maps), pyramid.get_submodule("convs.1.0")
    assert isinstance(first, nn.Conv2d)
    pyramid.set_rates((2, 4))
    torch.testing.assert_close(first(maps), F.conv2d(maps, first.weight, padding=2, dilation=2))
    assert not torch.allclose(pyramid(maps), before)
    pyramid.set_rates((1, 2))
    assert torch.equal(pyramid(maps), before)
