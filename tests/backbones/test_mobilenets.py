"""Blocks, tables and dilation of MobileNet V1, V2 and V3."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.backbones.mobilenet_v1 import MobileNetV1, SeparableBlock
from bestiary.backbones.mobilenet_v2 import InvertedResidual, MobileNetV2, mobilenet_v2
from bestiary.backbones.mobilenet_v3 import (
    LARGE,
    SMALL,
    ExcitedResidual,
    MobileNetV3,
    Row,
    mobilenet_v3_large,
    mobilenet_v3_small,
    reduced_tail,
)
from bestiary.backbones.separable import relu
from bestiary.errors import UsageError
from bestiary.layers.activation import Hardswish
from bestiary.layers.squeeze_excitation import SqueezeExcitation


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_levels_at_full_width() -> None:
    with torch.device("meta"):
        trunks = MobileNetV1(), MobileNetV2(), MobileNetV3(LARGE), MobileNetV3(SMALL)
    widths = [[level.channels for level in trunk.levels] for trunk in trunks]
    assert widths == [
        [64, 128, 256, 512, 1024],
        [16, 24, 32, 96, 1280],
        [16, 24, 40, 112, 960],
        [16, 16, 24, 48, 576],
    ]
    assert trunks[1].levels[3] == Level("C4", 96, 16)


def test_a_separable_block_filters_and_then_mixes() -> None:
    block = SeparableBlock(4, 6, 2, 1, nn.BatchNorm2d).eval()
    features = torch.randn(2, 4, 9, 9)
    weight, mixing = block.depthwise[0].weight, block.pointwise[0].weight
    filtered = torch.cat([F.conv2d(features[:, i : i + 1], weight[i : i + 1], None, 2, 1) for i in range(4)], 1)
    scale = (1 + 1e-5) ** -0.5  # a fresh norm in evaluation mode
    wanted = F.relu(torch.einsum("bchw,kc->bkhw", F.relu(filtered * scale), mixing[:, :, 0, 0]) * scale)
    torch.testing.assert_close(block(features), wanted)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "adds"), [(8, 8, 1, True), (8, 8, 2, False), (8, 16, 1, False)]
)
def test_shortcuts_stand_where_shape_and_stride_allow(
    in_channels: int, out_channels: int, stride: int, adds: bool
) -> None:
    inverted = InvertedResidual(in_channels, out_channels, 6, stride, 1, nn.BatchNorm2d)
    row = Row(3, 24, out_channels, False, relu, stride)
    excited = ExcitedResidual(in_channels, row, stride, 1, nn.BatchNorm2d)
    features = torch.randn(1, in_channels, 6, 6)
    for block, branch in ((inverted.eval(), inverted.conv), (excited.eval(), excited.block)):
        wanted = branch(features) + features if adds else branch(features)
        torch.testing.assert_close(block(features), wanted)


def test_the_bottleneck_is_linear() -> None:
    block = InvertedResidual(8, 16, 6, 1, 1, nn.BatchNorm2d).eval()
    assert (block(torch.randn(1, 8, 6, 6)) < 0).any()
    assert isinstance(block.conv[-1], nn.BatchNorm2d)


def test_excitation_stands_between_filter_and_projection() -> None:
    block = ExcitedResidual(16, Row(5, 72, 40, True, Hardswish, 2), 2, 1, nn.BatchNorm2d)
    assert [type(part) for part in block.block] == [nn.Sequential, nn.Sequential, SqueezeExcitation, nn.Sequential]
    squeeze = block.block[2]
    assert isinstance(squeeze, SqueezeExcitation)
    assert squeeze.fc1.out_channels == 24  # 72 / 4 to a multiple of 8, not below nine tenths
    assert isinstance(squeeze.gate, nn.Hardsigmoid)


def test_norms_of_v3_are_slow() -> None:
    norms = [m for m in MobileNetV3(SMALL, 0.35).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def filters(trunk: Chain) -> list[nn.Conv2d]:
    return [m for m in trunk.features.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]


@pytest.mark.parametrize("kind", [MobileNetV1, MobileNetV2])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_trunk_samples_the_same_field_as_the_strided_one(
    kind: Callable[..., Chain], output_stride: int
) -> None:
    strided, dilated = kind(0.25), kind(0.25, output_stride=output_stride)
    dilated.load_state_dict(strided.state_dict())
    assert [level.stride for level in dilated.levels] == [2, 4, 8, min(16, output_stride), output_stride]
    pixels, step = torch.rand(1, 3, 256, 256), 32 // output_stride
    # Away from the borders, whose zeros lie elsewhere, each step-th place of the finer map is the coarser map.
    fine, coarse = dilated.eval()(pixels)[4][:, :, ::step, ::step], strided.eval()(pixels)[4]
    torch.testing.assert_close(fine, coarse, rtol=1e-3, atol=1e-4)


def test_v3_dilates_the_block_that_would_have_strided() -> None:
    rates = [conv.dilation[0] for conv in filters(MobileNetV3(LARGE, output_stride=16))]
    assert rates == [1] * 12 + [2] * 3
    strides = [conv.stride[0] for conv in filters(MobileNetV3(LARGE, output_stride=16))]
    assert strides == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    rates = [conv.dilation[0] for conv in filters(MobileNetV3(SMALL, output_stride=8))]
    assert rates == [1, 1, 1] + [2] * 5 + [4] * 3


def test_the_reduced_tail_halves_the_last_stage_only() -> None:
    rows = reduced_tail(LARGE)
    assert rows[:12] == LARGE[:12]
    assert [(row.expanded, row.channels) for row in rows[12:]] == [(672, 80), (480, 80), (480, 80)]
    assert MobileNetV3(rows).levels[-1] == Level("C5", 480, 32)
    assert [(row.expanded, row.channels) for row in reduced_tail(SMALL)[8:]] == [(288, 48), (288, 48), (288, 48)]


@pytest.mark.parametrize("width", [0.5, 1.4])
def test_the_last_convolution_of_v2_never_shrinks(width: float) -> None:
    with torch.device("meta"):
        trunk = MobileNetV2(width)
    assert trunk.levels[-1].channels == (1280 if width < 1 else 1792)
    assert trunk.levels[0].channels == (8 if width < 1 else 24)


def test_width_and_dropout_reach_the_net() -> None:
    with torch.device("meta"):
        v2, v3 = mobilenet_v2(["a"], width=0.5, dropout=0.3), mobilenet_v3_small(["a"], width=0.75, dropout=0.1)
        large = mobilenet_v3_large(["a", "b"])
    drops = [m.p for net in (v2, v3, large) for m in net.modules() if isinstance(m, nn.Dropout)]
    assert drops == [0.3, 0.1, 0.2]
    assert [m.out_features for m in v3.modules() if isinstance(m, nn.Linear)] == [768, 1]
    assert [m.out_features for m in large.modules() if isinstance(m, nn.Linear)] == [1280, 2]


@pytest.mark.parametrize("kind", [MobileNetV2, lambda **more: MobileNetV3(SMALL, **more)])
def test_other_output_strides_are_refused(kind: Callable[..., Chain]) -> None:
    with pytest.raises(UsageError, match="8, 16 or 32"):
        kind(output_stride=4)
