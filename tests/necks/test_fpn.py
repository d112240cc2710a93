"""The pyramid: levels, odd sizes, the top-down path."""

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.levels import Level
from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.errors import UsageError
from bestiary.necks.fpn import FPN, CoarserByConvolution, CoarserByPool, PyramidBackbone
from bestiary.ops import assign_levels

IN = (Level("C2", 8, 4), Level("C3", 12, 8), Level("C4", 16, 16))


def maps(sizes: list[tuple[int, int]], batch: int = 2) -> list[Tensor]:
    return [torch.rand(batch, level.channels, *size) for level, size in zip(IN, sizes, strict=True)]


@pytest.fixture
def fpn() -> FPN:
    torch.manual_seed(0)
    return FPN(IN, 6, extra=CoarserByPool())


def test_levels_follow_the_backbones(fpn: FPN) -> None:
    assert fpn.levels == (Level("P2", 6, 4), Level("P3", 6, 8), Level("P4", 6, 16), Level("P5", 6, 32))
    assert FPN(IN, 6).levels == fpn.levels[:3]


def test_no_level_is_an_error() -> None:
    with pytest.raises(UsageError, match="no level"):
        FPN(())


@pytest.mark.parametrize("sizes", [[(16, 24), (8, 12), (4, 6)], [(15, 23), (8, 12), (4, 6)], [(7, 5), (4, 3), (2, 2)]])
def test_every_map_keeps_its_size_however_odd(fpn: FPN, sizes: list[tuple[int, int]]) -> None:
    pyramid = fpn(maps(sizes))
    coarsest = (-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2))
    assert [tuple(p.shape) for p in pyramid] == [(2, 6, *size) for size in [*sizes, coarsest]]


def test_it_equals_the_papers_figure_written_out(fpn: FPN) -> None:
    c2, c3, c4 = maps([(8, 8), (4, 4), (2, 2)])
    m4 = fpn.inner_blocks[2](c4)
    m3 = fpn.inner_blocks[1](c3) + m4.repeat_interleave(2, -1).repeat_interleave(2, -2)
    m2 = fpn.inner_blocks[0](c2) + m3.repeat_interleave(2, -1).repeat_interleave(2, -2)
    wanted = [block(m) for block, m in zip(fpn.layer_blocks, (m2, m3, m4), strict=True)]
    for got, want in zip(fpn((c2, c3, c4)), wanted, strict=False):
        torch.testing.assert_close(got, want)


def test_the_extra_level_is_every_second_value(fpn: FPN) -> None:
    *_, p4, p5 = fpn(maps([(20, 20), (10, 10), (5, 5)]))
    assert torch.equal(p5, p4[:, :, ::2, ::2])


@pytest.mark.parametrize("from_features", [False, True])
def test_two_extra_levels_are_convolved_from_the_pyramid_or_from_what_it_stands_on(from_features: bool) -> None:
    extra = CoarserByConvolution(16 if from_features else 6, 6, from_features)
    fpn = FPN(IN, 6, extra=extra)
    assert fpn.levels[-2:] == (Level("P5", 6, 32), Level("P6", 6, 64))
    features = maps([(20, 24), (10, 12), (5, 6)])
    *_, p4, p5, p6 = fpn(features)
    convolve = nn.functional.conv2d
    seen = features[-1] if from_features else p4
    torch.testing.assert_close(p5, convolve(seen, extra.p6.weight, extra.p6.bias, stride=2, padding=1))
    torch.testing.assert_close(p6, convolve(p5.relu(), extra.p7.weight, extra.p7.bias, stride=2, padding=1))
    assert (tuple(p5.shape[-2:]), tuple(p6.shape[-2:])) == ((3, 3), (2, 2))


def test_without_laterals_the_coarsest_map_is_repeated() -> None:
    fpn = FPN(IN, 6)
    for inner, smooth in zip(fpn.inner_blocks, fpn.layer_blocks, strict=True):
        nn.init.dirac_(smooth[0].weight)  # type: ignore[index]
        nn.init.zeros_(inner[0].weight)  # type: ignore[index]
    nn.init.normal_(fpn.inner_blocks[2][0].weight)  # type: ignore[index]
    p2, p3, p4 = fpn(maps([(8, 12), (4, 6), (2, 3)]))
    assert p4.any()
    assert torch.equal(p3, p4.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert torch.equal(p2, p4.repeat_interleave(4, -1).repeat_interleave(4, -2))


def test_state_names_are_torchvisions(fpn: FPN) -> None:
    assert list(fpn.state_dict())[:4] == [
        "inner_blocks.0.0.weight",
        "inner_blocks.0.0.bias",
        "inner_blocks.1.0.weight",
        "inner_blocks.1.0.bias",
    ]
    assert "layer_blocks.2.0.weight" in fpn.state_dict()


def test_a_backbone_with_a_pyramid_keeps_its_promise_on_odd_pictures() -> None:
    trunk = ResNet(VARIANTS["resnet18"])
    backbone = PyramidBackbone(trunk, FPN(trunk.levels, 32, extra=CoarserByPool())).eval()
    assert [level.stride for level in backbone.levels] == [4, 8, 16, 32, 64]
    for features, level in zip(backbone(torch.rand(1, 3, 75, 107)), backbone.levels, strict=True):
        assert features.shape == (1, 32, -(-75 // level.stride), -(-107 // level.stride))


@pytest.mark.parametrize(
    ("side", "level"), [(112, "P3"), (223, "P3"), (224, "P4"), (448, "P5"), (9000, "P5"), (1, "P2")]
)
def test_boxes_go_to_the_level_of_their_size(side: float, level: str) -> None:
    assert int(assign_levels(torch.tensor([[0.0, 0.0, side, side]]), 4)) + 2 == int(level[1])


def test_a_pyramid_may_stand_on_some_levels_of_a_trunk() -> None:
    trunk = ResNet(VARIANTS["resnet18"])
    backbone = PyramidBackbone(trunk, FPN(trunk.levels[1:3], 8)).eval()
    assert [(v.name, v.stride) for v in backbone.levels] == [("P3", 8), ("P4", 16)]
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        _, c3, c4, _ = trunk(pixels)
        for got, wanted in zip(backbone(pixels), backbone.fpn([c3, c4]), strict=True):
            assert torch.equal(got, wanted)


def test_a_pyramid_on_another_trunks_levels_is_an_error() -> None:
    with pytest.raises(UsageError, match="got a pyramid on C2"):
        PyramidBackbone(ResNet(VARIANTS["resnet18"]), FPN(IN[:1]))
