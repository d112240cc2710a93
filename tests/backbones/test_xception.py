"""The modified aligned Xception: units, strides and dilations, and that the parameters are the same at any stride."""

import pytest
import torch
from torch import nn

from bestiary.backbones.xception import AlignedXception, XceptionUnit, small_epsilon_norm
from bestiary.errors import UsageError


def dilations(part: nn.Module) -> list[int]:
    """Of the filters."""
    filters = [m for m in part.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert all(m.padding == m.dilation for m in filters)
    return [m.dilation[0] for m in filters]


def counted(inputs: int, widths: tuple[int, int, int], shortcut: bool) -> int:
    """A unit's parameters: 3x3 filters and their norms, 1x1 convolutions and theirs, the shortcut and its."""
    total, channels = 0, inputs
    for width in widths:
        total += 9 * channels + 2 * channels + channels * width + 2 * width
        channels = width
    return total + (inputs * channels + 2 * channels if shortcut else 0)


@pytest.mark.parametrize("middle", [8, 16])
def test_the_parameters_are_those_of_figure_4(middle: int) -> None:
    with torch.device("meta"):
        trunk = AlignedXception(middle)
    wanted = 3 * 32 * 9 + 64 + 32 * 64 * 9 + 128
    wanted += sum(counted(i, (o, o, o), True) for i, o in ((64, 128), (128, 256), (256, 728)))
    wanted += middle * counted(728, (728, 728, 728), False)
    wanted += counted(728, (728, 1024, 1024), True) + counted(1024, (1536, 1536, 2048), False)
    assert sum(p.numel() for p in trunk.parameters()) == wanted
    # 65 and 41 convolutions, a separable one counting as one, without the shortcuts and the classifier's
    pairs = sum(isinstance(m, XceptionUnit) for m in trunk.modules()) * 3
    assert pairs + 2 == {16: 65, 8: 41}[middle]


def test_strides_and_dilations() -> None:
    with torch.device("meta"):
        trunk, pixels = AlignedXception(2), torch.empty(1, 3, 257, 321)
        for stride, third, middle, exit_flow in (
            (32, 1, 1, [1] * 6),
            (16, 1, 1, [1] * 3 + [2] * 3),
            (8, 1, 2, [2] * 3 + [4] * 3),
        ):
            trunk.set_output_stride(stride)  # type: ignore[arg-type]
            c2, c5 = trunk(pixels)
            assert c2.shape == (1, 256, 65, 81)
            assert c5.shape == (1, 2048, 256 // stride + 1, 320 // stride + 1)
            assert [level.stride for level in trunk.levels] == [4, stride]
            assert set(dilations(trunk.entry)) == {third}
            assert set(dilations(trunk.middle)) == {middle}
            assert dilations(trunk.exit) == exit_flow


@torch.inference_mode()
def test_a_dilated_map_holds_the_strided_one() -> None:
    torch.manual_seed(0)
    trunk, pixels = AlignedXception(1, 32).double().eval(), torch.rand(1, 3, 65, 65, dtype=torch.float64)
    strided = trunk(pixels)[-1]
    for stride in (16, 8):
        trunk.set_output_stride(stride)  # type: ignore[arg-type]
        torch.testing.assert_close(trunk(pixels)[-1][..., :: 32 // stride, :: 32 // stride], strided)


@torch.inference_mode()
def test_a_unit_adds_its_shortcut() -> None:
    torch.manual_seed(0)
    maps = torch.randn(1, 4, 9, 9)
    same = XceptionUnit(4, (4, 4, 4), "identity", small_epsilon_norm).eval()
    inner, out = same(maps)
    residual = same.convs[2](inner.relu())
    torch.testing.assert_close(out, residual + maps)
    last = XceptionUnit(4, (5, 6, 7), "none", small_epsilon_norm, activates=True).eval()
    assert (last(maps)[1] >= 0).all()
    assert last(maps)[1].shape == (1, 7, 9, 9)
    strided = XceptionUnit(4, (5, 6, 7), "convolution", small_epsilon_norm).eval()
    strided.set_step(2, 1)
    assert [m.shape[-1] for m in strided(maps)] == [9, 5]


def test_another_stride(unchecked: None) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match="got 4, wanted 8, 16 or 32"):
        AlignedXception(1, 4)  # type: ignore[arg-type]
