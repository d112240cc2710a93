"""Joint colour histograms and their intersection: Swain, Ballard, Color Indexing, IJCV 1991."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from bestiary.records import require

Space = Literal["rgb", "hsv"]


def colour_histogram(image: UInt8[Tensor, "3 H W"], bins: Sequence[int], space: Space = "rgb") -> Float32[Tensor, " D"]:
    """The share of the pixels in each cell of a grid over a colour space: sums to 1.

    Pixels are counted in whole numbers, so that any order of the pixels, and any repetition of all of them, gives the
    same bits.

    Args:
        image: RGB, at least one pixel.
        bins: cells along each of the three axes; D is their product, the last axis running fastest. Cell b of n holds
            v with floor(v n / 256) = b; hue is scaled to 0..256 first.
        space: axes red, green and blue, or hue, saturation and value (hexcone; hue and saturation of grey are 0).

    Raises:
        RecordError: not three channels, no pixel, or not three numbers above 0.
    """
    where = "colour_histogram"
    require(len(bins) == 3 and min(bins) >= 1, f"{where}(bins)", tuple(bins), "three numbers above 0")
    fits = image.ndim == 3 and image.shape[0] == 3 and image.numel() > 0 and image.dtype == torch.uint8
    require(fits, f"{where}(image)", f"{image.dtype} {tuple(image.shape)}", "uint8 (3, H, W) with pixels")
    cells = (
        _hsv_cells(image, bins) if space == "hsv" else [c.long() * n // 256 for c, n in zip(image, bins, strict=True)]
    )
    cell = (cells[0] * bins[1] + cells[1]) * bins[2] + cells[2]
    counts = torch.bincount(cell.flatten(), minlength=bins[0] * bins[1] * bins[2])
    return (counts.double() / cell.numel()).float()


def _hsv_cells(image: UInt8[Tensor, "3 H W"], bins: Sequence[int]) -> list[Int64[Tensor, "H W"]]:
    """Cells of hue, saturation and value, in whole numbers throughout: no rounding decides between two cells."""
    red, green, blue = image.long()
    value, least = image.amax(0).long(), image.amin(0).long()
    chroma = value - least
    some = chroma.clamp(min=1)
    # Hue in sixths of the circle times the chroma, 0 .. 6 chroma: a whole number.
    sixths = torch.where(
        value == red,
        (green - blue) % (6 * some),
        torch.where(value == green, blue - red + 2 * some, red - green + 4 * some),
    )
    hue = sixths * bins[0] // (6 * some)
    saturation = (chroma * 255 * bins[1]) // (value.clamp(min=1) * 256)
    return [torch.where(chroma == 0, 0, hue), saturation, value * bins[2] // 256]


def intersection(a: Float[Tensor, "*N D"], b: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    """Sum of min(a, b): 1 for equal histograms that sum to 1, 0 for those with no colour in common (equation 1)."""
    return torch.minimum(a, b).sum(-1)
