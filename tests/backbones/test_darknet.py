"""Structure of Darknet-19."""

import pytest
import torch
from torch import nn

from bestiary.backbones.darknet import STAGES, Convolution, Darknet19, darknet19, darknet19_cifar
from bestiary.backbones.levels import Level

CATEGORIES = ("ant", "bee", "crab")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_number_of_parameters_and_layers() -> None:
    with torch.device("meta"):
        network = darknet19()
    assert sum(p.numel() for p in network.parameters()) == 20_842_376
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 19
    assert [c.kernel_size[0] for c in convolutions] == [3, 3, *[3, 1, 3] * 2, *[3, 1, 3, 1, 3] * 2, 1]
    assert [c.bias is None for c in convolutions] == [True] * 18 + [False]
    assert sum(isinstance(m, nn.MaxPool2d) for m in network.modules()) == 5


def test_levels_are_known_before_any_forward() -> None:
    trunk = Darknet19(width=1 / 8)
    assert trunk.levels == tuple(Level(f"C{i}", c, 2**i) for i, c in [(1, 8), (2, 16), (3, 32), (4, 64), (5, 128)])
    maps = trunk.eval()(torch.rand(1, 3, 64, 96))
    for level, found in zip(trunk.levels, maps, strict=True):
        assert found.shape == (1, level.channels, 64 // level.stride, 96 // level.stride)


def test_pools_of_odd_sides_round_up() -> None:
    trunk = Darknet19(width=1 / 8).eval()
    assert trunk(torch.rand(1, 3, 33, 1))[-1].shape[-2:] == (2, 1)


def test_a_unit_is_convolution_norm_and_leaky_relu_by_hand() -> None:
    unit = Convolution(2, 3, 3, norm_eps=0.5).eval()
    for tensor in (unit.norm.running_mean, unit.norm.running_var, unit.norm.weight, unit.norm.bias):
        assert tensor is not None
        tensor.data.copy_(torch.rand(3) + 0.1)
    maps = torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        inner = nn.functional.conv2d(maps, unit.conv.weight, padding=1)
        norm = unit.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.weight / (norm.running_var + 0.5).sqrt()).view(3, 1, 1)
        normal = (inner - norm.running_mean.view(3, 1, 1)) * scale + norm.bias.view(3, 1, 1)
        torch.testing.assert_close(unit(maps), torch.where(normal > 0, normal, 0.1 * normal))


def test_the_answer_is_the_mean_of_the_maps() -> None:
    network = darknet19_cifar(CATEGORIES).eval()
    pixels = torch.rand(2, 3, 48, 32)
    with torch.no_grad():
        maps = network.classifier(network.features(pixels))
        assert maps.shape == (2, 3, 3, 2)
        torch.testing.assert_close(network(pixels), maps.mean((2, 3)))


def test_the_small_form_has_four_pools() -> None:
    network = darknet19_cifar(CATEGORIES)
    assert [level.stride for level in Darknet19(width=0.75, pools=4).levels] == [1, 2, 4, 8, 16]
    assert network.classifier.in_channels == 768
    assert network.classifier.in_channels == round(0.75 * STAGES[-1][-1])


def test_pixels_stay_between_0_and_1_and_eps_reaches_every_norm() -> None:
    network = darknet19_cifar(CATEGORIES, norm_eps=1e-3)
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    torch.testing.assert_close(network.normalize(image).flatten(), torch.tensor([0, 0.2, 1]))
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_every_parameter_gets_a_gradient_and_names_lead_to_layers() -> None:
    network = darknet19_cifar(CATEGORIES)
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    parts = dict(network.named_modules())
    assert list(network.layer_names) == [*(f"conv{i}" for i in range(1, 20)), "C1", "C2", "C3", "C4", "C5"]
    trunk, pixels = Darknet19(width=0.75, pools=4).eval(), torch.rand(1, 3, 32, 32)
    network.features.load_state_dict(trunk.features.state_dict())
    for level, found in zip(trunk.levels, trunk(pixels), strict=True):
        end = int(network.layer_names[level.name].removeprefix("features."))
        torch.testing.assert_close(network.eval().features[: end + 1](pixels), found)
    assert all(isinstance(parts[part], Convolution | nn.Conv2d) for part in network.layer_names.values())


def test_networks_can_be_traced(unchecked: None) -> None:
    network = darknet19_cifar(CATEGORIES).eval()
    traced = torch.fx.symbolic_trace(network)
    torch.testing.assert_close(traced(torch.ones(1, 3, 33, 40)), network(torch.ones(1, 3, 33, 40)))
