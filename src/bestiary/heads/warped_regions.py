"""Regions of a picture as equal windows, stretched to a square with some context (R-CNN, appendix A).

"Warp": each axis is scaled by itself so that the region fills the window but for `context` pixels on every side, which
show the picture around it. What lies outside the picture is 0, the mean colour of a normalised picture. Bilinear
without smoothing, as the authors resize; unlike theirs, corners are not rounded to whole pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.ops import sample_at
from bestiary.records import require


def warp_regions(
    pixels: Float[Tensor, "C H W"], regions_xyxy: Float[Tensor, "R 4"], window: int, context: int = 0
) -> Float[Tensor, "R C S S"]:
    """The windows of `window` pixels a side.

    Raises:
        RecordError: `context` leaves no room for the region.
    """
    require(0 <= 2 * context < window, "warp_regions(context)", context, f"0 or more and below {window / 2:g}")
    grown = grow(regions_xyxy.to(pixels.dtype), window / (window - 2 * context))
    steps = (torch.arange(window, dtype=pixels.dtype, device=pixels.device) + 0.5) / window
    low, high = grown[:, :2, None], grown[:, 2:, None]
    across, down = (low + steps * (high - low)).unbind(1)
    x, y = across[:, None, :].expand(-1, window, -1), down[:, :, None].expand(-1, -1, window)
    # The border's pixels reach to their outer edge, and no further: two samplings in one would fade there.
    values = sample_at(pixels[None], torch.stack([x, y], dim=-1)[None], outside="border")[0]
    is_inside = ((y >= 0) & (y <= pixels.shape[1])) & ((x >= 0) & (x <= pixels.shape[2]))
    # Channels innermost: convolutions of many small windows are half as fast again that way on a processor.
    return (values * is_inside).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def grow(boxes_xyxy: Float[Tensor, "R 4"], factor: int | float) -> Float[Tensor, "R 4"]:
    """Boxes about the same centres with sides `factor` times as long; they may reach outside the picture."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    centre, half = (low + high) / 2, (high - low) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=1)
