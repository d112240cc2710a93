"""Structure, dense evaluation, dilation and the staged start of VGG. Parity with torchvision is in tests/goldens."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones import vgg
from bestiary.backbones.levels import Level
from bestiary.backbones.vgg import (
    VGG,
    VGGClassifier,
    vgg11_bn_cifar,
    vgg11_bn_half,
    vgg11_bn_half_classifier,
    vgg16,
    vgg16_caffe,
)
from bestiary.backbones.vgg_table import DEPTHS, FROM_NET_A, layer_names, places, start_from_net_a
from bestiary.errors import CheckpointError, UsageError
from bestiary.weights.load import load_state

COUNTS = {
    ("vgg11", False): 132_863_336,
    ("vgg13", False): 133_047_848,
    ("vgg16", False): 138_357_544,
    ("vgg19", False): 143_667_240,
    ("vgg11", True): 132_868_840,
    ("vgg13", True): 133_053_736,
    ("vgg16", True): 138_365_992,
    ("vgg19", True): 143_678_248,
}
CATEGORIES = ("ant", "bee", "crab")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def small(name: str = "vgg11", batch_norm: bool = False, categories: tuple[str, ...] = CATEGORIES) -> VGGClassifier:
    """An eighth as wide, with narrow fully connected layers; 7x7 places as ever."""
    return VGGClassifier(VGG(DEPTHS[name], batch_norm=batch_norm, width=1 / 8), categories, hidden=(16, 16)).eval()


@pytest.mark.parametrize(("name", "batch_norm"), COUNTS)
def test_the_number_of_parameters(name: str, batch_norm: bool) -> None:
    with torch.device("meta"):
        network: VGGClassifier = getattr(vgg, name + "_bn" * batch_norm)()
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name, batch_norm]


def test_levels_are_the_last_maps_of_their_strides() -> None:
    trunk = VGG(DEPTHS["vgg16"], maps=("C0", "C1", "C2", "C3", "C4", "C5"))
    assert trunk.levels == (
        Level("C0", 64, 1),
        Level("C1", 128, 2),
        Level("C2", 256, 4),
        Level("C3", 512, 8),
        Level("C4", 512, 16),
        Level("C5", 512, 32),
    )
    pixels = torch.rand(1, 3, 64, 96)
    maps = trunk(pixels)
    for level, found in zip(trunk.levels, maps, strict=True):
        assert found.shape == (1, level.channels, 64 // level.stride, 96 // level.stride)
    at = {name: part.removeprefix("features.") for name, part in layer_names(DEPTHS["vgg16"]).items()}
    conv4_3 = trunk.features[: int(at["conv4_3"]) + 1](pixels)
    torch.testing.assert_close(maps[3], conv4_3)
    assert conv4_3.min() == 0, "after its ReLU"


def test_a_trunk_ends_with_the_last_map_that_is_asked_for() -> None:
    trunk = VGG(DEPTHS["vgg16"], maps=("C4",))
    assert len(trunk.features) == 30
    assert isinstance(trunk.features[-1], nn.ReLU)
    with pytest.raises(UsageError, match="got C6, wanted some of C0"):
        VGG(DEPTHS["vgg16"], maps=("C6",))


@pytest.mark.parametrize(("output_stride", "strides"), [(16, (8, 16, 16)), (8, (8, 8, 8))])
def test_output_strides_by_dilation(output_stride: int, strides: tuple[int, ...]) -> None:
    trunk = VGG(DEPTHS["vgg16"], output_stride=output_stride)  # type: ignore[arg-type]
    assert tuple(level.stride for level in trunk.levels[2:]) == strides
    maps = trunk(torch.rand(1, 3, 64, 64))
    assert tuple(m.shape[-1] for m in maps[2:]) == tuple(64 // s for s in strides)
    at = places(DEPTHS["vgg16"])
    convs = {name: trunk.features[place] for name, place in at.items() if name.startswith("conv")}
    dilated = {name for name, conv in convs.items() if conv.dilation != (1, 1)}  # type: ignore[union-attr]
    assert dilated == ({"conv5_1", "conv5_2", "conv5_3"} if output_stride == 8 else set())
    assert all(trunk.features[place].kernel_size == 3 for name, place in at.items() if name == "pool5")
    # the parameters of one form serve the others
    trunk.load_state_dict(VGG(DEPTHS["vgg16"]).state_dict())


@pytest.mark.parametrize(("side", "places_a_side"), [(224, 1), (256, 2), (384, 6)])
def test_the_dense_map(side: int, places_a_side: int) -> None:
    network = small()
    pixels = torch.rand(1, 3, side, side)
    found = network.class_map(pixels)
    assert found.shape == (1, 3, places_a_side, places_a_side)
    torch.testing.assert_close(network.dense_logits(pixels), found.mean((2, 3)))
    if side == 224:
        torch.testing.assert_close(found[:, :, 0, 0], network(pixels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (112, 128), (225, 40)])
def test_other_sizes_work_and_small_ones_are_dense_as_they_are_plain(size: tuple[int, int]) -> None:
    network = small()
    pixels = torch.rand(2, 3, *size)
    assert network(pixels).shape == (2, 3)
    if max(size) < 224:
        torch.testing.assert_close(network.dense_logits(pixels), network(pixels), rtol=1e-5, atol=1e-6)


def test_pictures_below_32_are_refused_when_the_network_is_built() -> None:
    with pytest.raises(UsageError, match="got 31, wanted at least 32"):
        vgg11_bn_cifar(CATEGORIES, crop=31)


def test_the_papers_names_lead_to_layers() -> None:
    network = small("vgg19", batch_norm=True)
    assert set(network.layer_names) >= {"conv1_1", "conv5_4", "pool5", "fc6", "fc7", "fc8"}
    parts = dict(network.named_modules())
    for name, part in network.layer_names.items():
        kind = nn.MaxPool2d if name.startswith("pool") or name == "C5" else nn.Linear if name == "fc8" else nn.ReLU
        assert isinstance(parts[part], kind), name
    assert network.layer_names["C3"] == network.layer_names["conv4_4"], "the last map of stride 8"
    assert "fc6" not in vgg11_bn_cifar(CATEGORIES).layer_names, "one hidden layer has no name of the paper's"


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["vgg13", "vgg16", "vgg19"])
def test_deep_nets_start_from_net_a(name: str, batch_norm: bool) -> None:
    first, deep = small(batch_norm=batch_norm), small(name, batch_norm)
    for tensor in first.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape)) if tensor.is_floating_point() else tensor.fill_(7)
    before = {key: value.clone() for key, value in deep.state_dict().items()}
    report = load_state(deep, first.state_dict(), name)
    after = deep.state_dict()
    there, here = places(DEPTHS["vgg11"], batch_norm), places(DEPTHS[name], batch_norm)
    taken = {key for key in after if key.startswith("classifier.")}
    for layer, step in itertools.product(FROM_NET_A, range(2 if batch_norm else 1)):
        own, source = f"features.{here[layer] + step}.", f"features.{there[layer] + step}."
        for key in [key for key in after if key.startswith(own)]:
            assert torch.equal(after[key], first.state_dict()[key.replace(own, source)]), key
            taken.add(key)
    assert set(report.loaded) == taken
    for key in set(after) - taken:
        assert torch.equal(after[key], before[key]), f"{key} starts fresh"
    others = sum(DEPTHS[name]) - 4
    assert "net A" in report.summary()
    assert f"the other {others} convolutions start fresh" in report.summary()


def test_net_a_with_other_categories_leaves_the_head_fresh() -> None:
    deep = small("vgg16", categories=("cat", "dog"))
    report = load_state(deep, small().state_dict(), "vgg16")
    assert {m.name for m in report.new_head} == {"classifier.6.weight", "classifier.6.bias"}
    assert "new head" in report.summary()


def test_only_net_a_of_the_same_kind_is_a_start() -> None:
    plain, norms = small().state_dict(), small(batch_norm=True).state_dict()
    assert start_from_net_a(plain, DEPTHS["vgg11"], False) == (plain, "")
    for state, batch_norm in ((plain, True), (norms, False), (small("vgg13").state_dict(), False)):
        assert start_from_net_a(state, DEPTHS["vgg16"], batch_norm)[1] == ""
    with pytest.raises(CheckpointError, match="does not fit"):
        load_state(small("vgg16"), small("vgg13").state_dict(), "vgg16")


def test_the_caffe_form_sees_blue_green_red_less_the_mean() -> None:
    with torch.device("meta"):
        names = [list(form(CATEGORIES).state_dict()) for form in (vgg16, vgg16_caffe)]
    assert names[0] == names[1]
    system = VGGClassifier(
        VGG(DEPTHS["vgg11"]), CATEGORIES, hidden=(4,), mean=(0.5, 0.25, 0.125), std=(1 / 255,) * 3, channel_order="bgr"
    )
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).view(3, 1, 1)
    wanted = torch.tensor([51 - 255 / 8, 0 - 255 / 4, 255 - 255 / 2])
    torch.testing.assert_close(system.normalize(image).flatten(), wanted)


def test_the_small_form_has_one_place_and_one_hidden_layer() -> None:
    network = vgg11_bn_cifar([str(i) for i in range(10)]).eval()
    assert sum(p.numel() for p in network.parameters()) == 9_493_770
    assert network.features(torch.rand(1, 3, 32, 32)).shape == (1, 512, 1, 1)
    assert [m.out_features for m in network.classifier if isinstance(m, nn.Linear)] == [512, 10]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_parameter_gets_a_gradient(batch_norm: bool) -> None:
    with torch.enable_grad():
        network = small("vgg13", batch_norm).train()
        network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before batch norm has no say
    assert [n for n in silent if not (batch_norm and n.endswith("bias") and n.startswith("features"))] == []


def test_the_trunk_for_detectors_on_small_machines() -> None:
    trunk = vgg11_bn_half()
    assert trunk.levels == (Level("C4", 256, 16),)
    assert sum(p.numel() for p in trunk.parameters()) == 2_308_992
    assert isinstance(trunk.features[-1], nn.ReLU), "conv5, without the last pool"
    pixels = torch.rand(1, 3, 96, 64)
    (found,) = trunk.eval()(pixels)
    assert found.shape == (1, 256, 6, 4)
    pooled = vgg11_bn_half(maps=("C4", "C5")).eval()
    pooled.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(pooled(pixels), (found, nn.functional.max_pool2d(found, 2)))


def test_the_small_trunks_classifier_is_what_it_starts_from() -> None:
    with torch.device("meta"):
        classifier = vgg11_bn_half_classifier()
    assert sum(p.numel() for p in classifier.parameters()) == 4_060_264
    trunk = vgg11_bn_half(maps=("C5",)).state_dict()
    assert {n: v.shape for n, v in classifier.state_dict().items() if n.startswith("features.")} == {
        n: v.shape for n, v in trunk.items()
    }
    assert [m.out_features for m in classifier.classifier if isinstance(m, nn.Linear)] == [128, 128, 1000]


def test_networks_can_be_traced(unchecked: None) -> None:
    network = small("vgg11", batch_norm=True)
    traced: nn.Module = torch.fx.symbolic_trace(network)
    pixels: Tensor = torch.rand(1, 3, 96, 64)
    torch.testing.assert_close(traced(pixels), network(pixels))
