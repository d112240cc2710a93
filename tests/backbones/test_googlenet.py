"""GoogLeNet: both forms' numbers, the module, the auxiliary classifiers, and that all forms train, trace and cut."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bestiary.backbones.cutting import cut
from bestiary.backbones.googlenet import (
    MODULES,
    GoogLeNet,
    GoogLeNetClassifier,
    googlenet,
    googlenet_2014,
    googlenet_cifar,
)
from bestiary.backbones.inception import PAPER, SMALL, TORCHVISION, Design, Inception, side_of_averages
from bestiary.backbones.levels import Level
from bestiary.errors import UsageError
from bestiary.layers.preprocess import Normalize
from bestiary.layers.response_norm import LocalResponseNorm
from bestiary.records import Target

Build = Callable[..., GoogLeNetClassifier]
NARROW = Design(width=0.125)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def empty(build: Build, **arguments: Any) -> GoogLeNetClassifier:
    """Without numbers."""
    with torch.device("meta"):
        return build(**arguments)


@pytest.mark.parametrize(
    ("build", "auxiliary", "parameters"),
    [
        (googlenet, False, 6_624_904),
        (googlenet, True, 13_004_888),
        (googlenet_2014, False, 6_998_552),
        (googlenet_2014, True, 13_378_280),
    ],
)
def test_number_of_parameters(build: Build, auxiliary: bool, parameters: int) -> None:
    assert sum(p.numel() for p in empty(build, auxiliary=auxiliary).parameters()) == parameters


def test_module_widths_are_table_1() -> None:
    widths = [row[0] + row[2] + row[4] + row[5] for row in MODULES.values()]
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


@pytest.mark.parametrize("design", [TORCHVISION, PAPER])
def test_module_is_four_branches_side_by_side(design: Design) -> None:
    module = Inception(7, (2, 3, 4, 5, 6, 8), design).eval()
    features = torch.randn(2, 7, 9, 8)
    pooled = F.max_pool2d(features, 3, 1, 1)
    by_hand = [module.branch1(features), module.branch2(features), module.branch3(features), module.branch4[1](pooled)]
    for part, branch in zip(module(features).split([2, 4, 6, 8], 1), by_hand, strict=True):
        assert torch.equal(part, branch)
    kernels = [m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [1, 1, 3, 1, 5 if design is PAPER else 3, 1]


@pytest.mark.parametrize("design", [TORCHVISION, PAPER])
def test_maps_and_levels(design: Design) -> None:
    with torch.device("meta"):
        trunk = GoogLeNet(design, in_channels=4).eval()
        maps = trunk(torch.rand(1, 4, 224, 224))
    assert trunk.levels == (
        Level("C1", 64, 2), Level("C2", 192, 4), Level("C3", 480, 8), Level("C4", 832, 16), Level("C5", 1024, 32),
    )  # fmt: skip
    for level, found in zip(trunk.levels, maps, strict=True):
        assert found.shape == (1, level.channels, 224 // level.stride, 224 // level.stride)


def test_small_form_keeps_the_pictures_size_in_its_stem() -> None:
    with torch.device("meta"):
        trunk = GoogLeNet(SMALL).eval()
        maps = trunk(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 32, 32), (240, 16, 16), (416, 8, 8), (512, 4, 4)]
    assert [(level.channels, level.stride) for level in trunk.levels] == [(96, 1), (240, 2), (416, 4), (512, 8)]


def test_the_paper_normalises_responses_and_has_no_batch_norm() -> None:
    paper, torchvisions = empty(googlenet_2014), empty(googlenet)

    def count(network: nn.Module, kind: type[nn.Module]) -> int:
        return sum(isinstance(m, kind) for m in network.modules())

    assert (count(paper, LocalResponseNorm), count(paper, nn.BatchNorm2d)) == (2, 0)
    assert (count(torchvisions, LocalResponseNorm), count(torchvisions, nn.BatchNorm2d)) == (0, 59)
    assert {m.eps for m in torchvisions.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert all(m.bias is not None for m in paper.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("crop", "side"), [(224, 4), (128, 2), (112, 1), (79, 1)])
def test_auxiliary_layers_are_made_for_the_crop(crop: int, side: int) -> None:
    assert side_of_averages(crop) == side
    network = empty(googlenet_2014, categories=["a"], crop=crop)
    assert network.get_parameter("aux1.fc1.weight").shape == (1024, 128 * side**2)
    with torch.device("meta"):
        maps = network.maps(torch.rand(1, 3, crop, crop))
        assert network.aux1 is not None
        assert network.aux1(maps.inception4a).shape == (1, 1)


def test_too_small_a_crop() -> None:
    with pytest.raises(UsageError, match=r"wanted at least 79 .*auxiliary=False"):
        empty(googlenet_2014, categories=["a"], crop=78)
    with pytest.raises(UsageError, match="at least 31"):
        empty(googlenet_2014, categories=["a"], crop=30, auxiliary=False)
    with pytest.raises(UsageError, match="at least 15"):
        empty(googlenet, categories=["a"], crop=14)


@pytest.mark.parametrize(("build", "least"), [(googlenet, 15), (googlenet_2014, 31)])
def test_the_smallest_picture(build: Build, least: int) -> None:
    network = empty(build, categories=["a", "b"], crop=least, auxiliary=False).eval()
    with torch.device("meta"):
        assert network(torch.rand(1, 3, least, least)).shape == (1, 2)
        with pytest.raises(RuntimeError, match="too small"):
            network(torch.rand(1, 3, least - 1, least - 1))


def pictures(side: int) -> tuple[list[Tensor], list[Target]]:
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(3)]
    return images, [Target(label=i) for i in range(3)]


def narrow(**arguments: Any) -> GoogLeNetClassifier:
    """An eighth of the widths."""
    return GoogLeNetClassifier(GoogLeNet(NARROW), ["a", "b", "c"], resize=64, crop=64, **arguments)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_loss_is_the_main_one_and_three_tenths_of_each_auxiliary(label_smoothing: float) -> None:
    network = narrow(label_smoothing=label_smoothing).eval()
    images, targets = pictures(64)
    losses = network.loss(images, targets)
    pixels = network.normalize(torch.stack(images))
    maps = network.maps(pixels)
    assert network.aux1 is not None
    assert network.aux2 is not None
    labels = torch.arange(3)
    main, first, second = (
        F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        for logits in (network(pixels), network.aux1(maps.inception4a), network.aux2(maps.inception4d))
    )
    assert list(losses.terms) == ["cross_entropy", "auxiliary_4a", "auxiliary_4d"]
    torch.testing.assert_close(losses.total, main + 0.3 * (first + second))


def test_loss_has_the_same_terms_in_both_modes_and_none_without_auxiliary_classifiers() -> None:
    images, targets = pictures(64)
    network = narrow()
    training, evaluation = network.loss(images, targets), network.eval().loss(images, targets)
    assert list(training.terms) == list(evaluation.terms)
    assert list(narrow(auxiliary=False).loss(images, targets).terms) == ["cross_entropy"]


def test_prediction_does_not_see_the_auxiliary_classifiers() -> None:
    network = narrow().eval()
    pixels = torch.rand(2, 3, 64, 64)
    before = network(pixels)
    assert network.aux1 is not None
    with torch.no_grad():
        for parameter in network.aux1.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(network(pixels), before)


def test_transform_input_brings_normalised_pixels_to_minus_one_to_one() -> None:
    plain, transforming = narrow().eval(), narrow(transform_input=True).eval()
    transforming.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 64, 64)
    wanted = plain(Normalize((0.5,) * 3, (0.5,) * 3)(image))
    torch.testing.assert_close(transforming(Normalize()(image)), wanted, atol=1e-5, rtol=1e-4)


def test_starts() -> None:
    truncated = GoogLeNet(TORCHVISION).conv3.get_parameter("conv.weight").detach()
    assert float(truncated.std()) == pytest.approx(0.01, rel=0.02)
    paper = GoogLeNetClassifier(GoogLeNet(PAPER), ["a", "b"], resize=96, crop=96)
    weight = paper.conv3.get_parameter("conv.weight").detach()
    assert float(weight.std()) == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.02)
    biases = {name: parameter.detach() for name, parameter in paper.named_parameters() if name.endswith("bias")}
    zero = {name for name, bias in biases.items() if not bias.any()}
    assert zero == {"fc.bias", "aux1.fc2.bias", "aux2.fc2.bias"}
    assert {round(float(b), 6) for name in set(biases) - zero for b in biases[name].unique()} == {0.2}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "crop", "arguments"),
    [
        (googlenet, 64, {}),
        (googlenet, 64, {"transform_input": True}),
        (googlenet_2014, 79, {}),
        (googlenet_cifar, 32, {}),
    ],
)
def test_trains_traces_and_cuts(build: Build, crop: int, arguments: dict[str, Any]) -> None:
    network = build(["a", "b", "c"], resize=crop, crop=crop, **arguments)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.loss(*pictures(crop)).total
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    network.eval()
    pixels = torch.rand(2, 3, crop, crop)
    assert torch.equal(fx.symbolic_trace(network)(pixels), network(pixels))
    maps = cut(network, list(network.layer_names))(pixels)
    assert [m.shape[1] for m in maps.values()][-1] == network.fc.in_features
    for name, found in maps.items():
        assert -(-crop // 2 ** int(name[1:])) - found.shape[-1] in (0, 1)
