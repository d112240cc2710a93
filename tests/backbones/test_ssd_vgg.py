import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.extra_maps import ExpandedMobileNetV2, ExtraMaps
from bestiary.backbones.mobilenet_v1 import MobileNetV1
from bestiary.backbones.mobilenet_v2 import MobileNetV2
from bestiary.backbones.ssd_vgg import SSDVGG, freeze_blocks, start_from_vgg
from bestiary.backbones.vgg import VGG, vgg16
from bestiary.backbones.vgg_table import DEPTHS


@pytest.mark.parametrize(("side", "cells"), [(300, (38, 19, 10, 5, 3, 1)), (512, (64, 32, 16, 8, 4, 2, 1))])
def test_the_papers_maps(side: int, cells: tuple[int, ...]) -> None:
    with torch.device("meta"):
        trunk = SSDVGG(side)  # type: ignore[arg-type]
        maps = trunk(torch.empty(1, 3, side, side))
    assert [tuple(m.shape[2:]) for m in maps] == [(n, n) for n in cells]
    assert [m.shape[1] for m in maps] == [level.channels for level in trunk.levels]
    assert [level.name for level in trunk.levels[:3]] == ["conv4_3", "fc7", "conv8_2"]


def test_conv4_3_has_length_20_everywhere_and_the_next_layer_sees_it_as_it_was() -> None:
    torch.manual_seed(0)
    trunk = SSDVGG().eval()
    trunk.extra = nn.ModuleList([trunk.extra[0]])  # conv5, fc6 and fc7: small pictures are enough
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = trunk.features(pixels)
        maps = trunk(pixels)
        assert torch.allclose(maps[0].norm(dim=1), torch.tensor(20.0))
        trunk.scale_weight.mul_(2)
        again = trunk(pixels)
        assert torch.allclose(again[0].norm(dim=1), torch.tensor(40.0))
        assert torch.equal(again[1], maps[1])
        assert torch.equal(trunk.extra[0](features), maps[1])


def test_frozen_blocks_are_the_first_and_no_more() -> None:
    with torch.device("meta"):
        trunk = SSDVGG()
    freeze_blocks(trunk, 2)
    frozen = [name for name, value in trunk.named_parameters() if not value.requires_grad]
    assert frozen == [f"features.{n}.{kind}" for n in (0, 2, 5, 7) for kind in ("weight", "bias")]
    freeze_blocks(trunk, 4)
    left = [name for name, value in trunk.named_parameters() if value.requires_grad]
    assert not any(name.startswith("features.") for name in left)


def test_a_classifiers_layers_find_their_places() -> None:
    """Each entry of a VGG-16's state is one number; fc6 and fc7 say in each number where it came from."""
    with torch.device("meta"):
        state = {name: value for name, value in vgg16().state_dict().items() if not name.startswith("classifier.6")}
    filled: dict[str, Tensor] = {
        name: torch.tensor(float(i)).expand(value.shape) for i, (name, value) in enumerate(state.items())
    }
    filled["classifier.0.weight"] = torch.arange(4096.0)[:, None].expand(4096, 25088)
    filled["classifier.3.weight"] = torch.arange(4096.0).expand(4096, 4096)
    taken, line = start_from_vgg(filled)
    assert line == "starts from a classifier: its convolutions, and fc6 and fc7 thinned out"
    with torch.device("meta"):
        own = {f"backbone.{name}": value for name, value in SSDVGG().state_dict().items()}
    assert {name: value.shape for name, value in taken.items()} == {
        name: own[name].shape for name in own if not name.startswith(("backbone.extra.1", "backbone.extra.2"))
        and not name.startswith(("backbone.extra.3", "backbone.extra.4", "backbone.scale"))
    }  # fmt: skip
    names = list(state)
    assert float(taken["backbone.features.21.weight"][0, 0, 0, 0]) == names.index("features.21.weight")
    assert float(taken["backbone.extra.0.5.bias"][0]) == names.index("features.28.bias")
    assert taken["backbone.extra.0.7.1.weight"][:3, 0, 0, 0].tolist() == [0, 4, 8]
    assert taken["backbone.extra.0.7.3.weight"][0, :3, 0, 0].tolist() == [0, 4, 8]


def test_fc6_is_thinned_to_the_places_that_the_dilation_reads() -> None:
    weight = torch.zeros(4096, 512, 7, 7)
    weight[8, 3] = torch.arange(49.0).view(7, 7)
    with torch.device("meta"):
        names = [n for n in vgg16().state_dict() if n.startswith("features.")]
    state = {n: torch.zeros(1, 1, 1, 1) if n.endswith("weight") else torch.zeros(1) for n in names}
    more = {"classifier.0.weight": weight.flatten(1), "classifier.0.bias": torch.zeros(4096)}
    more |= {"classifier.3.weight": torch.zeros(1, 1).expand(4096, 4096), "classifier.3.bias": torch.zeros(4096)}
    taken, _ = start_from_vgg({**state, **more})
    assert taken["backbone.extra.0.7.1.weight"][2, 3].tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    alone, line = start_from_vgg(state)
    assert line == "starts from a classifier: its convolutions"
    assert len(alone) == 26


def test_another_networks_state_comes_back_as_it_is() -> None:
    with torch.device("meta"):
        state = VGG(DEPTHS["vgg11"]).state_dict()
    assert start_from_vgg(state) == (state, "")


def test_extra_maps_halve_and_are_read_by_name() -> None:
    torch.manual_seed(0)
    trunk = ExtraMaps(MobileNetV1(0.25), ("C4", "C5"), (32, 16))
    maps = trunk(torch.randn(2, 3, 100, 75))
    assert [tuple(m.shape) for m in maps] == [(2, 128, 7, 5), (2, 256, 4, 3), (2, 32, 2, 2), (2, 16, 1, 1)]
    assert [(level.name, level.channels, level.stride) for level in trunk.levels] == [
        ("C4", 128, 16), ("C5", 256, 32), ("X1", 32, 64), ("X2", 16, 128),
    ]  # fmt: skip
    assert all(name.startswith(("body.features.", "extra.")) for name in trunk.state_dict())


def test_thin_layers_are_depthwise() -> None:
    trunk = ExtraMaps(MobileNetV1(0.25), ("C5",), (32,), thin=True)
    groups = [m.groups for m in trunk.extra.modules() if isinstance(m, nn.Conv2d)]
    assert groups == [1, 16, 1]
    assert trunk(torch.zeros(1, 3, 64, 64))[1].shape == (1, 32, 1, 1)


def test_the_expansion_is_read_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    network = MobileNetV2().eval()
    trunk = ExpandedMobileNetV2(network).eval()
    pixels = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        c4, c5 = network(pixels)[-2:]
        fine, coarse = trunk(pixels)
        assert torch.equal(coarse, c5)
        assert fine.shape == (1, 576, 4, 6)
        assert torch.equal(fine, network.features[14].get_submodule("conv.0")(c4))
    assert [(level.name, level.channels, level.stride) for level in trunk.levels] == [("C4", 576, 16), ("C5", 1280, 32)]
    assert list(trunk.state_dict()) == list(network.state_dict())
