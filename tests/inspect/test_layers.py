"""Layers by name, copies of what they give, and networks left as they were."""

import copy

import pytest
import torch
from tests.inspect.small_nets import branches, pixels
from torch import nn

from bestiary.errors import UsageError
from bestiary.inspect.choosing import stage_layers
from bestiary.inspect.layers import Tap, activations, find_layer, frozen, strongest_positions, strongest_units
from bestiary.zoo import build


def test_what_a_layer_gives_is_told_before_an_in_place_activation_changes_it() -> None:
    net = branches(inplace=True)
    found = activations(net, pixels(), ["bn1", "pool", "fc"])
    plain = net.bn1(net.conv1(pixels()))
    torch.testing.assert_close(found["bn1"], plain)
    assert (plain < 0).any()
    torch.testing.assert_close(found["pool"], net.pool(plain.relu()))
    torch.testing.assert_close(found["fc"], net(pixels()))


def test_paper_names_lead_to_paths_and_unknown_ones_are_answered_with_the_nearest() -> None:
    net = branches()
    net.layer_names = {"conv1_1": "conv1"}  # type: ignore[assignment]
    assert find_layer(net, "conv1_1") == "conv1"
    assert find_layer(net, "") == ""
    with pytest.raises(UsageError, match="conv1"):
        find_layer(net, "konv1")


def test_the_network_is_left_as_it_was() -> None:
    net = branches().train()
    net.conv2.requires_grad_(False)
    net.bn1.eval()
    before = copy.deepcopy(net.state_dict())
    with frozen(net):
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
        net(pixels())
    assert net.training
    assert not net.bn1.training
    assert net.conv1.weight.requires_grad
    assert not net.conv2.weight.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    Tap(net, ["conv2"])(pixels())
    assert not any(part._forward_hooks for part in net.modules())


def test_nothing_behind_the_last_layer_runs_and_a_lenient_tap_forgives_what_fails_there() -> None:
    class Fixed(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 4))

    net = Fixed().eval()
    assert Tap(net, ["0"])(pixels(side=9))[0].shape == (1, 2, 7, 7)
    lenient = Tap(net, ["0", "2"], lenient=True)
    assert len(lenient(pixels(side=9))) == 1
    assert lenient.reached == ("0",)
    assert len(lenient(pixels(side=4))) == 2
    with pytest.raises(RuntimeError):
        Tap(net, ["0", "2"])(pixels(side=9))
    net.add_module("aside", nn.Linear(2, 2))
    net.forward = lambda x: net[0](x)  # type: ignore[method-assign, assignment]
    with pytest.raises(UsageError, match="aside"):
        Tap(net, ["aside"])(pixels(side=4))


def test_a_layer_that_runs_several_times_is_seen_the_first_time() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.head(x), self.head(x[..., ::2, ::2])]

    assert activations(Shared(), pixels(side=8), ["head"])["head"].shape == (1, 1, 8, 8)


def test_positions_and_units() -> None:
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 1, 2, 3], maps[1, 1, 0, 4], maps[0, 2, 3, 1] = 5.0, 2.0, 7.0
    assert strongest_positions(maps, 1) == [(2, 3), (0, 4)]
    assert strongest_positions(maps, (1, 3, 0)) == [(3, 0), (3, 0)]
    assert strongest_positions(torch.rand(2, 3), 1) == [(), ()]
    assert strongest_units(maps[:1], 3) == [2, 1, 0]
    for unit in (3, -1, (1, 4, 0), (1, 0)):
        with pytest.raises(UsageError):
            strongest_positions(maps, unit)


def test_stages_are_the_outermost_parts_on_the_way_down() -> None:
    classifier = build("resnet18", ["a", "b"], {"crop": 64, "resize": 64})
    # ReLU and pooling of the stem are no layers that end a stage: conv1 is the last of stride 2.
    assert stage_layers(classifier, torch.zeros(1, 3, 64, 64)) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    # Blocks in which a coarse branch runs before a fine one.
    split = build("shufflenet_v2_x0_5", ["a", "b"], {"crop": 64, "resize": 64})
    assert stage_layers(split, torch.zeros(1, 3, 64, 64))[-3:] == ["stage2", "stage3", "conv5"]
    detector = build("fasterrcnn_resnet18_fpn", ["a"], {"min_size": 64})
    stages = stage_layers(detector, torch.zeros(1, 3, 64, 64))
    assert stages[:4] == ["backbone.body.conv1", *(f"backbone.body.layer{i}" for i in (1, 2, 3))]
    unet = build("unet_padded_small", ["a", "b"])
    stages = stage_layers(unet, torch.zeros(1, unet.in_channels, 64, 64))
    assert stages[0].startswith("inc")
    assert not any(name.startswith("up") for name in stages)
