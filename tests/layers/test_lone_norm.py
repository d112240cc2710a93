import torch
from torch import nn

from bestiary.layers.lone_norm import LoneBatchNorm2d


def test_it_is_batch_norm_where_there_is_a_spread() -> None:
    torch.manual_seed(0)
    ours, theirs, features = LoneBatchNorm2d(3), nn.BatchNorm2d(3), torch.randn(2, 3, 1, 1)
    assert torch.equal(ours(features), theirs(features))
    assert torch.equal(ours.eval()(features[:1]), theirs.eval()(features[:1]))


def test_a_single_value_is_normalised_by_the_running_statistics_which_stay() -> None:
    norm = LoneBatchNorm2d(2)
    assert norm.running_mean is not None
    norm.running_mean += torch.tensor([1.0, -1.0])
    before = norm.running_mean.clone()
    features = torch.tensor([3.0, 3.0]).view(1, 2, 1, 1).requires_grad_()
    out = norm(features)
    torch.testing.assert_close(out.flatten(), torch.tensor([2.0, 4.0]), rtol=1e-4, atol=0)
    assert torch.equal(norm.running_mean, before)
    out.sum().backward()
    assert features.grad is not None
    assert bool(features.grad.all())
