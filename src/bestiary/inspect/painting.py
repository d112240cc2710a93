"""Maps, signals and filters as pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bestiary.draw.sheets import grid
from bestiary.errors import UsageError

CALM = 0.35
"""How much of a picture's own colour is left under a heat map."""


def heat_picture(
    heat: Float[Tensor, "H W"], picture: UInt8[Tensor, "3 H W"] | None = None, top: int | float | None = None
) -> UInt8[Tensor, "3 H W"]:
    """Non-negative values as glowing colours (inferno): alone, or laid on a picture that pales beneath them.

    Args:
        heat: what is negative is shown as 0.
        picture: what lies beneath.
        top: value of the brightest colour; the largest of `heat` if None.
    """
    import cv2

    values = heat.detach().cpu().float().nan_to_num().clamp(min=0)
    highest = float(values.max()) if top is None else top
    level = (values / highest if highest > 0 else values).clamp(0, 1)
    bgr = cv2.applyColorMap((level * 255).round().to(torch.uint8).numpy(), cv2.COLORMAP_INFERNO)
    glow = torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1])).permute(2, 0, 1).float()
    if picture is None:
        return glow.round().to(torch.uint8)
    beneath = picture.float()
    grey = (beneath * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
    calm = (CALM * beneath + (1 - CALM) * grey) * 0.75
    share = (level * 1.6).clamp(0, 0.85)
    return (calm * (1 - share) + glow * share).round().clamp(0, 255).to(torch.uint8)


def signal_picture(signal: Float[Tensor, "C H W"]) -> UInt8[Tensor, "3 H W"]:
    """Signed values around middle grey, in the colours of the network's channels; scaled so that all but the two
    hundredth part fits."""
    values = signal.detach().cpu().float().nan_to_num()
    values = values[:3] if values.shape[0] >= 3 else values[:1].expand(3, -1, -1)
    sizes = values.abs().flatten()
    sizes = sizes[sizes > 0]
    top = float(torch.quantile(sizes[:: max(1, len(sizes) // 1_000_000)], 0.995)) if len(sizes) else 0.0
    scaled = values / top if top > 0 else values
    return ((scaled.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def enlarged(picture: UInt8[Tensor, "3 H W"], side: int) -> UInt8[Tensor, "3 H2 W2"]:
    """By the least whole factor that brings the shorter side to `side`; pixels stay squares."""
    factor = max(1, -(-side // min(picture.shape[1:])))
    return picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def activation_tiles(
    maps: Float[Tensor, "C H W"], channels: Sequence[int], side: int = 112, columns: int = 8
) -> UInt8[Tensor, "3 H2 W2"]:
    """One tile for each channel, each brightest at its own maximum, with the channel's number above it."""
    tiles = [enlarged(heat_picture(maps[channel]), side) for channel in channels]
    return grid(tiles, columns, [str(channel) for channel in channels], gap=6)


def first_filters(net: nn.Module, most: int = 256, side: int = 36) -> UInt8[Tensor, "3 H W"]:
    """The filters of the first convolution, in the order of definition, each on its own scale around middle grey; of
    filters that look at other than one or three channels, the first channel.

    Raises:
        UsageError: the network has no convolution.
    """
    convolution = next((part for part in net.modules() if isinstance(part, nn.Conv2d)), None)
    if convolution is None:
        raise UsageError("got a network without a convolution, wanted one", where="first_filters")
    filters = convolution.weight.detach().cpu().float()[:most]
    filters = filters if filters.shape[1] in (1, 3) else filters[:, :1]
    tiles = []
    for weights in filters:
        top = float(weights.abs().max())
        grey = ((weights / top if top > 0 else weights) + 1) * 127.5
        tiles.append(enlarged(grey.round().to(torch.uint8).expand(3, -1, -1), side))
    columns = next(n for n in (16, 12, 8, 6, 4, 2, 1) if n <= len(tiles) or n == 1)
    return grid(tiles, columns, gap=3)
