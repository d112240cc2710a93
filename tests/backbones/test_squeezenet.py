"""Fire modules, map sizes, bypasses and the head of SqueezeNet."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level
from bestiary.backbones.squeezenet import (
    V1_0,
    V1_0_COMPLEX,
    V1_0_SIMPLE,
    V1_1,
    Fire,
    SqueezeNet,
    squeezenet1_0,
    squeezenet1_0_simple_bypass,
    squeezenet1_1,
)
from bestiary.errors import UsageError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_fire_puts_the_1x1_first() -> None:
    fire = Fire(6, 2, 5)
    features = torch.randn(2, 6, 7, 7)
    squeezed = F.relu(fire.squeeze(features))
    out = fire(features)
    torch.testing.assert_close(out[:, :5], F.relu(fire.expand1x1(squeezed)))
    torch.testing.assert_close(out[:, 5:], F.relu(fire.expand3x3(squeezed)))


def test_map_sizes_of_version_1_0() -> None:
    trunk = SqueezeNet(V1_0)
    sizes, features = [], torch.rand(1, 3, 224, 224)
    for layer in trunk.features:
        features = layer(features)
        sizes.append(features.shape[-1])
    assert sizes == [109, 109, 54, 54, 54, 54, 27, 27, 27, 27, 27, 13, 13]
    assert trunk.levels == (Level("C1", 96, 2), Level("C2", 256, 4), Level("C3", 512, 8), Level("C4", 512, 16))


def test_version_1_1_pools_earlier() -> None:
    trunk = SqueezeNet(V1_1)
    assert [type(layer) is nn.MaxPool2d for layer in trunk.features] == [i in (2, 5, 8) for i in range(13)]
    assert trunk.levels == (Level("C1", 64, 2), Level("C2", 128, 4), Level("C3", 256, 8), Level("C4", 512, 16))


def test_bypasses_stand_around_the_fires_of_figure_2() -> None:
    plain, simple, every = (
        [layer.bypass for layer in SqueezeNet(variant).features if isinstance(layer, Fire)]
        for variant in (V1_0, V1_0_SIMPLE, V1_0_COMPLEX)
    )
    assert plain == [None] * 8
    assert [type(bypass) for bypass in simple] == [type(None), nn.Identity] * 4
    assert [type(bypass) for bypass in every] == [nn.Conv2d, nn.Identity] * 4


@pytest.mark.parametrize(("in_channels", "kind"), [(10, "simple"), (6, "complex")])
def test_a_bypass_is_added_to_the_output(in_channels: int, kind: str) -> None:
    fire = Fire(in_channels, 2, 5, kind)  # type: ignore[arg-type]
    plain = Fire(in_channels, 2, 5)
    plain.load_state_dict({k: v for k, v in fire.state_dict().items() if not k.startswith("bypass")})
    features = torch.randn(2, in_channels, 6, 6)
    assert fire.bypass is not None
    torch.testing.assert_close(fire(features), plain(features) + fire.bypass(features))


def test_the_simple_bypass_has_the_plain_nets_state_and_other_logits() -> None:
    plain, simple = squeezenet1_0(["a", "b"]).eval(), squeezenet1_0_simple_bypass(["a", "b"]).eval()
    simple.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(plain(pixels), simple(pixels), rtol=0.01)


def test_negative_places_count_as_zero_in_the_average() -> None:
    net = squeezenet1_1(["a", "b", "c"]).eval()
    last = net.classifier[1]
    assert isinstance(last, nn.Conv2d)
    pixels = torch.rand(2, 3, 64, 64)
    before = F.conv2d(net.features(pixels), last.weight, last.bias)
    assert (before < 0).any()
    logits = net(pixels)
    torch.testing.assert_close(logits, before.clamp(min=0).mean((2, 3)))
    assert (logits >= 0).all()


def test_it_starts_as_torchvisions() -> None:
    net = squeezenet1_0()
    conv, last = net.features[0], net.classifier[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    bound = (6 / (3 * 49)) ** 0.5
    assert float(conv.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(last.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not any(module.bias.any() for module in net.modules() if isinstance(module, nn.Conv2d))


def test_a_crop_below_the_least_side_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 21"):
        squeezenet1_0(["a"], resize=32, crop=20)
