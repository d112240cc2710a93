"""Widths, depthwise convolutions and their cost."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bestiary.backbones.separable import conv_norm, depthwise, initialise, make_divisible, relu


@pytest.mark.parametrize(("channels", "wanted"), [(16, 16), (18, 24), (20, 24), (11, 16), (3, 8), (67, 64), (60.0, 64)])
def test_known_widths(channels: float, wanted: int) -> None:
    assert make_divisible(channels) == wanted


def test_widths_are_multiples_and_never_lose_a_tenth() -> None:
    for tenths in range(1, 6000):
        width = make_divisible(tenths / 10)
        assert width % 8 == 0
        assert width >= max(8, 0.9 * tenths / 10)
        assert width <= max(8, tenths / 10 + 8)


def test_a_depthwise_convolution_keeps_channels_apart() -> None:
    torch.manual_seed(0)
    part = depthwise(5, 3, nn.BatchNorm2d, relu).eval()
    pixels = torch.randn(1, 5, 7, 7)
    changed = pixels.clone()
    changed[:, 2] += 1
    differs = (part(pixels) != part(changed)).flatten(2).any(2)[0]
    assert differs.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 4), (1, 1)])
def test_stride_one_keeps_the_size(kernel: int, dilation: int) -> None:
    part = conv_norm(3, 4, kernel, nn.BatchNorm2d, None, dilation=dilation)
    assert part(torch.randn(2, 3, 13, 9)).shape == (2, 4, 13, 9)


def test_separation_costs_one_over_channels_plus_one_over_area() -> None:
    def cost(*parts: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            nn.Sequential(*parts)(torch.randn(1, 16, 10, 10))
        return counter.get_total_flops()

    separated = cost(depthwise(16, 3, nn.BatchNorm2d, relu), conv_norm(16, 32, 1, nn.BatchNorm2d, relu))
    assert separated / cost(conv_norm(16, 32, 3, nn.BatchNorm2d, relu)) == pytest.approx(1 / 32 + 1 / 9)


def test_fan_in_counts_groups_and_fan_out_does_not() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(512, 512, 3, groups=512)
    for mode, fan in (("fan_in", 9), ("fan_out", 9 * 512)):
        initialise(net, mode)  # type: ignore[arg-type]
        assert float(net.weight.detach().std()) == pytest.approx((2 / fan) ** 0.5, rel=0.05)


def test_the_start_is_he_fan_out_and_small_linear_layers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 64, 3), nn.Linear(400, 100))
    initialise(net)
    conv, linear = net
    assert float(conv.get_parameter("weight").detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert float(linear.get_parameter("weight").detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not conv.get_parameter("bias").any()
    assert not linear.get_parameter("bias").any()
