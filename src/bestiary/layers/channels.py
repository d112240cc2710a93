"""Pictures of one number of channels for a network of another."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary.errors import RecordError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601): what JPEG and every common reader of grey pictures use."""


def match_channels(image: Shaped[Tensor, "*B C H W"], channels: int) -> Shaped[Tensor, "*B C2 H W"]:
    """The picture with `channels` channels.

    Three channels become one by `LUMA`, as float 0..1 and not rounded; one becomes several by repetition; equal
    numbers pass untouched, whatever their type.

    Raises:
        RecordError: the channels cannot be converted, such as 4 to 3: which of them to leave out only the caller knows.
    """
    got = image.shape[-3]
    if got == channels:
        return image
    if got == 1:
        return image.expand(*image.shape[:-3], channels, *image.shape[-2:])
    if got == 3 and channels == 1:
        scaled = image.float() / 255 if image.dtype == torch.uint8 else image
        red, green, blue = scaled.unbind(-3)
        return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(-3)
    raise RecordError(
        f"got a picture of {got} channels, wanted {channels}",
        where="images",
        mend=f"Pick {channels} channels, or build the system with in_channels={got}.",
    )
