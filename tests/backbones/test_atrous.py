"""Trunks that dilate: which convolution sees what, and that the parameters are the strided net's."""

import pytest
import torch
from torch import nn

from bestiary.backbones.atrous import AtrousResNet, OutputStride, atrous_vgg, set_output_stride
from bestiary.backbones.residual import BasicBlock, Bottleneck, MSRABottleneck
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError

BASIC, BOTTLENECK = Variant(BasicBlock, (1, 1, 2, 3)), Variant(Bottleneck, (1, 1, 2, 3))
MSRA = Variant(MSRABottleneck, (1, 1, 2, 3))


def dilations(stage: nn.Module) -> list[int]:
    convolutions = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(m.padding == m.dilation for m in convolutions)
    return [m.dilation[0] for m in convolutions]


@pytest.mark.parametrize(
    ("stride", "multi_grid", "third", "fourth"),
    [
        (8, (1,), [2, 2], [4, 4, 4]),
        (16, (1,), [1, 1], [2, 2, 2]),
        (32, (1,), [1, 1], [1, 1, 1]),
        (16, (1, 2, 4), [1, 1], [2, 4, 8]),
        (8, (1, 2, 4), [2, 2], [4, 8, 16]),
    ],
)
def test_every_block_dilates_the_first_one_too(
    stride: OutputStride, multi_grid: tuple[int, ...], third: list[int], fourth: list[int]
) -> None:
    with torch.device("meta"):
        trunk = AtrousResNet(BOTTLENECK, stride, multi_grid)
        theirs = ResNet(BOTTLENECK, dilate=(False, True, True))
    assert (dilations(trunk.layer3), dilations(trunk.layer4)) == (third, fourth)
    assert dilations(trunk.layer2) == [1]
    assert [level.stride for level in trunk.levels] == [4, 8, min(16, stride), stride]
    assert dilations(theirs.layer4) == [2, 4, 4]  # torchvision's first block keeps the dilation before it


@pytest.mark.parametrize("variant", [BASIC, BOTTLENECK, MSRA])
@torch.inference_mode()
def test_the_stride_can_be_changed_and_changed_back(variant: Variant) -> None:
    torch.manual_seed(0)
    trunk, pixels = ResNet(variant).eval(), torch.rand(1, 3, 65, 97)
    plain, state = trunk(pixels), {name: value.clone() for name, value in trunk.state_dict().items()}
    sizes = {}
    for stride in (8, 16, 32):
        set_output_stride(trunk, stride)
        maps = trunk(pixels)
        sizes[stride] = [tuple(m.shape[-2:]) for m in maps]
        assert torch.equal(maps[1], plain[1])
        assert [level.stride for level in trunk.levels][-1] == stride
    assert sizes[8][1:] == [(9, 13)] * 3
    assert sizes[16][2:] == [(5, 7)] * 2
    assert all(torch.equal(a, b) for a, b in zip(trunk(pixels), plain, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in trunk.state_dict().items())


@torch.inference_mode()
def test_a_map_dilated_as_torchvisions_holds_the_strided_one() -> None:
    torch.manual_seed(0)
    strided, pixels = ResNet(BOTTLENECK).eval().double(), torch.rand(1, 3, 65, 97, dtype=torch.float64)
    dilated = ResNet(BOTTLENECK, dilate=(False, True, True)).eval().double()
    dilated.load_state_dict(strided.state_dict())
    torch.testing.assert_close(dilated(pixels)[-1][..., ::4, ::4], strided(pixels)[-1])
    set_output_stride(dilated, 8)
    assert not torch.allclose(dilated(pixels)[-1][..., ::4, ::4], strided(pixels)[-1])


def test_a_vggs_corners_stay_corners() -> None:
    with torch.device("meta"):
        trunk = atrous_vgg(VGG(DEPTHS["vgg16"], output_stride=8, maps=("C5",)))
        size = tuple(trunk(torch.empty(1, 3, 321, 33))[-1].shape[-2:])
    pools = [layer for layer in trunk.features if isinstance(layer, nn.MaxPool2d)]
    assert size == (41, 5)
    assert [(p.kernel_size, p.stride, p.padding) for p in pools] == [(3, 2, 1)] * 3 + [(3, 1, 1)] * 2
    assert dilations(trunk.features[24:]) == [2, 2, 2]


def test_errors(unchecked: None) -> None:
    with torch.device("meta"):
        trunk = ResNet(BASIC)
    with pytest.raises(UsageError, match="got 4, wanted 8, 16 or 32"):
        set_output_stride(trunk, 4)  # type: ignore[arg-type]
    for factors in ((1, 2), (1, 0, 2)):
        with pytest.raises(UsageError, match="wanted one factor or 3, each at least 1"):
            set_output_stride(trunk, 8, factors)
