"""Levels, blocks, variants and freezing of ResNet."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level
from bestiary.backbones.residual import BasicBlock, Bottleneck, MSRABottleneck
from bestiary.backbones.resnet import (
    DEEP_STEM,
    SMALL_STEM,
    VARIANTS,
    ResNet,
    Variant,
    freeze_stem,
    frozen_norm,
    resnet18,
    resnet18_cifar,
    resnet50,
)
from bestiary.errors import UsageError
from bestiary.layers.frozen_norm import FrozenBatchNorm2d

TINY = Variant(BasicBlock, (1, 1, 1, 1))
TINY_BOTTLENECK = Variant(Bottleneck, (1, 2, 2, 2))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_levels_are_known_before_any_forward() -> None:
    with torch.device("meta"):
        trunk = ResNet(VARIANTS["resnet50"])
    assert trunk.levels == (Level("C2", 256, 4), Level("C3", 512, 8), Level("C4", 1024, 16), Level("C5", 2048, 32))


@pytest.mark.parametrize(
    ("dilate", "strides"),
    [
        ((False, False, False), (4, 8, 16, 32)),
        ((False, False, True), (4, 8, 16, 16)),
        ((False, True, True), (4, 8, 8, 8)),
        ((True, True, True), (4, 4, 4, 4)),
    ],
)
@pytest.mark.parametrize("variant", [TINY, TINY_BOTTLENECK])
def test_maps_have_the_channels_and_strides_the_levels_promise(
    variant: Variant, dilate: tuple[bool, bool, bool], strides: tuple[int, ...]
) -> None:
    trunk = ResNet(variant, dilate=dilate)
    maps = trunk(torch.rand(1, 3, 65, 96))
    assert tuple(level.stride for level in trunk.levels) == strides
    for level, features in zip(trunk.levels, maps, strict=True):
        size = (-(-65 // level.stride), -(-96 // level.stride))
        assert features.shape == (1, level.channels, *size)


def test_dilation_lets_the_first_block_of_a_stage_keep_the_dilation_before_it() -> None:
    trunk = ResNet(TINY_BOTTLENECK, dilate=(False, True, True))
    rates = [[block.conv2.dilation[0] for block in getattr(trunk, f"layer{i}")] for i in range(1, 5)]
    assert rates == [[1], [1, 1], [1, 2], [2, 4]]


def test_a_dilated_trunk_samples_the_same_field_as_the_strided_one() -> None:
    single = Variant(Bottleneck, (1, 1, 1, 1))
    strided, dilated = ResNet(single), ResNet(single, dilate=(False, False, True))
    dilated.load_state_dict(strided.state_dict())
    pixels = torch.rand(1, 3, 128, 128)
    strided.eval()
    dilated.eval()
    # One block a stage: with stride taken out of it, every second place of the finer map is the coarser map.
    torch.testing.assert_close(dilated(pixels)[3][:, :, ::2, ::2], strided(pixels)[3])


def test_the_deep_stem_is_three_convolutions_the_last_twice_as_wide() -> None:
    trunk = ResNet(TINY, stem=DEEP_STEM)
    shapes = [tuple(m.weight.shape) for m in trunk.conv1.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert [name for name in trunk.state_dict() if name.startswith(("conv1", "bn1")) and name.endswith("weight")] == [
        *(f"conv1.{i}.weight" for i in (0, 1, 3, 4, 6)),
        "bn1.weight",
    ]
    assert tuple(trunk(torch.rand(1, 3, 64, 64))[0].shape) == (1, 64, 16, 16)


def test_a_trunk_of_half_the_width_has_the_same_names() -> None:
    half = ResNet(Variant(BasicBlock, (1, 1, 1, 1), width=32))
    assert [level.channels for level in half.levels] == [32, 64, 128, 256]
    assert list(half.state_dict()) == list(ResNet(TINY).state_dict())
    assert half.conv1.weight.shape[0] == 32


def test_the_small_stem_keeps_the_pictures_size() -> None:
    trunk = ResNet(TINY, stem=SMALL_STEM)
    assert [level.stride for level in trunk.levels] == [1, 2, 4, 8]
    assert [tuple(m.shape[-2:]) for m in trunk(torch.rand(1, 3, 32, 32))] == [(32, 32), (16, 16), (8, 8), (4, 4)]


def test_the_cifar_form_is_resnet18_with_another_first_kernel() -> None:
    big, small = resnet18(["a", "b"]).state_dict(), resnet18_cifar(["a", "b"]).state_dict()
    assert small["conv1.weight"].shape == (64, 3, 3, 3)
    differing = [name for name in big if big[name].shape != small[name].shape]
    assert list(big) == list(small)
    assert differing == ["conv1.weight"]


def test_stride_lies_on_the_3x3_or_on_the_first_1x1() -> None:
    ours, papers = (kind(64, 64, 2, 1, 1, 64, nn.BatchNorm2d) for kind in (Bottleneck, MSRABottleneck))
    assert (ours.conv1.stride[0], ours.conv2.stride[0]) == (1, 2)
    assert (papers.conv1.stride[0], papers.conv2.stride[0]) == (2, 1)
    papers.load_state_dict(ours.state_dict())
    pixels = torch.rand(2, 64, 9, 9)
    assert ours(pixels).shape == papers(pixels).shape == (2, 256, 5, 5)
    assert not torch.allclose(ours(pixels), papers(pixels), atol=1e-2)


def test_the_paper_form_reads_only_every_second_pixel() -> None:
    ours, papers = (kind(64, 64, 2, 1, 1, 64, nn.BatchNorm2d).eval() for kind in (Bottleneck, MSRABottleneck))
    for block, touched in ((ours, True), (papers, False)):
        pixels = torch.rand(1, 64, 8, 8)
        changed = pixels.clone()
        changed[:, :, 1::2, 1::2] += 1
        assert torch.equal(block(pixels), block(changed)) is not touched


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_zeroed_last_norm_makes_the_block_the_identity(kind: type[BasicBlock] | type[Bottleneck]) -> None:
    block = kind(64 * kind.expansion, 64, 1, 1, 1, 64, nn.BatchNorm2d)
    assert isinstance(block.last_norm, nn.BatchNorm2d)
    nn.init.zeros_(block.last_norm.weight)
    positive = torch.rand(2, 64 * kind.expansion, 7, 5)
    assert torch.equal(block(positive), positive)


def test_zero_init_residual_zeroes_every_last_norm_and_no_other() -> None:
    trunk = ResNet(TINY_BOTTLENECK, zero_init_residual=True)
    weights = {n: m.weight for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm2d)}
    zeroed = {name for name, weight in weights.items() if not weight.any()}
    assert zeroed == {name for name in weights if name.endswith("bn3")}


def test_a_grouped_block_equals_its_groups_one_by_one() -> None:
    block = Bottleneck(256, 64, 1, 1, 32, 4, nn.BatchNorm2d)
    assert block.conv2.groups == 32
    assert block.conv2.weight.shape == (128, 4, 3, 3)
    inner = torch.rand(2, 128, 6, 6)
    apart = [
        F.conv2d(part, weight, padding=1)
        for part, weight in zip(inner.split(4, dim=1), block.conv2.weight.split(4), strict=True)
    ]
    torch.testing.assert_close(block.conv2(inner), torch.cat(apart, 1))


def test_a_basic_block_refuses_groups() -> None:
    with pytest.raises(UsageError, match="groups=2"):
        BasicBlock(64, 64, 1, 1, 2, 64, nn.BatchNorm2d)


def test_convolutions_start_as_he_et_al_say() -> None:
    trunk = ResNet(VARIANTS["resnet18"])
    weight = trunk.layer4.get_parameter("1.conv2.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert float(trunk.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("network", [resnet18, resnet50])
def test_every_parameter_gets_a_gradient(network: object) -> None:
    classifier = network(["a", "b", "c"])  # type: ignore[operator]
    classifier(torch.rand(2, 3, 64, 64)).square().sum().backward()
    silent = [n for n, p in classifier.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("size", [(33, 47), (224, 225), (1, 1)])
def test_odd_sizes_work(size: tuple[int, int]) -> None:
    trunk = ResNet(TINY).eval()
    last = trunk(torch.rand(1, 3, *size))[-1]
    assert tuple(last.shape[-2:]) == (-(-size[0] // 32), -(-size[1] // 32))


@pytest.mark.parametrize(
    ("trainable", "frozen"),
    [
        (5, set()),
        (4, {"conv1", "bn1"}),
        (3, {"conv1", "bn1", "layer1"}),
        (0, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_freezing_counts_layers_from_the_last(trainable: int, frozen: set[str]) -> None:
    trunk = ResNet(TINY)
    freeze_stem(trunk, trainable)
    assert {n.split(".")[0] for n, p in trunk.named_parameters() if not p.requires_grad} == frozen
    learning = {n.split(".")[0] for n, p in trunk.named_parameters() if p.requires_grad}
    assert not learning & frozen


@pytest.mark.parametrize("layers", [-1, 6])
def test_freezing_more_layers_than_there_are_is_an_error(layers: int) -> None:
    with pytest.raises(UsageError, match=r"0 \(all frozen\) to 5"):
        freeze_stem(ResNet(TINY), layers)


def test_the_norm_is_a_part() -> None:
    trunk = ResNet(TINY, norm=frozen_norm)
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert {type(m) for m in norms} == {FrozenBatchNorm2d}
    pixels = torch.rand(2, 3, 40, 40)
    trained: tuple[Tensor, ...] = trunk.train()(pixels)
    for a, b in zip(trained, trunk.eval()(pixels), strict=True):
        assert torch.equal(a, b)


def test_pictures_of_other_channels() -> None:
    assert ResNet(TINY, in_channels=5).eval()(torch.rand(1, 5, 32, 32))[0].shape == (1, 64, 8, 8)
