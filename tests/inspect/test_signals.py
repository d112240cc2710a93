"""Three ways back to the pixels, which differ at the ReLU alone."""

import copy
import itertools

import pytest
import torch
from tests.inspect.small_nets import branches, pixels
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.inspect.fields import field_box, layer_field
from bestiary.inspect.signals import WAYS, Way, deconvnet, gradient, guided, project, saliency

SIGNAL = torch.tensor([5.0, -4.0, 6.0]).view(1, 3, 1, 1)


class OneActivation(nn.Module):
    """f(x) weighted by (5, -4, 6), so that (5, -4, 6) is the signal at the activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, pixels: Tensor) -> Tensor:
        return (self.activation(pixels * 1.0) * SIGNAL).sum((1, 2, 3))[:, None]


def through(activation: nn.Module, way: Way) -> list[float]:
    values = torch.tensor([-1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    return project(OneActivation(activation), values, "", 0, way).signal.flatten().tolist()


@pytest.mark.parametrize("inplace", [False, True])
def test_at_a_relu_the_ways_differ_as_the_papers_say(inplace: bool) -> None:
    assert through(nn.ReLU(inplace), "gradient") == [0, -4, 6]
    assert through(nn.ReLU(inplace), "deconvnet") == [5, 0, 6]
    assert through(nn.ReLU(inplace), "guided") == [0, 0, 6]


def test_other_activations_are_taken_for_relus() -> None:
    assert through(nn.ReLU6(inplace=True), "guided") == [0, 0, 6]
    assert through(nn.ReLU6(), "deconvnet") == [5, 0, 6]
    assert through(nn.LeakyReLU(0.5, inplace=True), "deconvnet") == [5, -2, 6]
    assert through(nn.LeakyReLU(0.5), "guided") == [2.5, 0, 6]
    assert through(nn.Hardswish(), "deconvnet") == [5, 0, 6]
    slope = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    F.hardswish(slope).backward(torch.tensor([5.0, 0.0, 6.0]))
    assert slope.grad is not None
    assert through(nn.Hardswish(inplace=True), "guided") == pytest.approx(slope.grad.tolist())
    for way in WAYS:  # a gate passes its gradient
        assert through(nn.Sigmoid(), way) == pytest.approx(through(nn.Sigmoid(), "gradient"))


@pytest.mark.parametrize("layer", ["conv3", "pool", ""])
def test_without_relus_all_ways_are_the_gradient(layer: str) -> None:
    net, x = branches(activation=False), pixels(2)
    found = [project(net, x, layer, 2, way).signal for way in WAYS]
    assert found[0].abs().max() > 0
    for a, b in itertools.pairwise(found):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("inplace", [False, True])
def test_the_gradient_is_the_plain_gradient_of_the_unit(inplace: bool) -> None:
    net, x = branches(inplace), pixels(2).requires_grad_(True)
    net(x)[:, 3].sum().backward()
    found = gradient(net, x, "", 3)
    torch.testing.assert_close(found.signal, x.grad)
    torch.testing.assert_close(found.activations, net(x)[:, 3].detach())
    assert found.positions == [(), ()]


def test_deconvnet_by_hand() -> None:
    """Two convolutions, two ReLUs and a pool, undone step by step as the paper has it."""
    torch.manual_seed(1)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
    net = nn.Sequential(first, nn.ReLU(True), nn.MaxPool2d(2), second, nn.ReLU(True)).eval()
    x = pixels(side=8)
    pooled, switches = F.max_pool2d(first(x).relu(), 2, return_indices=True)
    out = second(pooled).relu()
    signal = torch.zeros_like(out)
    signal[0, 1, 2, 1] = 1.0
    signal = F.conv_transpose2d(signal.relu(), second.weight, padding=1)
    signal = F.max_unpool2d(signal, switches, 2)
    signal = F.conv_transpose2d(signal.relu(), first.weight, padding=1)
    torch.testing.assert_close(deconvnet(net, x, "4", (1, 2, 1)).signal, signal)


@pytest.mark.parametrize("way", WAYS)
def test_the_signal_lies_inside_the_receptive_field(way: Way) -> None:
    net, x = branches(), pixels(side=33)
    found = project(net, x, "conv2", (3, 8, 5), way)
    x1, y1, x2, y2 = field_box(layer_field(net, x.shape, "conv2"), found.positions[0])
    assert (x2 - x1) < 33
    assert (y2 - y1) < 33
    inside = torch.zeros_like(found.signal, dtype=torch.bool)
    inside[..., y1:y2, x1:x2] = True
    assert found.signal[inside].abs().max() > 0
    assert found.signal[~inside].abs().max() == 0


def test_guided_keeps_only_what_both_would_keep() -> None:
    net, x = branches(), pixels(side=20)
    keep = guided(net, x, "conv3", 1).signal
    assert not torch.equal(keep, gradient(net, x, "conv3", 1).signal)
    assert not torch.equal(keep, deconvnet(net, x, "conv3", 1).signal)


def test_saliency_is_the_largest_gradient_over_the_colours() -> None:
    net, x = branches(), pixels(2)
    expected = gradient(net, x, "", 4).signal.abs().amax(1)
    torch.testing.assert_close(saliency(net, x, 4), expected)
    assert expected.shape == (2, 17, 17)


def test_pictures_of_a_batch_do_not_meet_and_the_network_is_left_alone() -> None:
    net, x = branches().train(), pixels(2)
    before = copy.deepcopy(net.state_dict())
    both = guided(net, x, "conv3", 0)
    for i in range(2):
        alone = guided(net, x[i : i + 1], "conv3", 0)
        torch.testing.assert_close(both.signal[i : i + 1], alone.signal)
        assert both.positions[i] == alone.positions[0]
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_what_cannot_be_carried_back_is_said() -> None:
    class Blind(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.detach() * 2

    with pytest.raises(UsageError, match="no gradient"):
        gradient(Blind(), pixels(), "", 0)
    with pytest.raises(UsageError, match="unit 9"):
        gradient(branches(), pixels(), "conv3", 9)
