import pytest
import torch
from torch import nn

from bestiary.layers.planes import goes_wrong, see_planes


def gradients(convolution: nn.Conv2d, pixels: torch.Tensor, low: bool) -> torch.Tensor:
    convolution.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        maps = convolution(pixels)
    maps.float().square().mean().backward()
    assert convolution.weight.grad is not None
    return convolution.weight.grad.clone()


@pytest.mark.parametrize(("channels", "groups"), [(17, 1), (24, 1), (40, 1), (24, 24), (32, 32)])
def test_gradients_in_bfloat16_are_those_in_float32(channels: int, groups: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=groups)
    pixels = torch.randn(2, channels, 23, 30)
    wanted = gradients(convolution, pixels, low=False)
    convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert see_planes(convolution) == [""]
    assert convolution.weight.is_contiguous()
    found = gradients(convolution, pixels.to(memory_format=torch.channels_last), low=True)
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_only_what_goes_wrong_is_changed_and_once() -> None:
    plain, safe = nn.Conv2d(24, 24, 3), nn.Conv2d(32, 24, 3, dilation=2)
    odd, depthwise = nn.Conv2d(24, 32, 3, dilation=2), nn.Conv2d(32, 32, 3, dilation=(1, 2), groups=32)
    assert [goes_wrong(c) for c in (plain, safe, odd, depthwise)] == [False, False, True, True]
    network = nn.Sequential(plain, safe, odd, depthwise).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert see_planes(network) == see_planes(network) == ["2", "3"]
    assert [len(c._forward_pre_hooks) for c in network] == [0, 0, 1, 1]
    assert not safe.weight.is_contiguous()
    pixels = torch.randn(1, 24, 9, 9)
    again = nn.Sequential(nn.Conv2d(24, 32, 3, dilation=2))
    again.load_state_dict({"0.weight": odd.weight, "0.bias": odd.bias})
    torch.testing.assert_close(odd(pixels), again(pixels))
