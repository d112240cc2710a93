"""Local contrast normalisation, and the Laplacian pyramid."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Burt and Adelson's filter with a = 3/8."""


def normalise_contrast(
    maps: Float[Tensor, "B C H W"], side: int = 15, floor: int | float = 0.01
) -> Float[Tensor, "B C H W"]:
    """Each value less the mean of the square of `side` x `side` around it, over that square's standard deviation; of
    each map alone. At the border the square is cut.

    Args:
        maps: input.
        side: of the square, odd.
        floor: the deviation counts as no less than this, so that plain areas stay plain.
    """

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)

    centred = maps - mean(maps)
    return centred / mean(centred.square()).clamp(min=floor**2).sqrt()


def laplacian_pyramid(image: Float[Tensor, "B C H W"], levels: int) -> list[Float[Tensor, "B C _h _w"]]:
    """What each halving of the size takes away, fine to coarse, and last the smallest picture (Burt and Adelson, 1983);
    beyond the border pixels are repeated, and enlarging is bilinear.

    Args:
        image: sides that can be halved `levels - 1` times.
        levels: number of maps that come back.
    """
    found = []
    for _ in range(levels - 1):
        smaller = _reduced(image)
        enlarged = F.interpolate(smaller, scale_factor=2.0, mode="bilinear", align_corners=False)
        found.append(image - enlarged)
        image = smaller
    return [*found, image]


def _reduced(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
    """Half the size: blurred, then averaged two by two, so that the picture does not shift."""
    channels = image.shape[1]
    taps = torch.tensor(BINOMIAL, dtype=image.dtype, device=image.device)
    down, across = taps.view(1, 1, 5, 1), taps.view(1, 1, 1, 5)
    padded = F.pad(image, [2, 2, 2, 2], mode="replicate")
    blurred = F.conv2d(padded, down.expand(channels, 1, 5, 1), groups=channels)
    return F.avg_pool2d(F.conv2d(blurred, across.expand(channels, 1, 1, 5), groups=channels), 2)
