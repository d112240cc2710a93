"""AlexNet: the paper's columns, numbers and start; sizes; names; and that all of its forms train, trace and cut."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bestiary.backbones.alexnet import (
    AlexNet,
    AlexNetClassifier,
    alexnet,
    alexnet_2012,
    alexnet_cifar,
    caffenet,
    one_tower,
    pooled_before_norm,
    small_tower,
    two_columns,
)
from bestiary.backbones.levels import Level
from bestiary.errors import UsageError
from bestiary.layers.response_norm import LocalResponseNorm
from bestiary.ops import Window, stacked_field
from bestiary.records import Target

Build = Callable[..., AlexNetClassifier]
SMALLEST: list[tuple[Build, int]] = [(alexnet, 63), (alexnet_2012, 67), (caffenet, 67), (alexnet_cifar, 15)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def empty(build: Build, **arguments: Any) -> AlexNetClassifier:
    """Without numbers."""
    with torch.device("meta"):
        return build(**arguments)


@pytest.mark.parametrize(
    ("build", "parameters"), [(alexnet, 61_100_840), (alexnet_2012, 60_965_224), (caffenet, 60_965_224)]
)
def test_number_of_parameters(build: Build, parameters: int) -> None:
    assert sum(p.numel() for p in empty(build).parameters()) == parameters


def test_the_columns_save_what_the_papers_groups_save() -> None:
    """Conv2, conv4 and conv5 connected in full make 62,378,344."""
    network = empty(alexnet_2012)
    grouped = [m for m in network.features if isinstance(m, nn.Conv2d) and m.groups == 2]
    assert [m.out_channels for m in grouped] == [256, 384, 256]
    assert sum(p.numel() for p in network.parameters()) + sum(m.weight.numel() for m in grouped) == 62_378_344


@pytest.mark.parametrize("features", [two_columns, pooled_before_norm])
def test_a_column_sees_only_itself_until_the_third_convolution(features: Callable[[], nn.Sequential]) -> None:
    layers = features()
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    inputs = torch.rand(1, 96, 13, 13)
    other = inputs.clone()
    other[:, 48:] += 1  # the second column of conv1's output
    second, changed = convolutions[1](inputs), convolutions[1](other)
    assert torch.equal(second[:, :128], changed[:, :128])
    assert not torch.allclose(second[:, 128:], changed[:, 128:], atol=1e-3)
    third, mixed = convolutions[2](second), convolutions[2](changed)
    different = (third - mixed).abs().amax((0, 2, 3)) > 1e-4
    assert bool(different.all()), "each of conv3's maps sees both columns"


def test_maps_and_levels_are_the_papers() -> None:
    trunk = AlexNet(two_columns()).eval()
    assert trunk.levels == (Level("C2", 96, 4), Level("C3", 256, 8), Level("C4", 256, 16), Level("C5", 256, 32))
    maps = trunk(torch.rand(1, 3, 227, 227))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 55, 55), (256, 27, 27), (256, 13, 13), (256, 6, 6)]


@pytest.mark.parametrize("features", [one_tower, two_columns, pooled_before_norm, small_tower])
def test_maps_are_as_the_levels_promise(features: Callable[..., nn.Sequential]) -> None:
    trunk = AlexNet(features(in_channels=2)).eval()
    assert trunk.in_channels == 2
    side = 320
    for level, found in zip(trunk.levels, trunk(torch.rand(1, 2, side, side)), strict=True):
        assert level.name == f"C{level.stride.bit_length() - 1}"
        assert found.shape[1] == level.channels
        assert side / level.stride - 4 < found.shape[-1] <= side / level.stride


def test_receptive_fields_of_conv5_and_pool5() -> None:
    layers = [m for m in two_columns() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    numbers = [(m.kernel_size, m.stride, m.padding) for m in layers]
    windows = [Window(*(int(n[0]) if isinstance(n, tuple) else int(n) for n in three)) for three in numbers]
    assert stacked_field(windows[:-1]).size == 163
    assert (stacked_field(windows).size, stacked_field(windows).stride) == (195, 32)


def test_norm_and_pool_stand_in_the_papers_order_or_caffes() -> None:
    def order(features: nn.Sequential) -> str:
        letters = {nn.Conv2d: "c", nn.ReLU: "r", LocalResponseNorm: "n", nn.MaxPool2d: "p"}
        return "".join(letters[type(layer)] for layer in features)

    assert order(two_columns()) == "crnpcrnpcrcrcrp"
    assert order(pooled_before_norm()) == "crpncrpncrcrcrp"
    paper, caffe = (next(m for m in f() if isinstance(m, LocalResponseNorm)) for f in (two_columns, pooled_before_norm))
    assert (paper.k, paper.alpha, paper.size, paper.beta) == (2, 1e-4, 5, 0.75)
    assert (caffe.k, caffe.alpha * 5) == (1, pytest.approx(1e-4))


def test_start_is_the_papers() -> None:
    network = alexnet_2012(["a", "b"], resize=80, crop=67)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [float(m.bias.detach().unique()) for m in layers if m.bias is not None] == [0, 1, 0, 1, 1, 1, 1, 0]
    assert [float(m.weight.detach().std()) for m in layers[:7]] == pytest.approx([0.01] * 7, rel=0.02)


def test_start_of_caffenet_and_another_bias() -> None:
    network = caffenet(["a", "b"], resize=80, crop=67, bias=0.1)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [round(float(m.bias.detach()[0]), 6) for m in layers if m.bias is not None] == [0, 0.1, 0, 0.1] + [
        0.1
    ] * 3 + [0]
    assert float(layers[5].weight.detach().std()) == pytest.approx(0.005, rel=0.01)
    assert float(layers[6].weight.detach().std()) == pytest.approx(0.005, rel=0.01)


def test_pixels_are_bytes_without_their_mean() -> None:
    black = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    paper = alexnet_2012(["a"], resize=80, crop=67)
    assert paper.normalize(black).flatten().tolist() == pytest.approx([-123.675, -116.28, -103.53], abs=1e-3)
    network = caffenet(["a"], resize=80, crop=67)
    assert network.normalize(black).flatten().tolist() == pytest.approx([-104, -117, -123], abs=1e-4), (
        "blue comes first"
    )
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert network.normalize(red).flatten().tolist() == pytest.approx([-104, -117, 132], abs=1e-4)


@pytest.mark.parametrize(("crop", "inputs"), [(227, 9216), (258, 9216), (128, 1024), (112, 1024), (67, 256)])
def test_fc6_is_made_for_the_crop(crop: int, inputs: int) -> None:
    network = empty(alexnet_2012, categories=["a"], resize=300, crop=crop)
    assert network.get_parameter("classifier.0.weight").shape == (4096, inputs)
    assert network(torch.rand(1, 3, crop, crop, device="meta")).shape == (1, 1)


def test_another_size_than_the_crops_is_an_error_that_says_so() -> None:
    network = empty(alexnet_2012, categories=["a"], resize=300, crop=128)
    with pytest.raises(UsageError, match=r"map of 6x6, wanted 2x2.*128x128"):
        network(torch.rand(1, 3, 227, 227, device="meta"))


@pytest.mark.parametrize("size", [(63, 63), (112, 130), (300, 64)])
def test_torchvisions_form_takes_any_size(size: tuple[int, int]) -> None:
    assert empty(alexnet, categories=["a", "b"])(torch.rand(1, 3, *size, device="meta")).shape == (1, 2)


@pytest.mark.parametrize(("build", "least"), SMALLEST)
def test_the_smallest_crop(build: Build, least: int) -> None:
    network = empty(build, categories=["a", "b"], resize=300, crop=least)
    assert network(torch.rand(1, 3, least, least, device="meta")).shape == (1, 2)
    with pytest.raises(UsageError, match=f"at least {least}"):
        build(["a"], resize=300, crop=least - 1)
    with pytest.raises(RuntimeError, match="too small"):
        network.features(torch.rand(1, 3, least - 1, least - 1, device="meta"))


def test_dense_logits_are_those_of_the_windows() -> None:
    network = alexnet_cifar(["a", "b", "c"]).eval()
    pixels = torch.rand(1, 3, 40, 32)
    maps = network.features(pixels)
    assert maps.shape[-2:] == (4, 3)
    by_hand = [network.classifier(maps[:, :, top : top + 3].flatten(1)) for top in (0, 1)]
    torch.testing.assert_close(network.dense_logits(pixels), (by_hand[0] + by_hand[1]) / 2)


def test_dropout_stands_behind_the_hidden_layers_in_the_papers_form() -> None:
    paper, torchvisions = empty(alexnet_2012, dropout=0.3), empty(alexnet, dropout=0.3)

    def order(network: AlexNetClassifier) -> str:
        return "".join(type(layer).__name__[0] for layer in network.classifier)

    assert (order(paper), order(torchvisions)) == ("LRDLRDL", "DLRDLRL")
    assert {m.p for n in (paper, torchvisions) for m in n.modules() if isinstance(m, nn.Dropout)} == {0.3}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("build", "crop"), [(alexnet_2012, 67), (caffenet, 67), (alexnet_cifar, 32)])
def test_trains_traces_and_names_its_layers(build: Build, crop: int) -> None:
    network = build(["a", "b", "c"], resize=80, crop=crop).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = [torch.randint(0, 256, (3, crop, crop), dtype=torch.uint8) for _ in range(4)]
    targets = [Target(label=i % 3) for i in range(4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.loss(images, targets).total
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    network.eval()
    pixels = torch.rand(2, 3, crop, crop)
    graph = fx.symbolic_trace(network)
    assert torch.equal(graph(pixels), network(pixels))
    parts = dict(network.named_modules())
    assert set(network.layer_names.values()) <= set(parts)
    assert isinstance(parts[network.layer_names["conv5"]], nn.ReLU)
    assert isinstance(parts[network.layer_names["fc6"]], nn.ReLU)
    assert parts[network.layer_names["fc8"]].out_features == 3
    assert network.layer_names["C5" if crop > 32 else "C3"] == network.layer_names["pool5"]


def test_small_form_starts_with_even_maps() -> None:
    """He's start does not let the signal die on the way; torch's own loses nine tenths of it. The answer is open."""
    network = alexnet_cifar([str(i) for i in range(10)]).eval()
    pixels: Tensor = torch.randn(4, 3, 32, 32)
    sizes: list[float] = []
    for layer in network.features:
        pixels = layer(pixels).detach()
        sizes += [float(pixels.std())] if isinstance(layer, nn.Conv2d) else []
    assert min(sizes) > 0.8
    probs = F.softmax(network(torch.randn(4, 3, 32, 32)).detach(), 1)
    assert 0.05 < float(probs.min()) < float(probs.max()) < 0.2
