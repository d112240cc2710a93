"""SIFT descriptors of the patches of a regular grid (Lazebnik, Schmid, Ponce, CVPR 2006, section 4).

A patch has 4 x 4 cells and 8 orientations, as Lowe's descriptor (IJCV 2004), but stands upright: neither scale nor
orientation are looked for, which serves scenes better than interest points (Fei-Fei, Perona, CVPR 2005).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.features.keypoints import grey_levels
from bestiary.records import Rows, require, row_field

CLIP = 0.2
"""Largest number of a descriptor of length one; larger ones are cut to it and the length made one again (Lowe)."""

SMOOTHING = 0.125
"""Standard deviation of the smoothing before gradients, in cells: half a pixel for patches of 16."""


@dataclass(frozen=True, eq=False)
class DensePatches(Rows):
    """The N patches of one picture's grid, row by row, smaller patches first.

    Attributes:
        xy: centres, pixels.
        sides: pixels.
        descriptors: (cell row, cell column, orientation), of length 1, or all 0 where the patch is flat.
    """

    xy: Float32[Tensor, "N 2"] = row_field()
    sides: Float32[Tensor, " N"] = row_field()
    descriptors: Float32[Tensor, "N 128"] = row_field()


def dense_sift(
    gray: Float32[Tensor, "H W"], sides: Sequence[int] = (16,), step: int = 8, contrast: float | int = 0.003
) -> DensePatches:
    """Descriptors of all patches that lie wholly inside the picture.

    The picture is smoothed by an eighth of a cell; gradients are central differences; each pixel of the patch votes
    with its gradient's length, linearly between two orientations and between the nearest cells. There is no Gaussian
    window: in a grid, no patch has a subject in its middle.

    Args:
        gray: 0..1.
        sides: of the patches, multiples of 4 pixels.
        step: from patch to patch; the grid is centred in the picture.
        contrast: patches whose mean gradient is weaker (of greys 0..1, a pixel) have the descriptor 0: their
            orientations are noise.

    Raises:
        RecordError: a side that is no multiple of 4, a step below 1, or contrast below 0.
    """
    require(all(s >= 4 and s % 4 == 0 for s in sides), "dense_sift(sides)", tuple(sides), "multiples of 4")
    require(step >= 1, "dense_sift(step)", step, "at least 1")
    require(contrast >= 0, "dense_sift(contrast)", contrast, "0 or more")
    pixels = np.ascontiguousarray(gray.detach().cpu().numpy())
    parts = [_one_size(pixels, side, step, contrast) for side in sides]
    xy, found = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
    lengths = [len(part[0]) for part in parts]
    widths = torch.repeat_interleave(torch.tensor(sides, dtype=torch.float32), torch.tensor(lengths))
    return DensePatches(xy, widths, found)


def grid_starts(length: int, side: int, step: int) -> Int64[np.ndarray, " N"]:
    """First pixels of the patches along one axis: none where the picture is smaller than a patch."""
    count = max(0, (length - side) // step + 1)
    spare = length - side - (count - 1) * step
    return spare // 2 + step * np.arange(count, dtype=np.int64)


def cell_weights(side: int) -> Float32[np.ndarray, "side 4"]:
    """Share of the pixel at each place along a patch's side in each cell: linear between the centres of cells."""
    cell = side / 4
    places, centres = np.arange(side) + 0.5, (np.arange(4) + 0.5) * cell
    return np.maximum(0, 1 - np.abs(places[:, None] - centres) / cell).astype(np.float32)


def unit_descriptors(histograms: Float32[np.ndarray, "N D"], floor: float | int) -> Float32[np.ndarray, "N D"]:
    """Rows of length 1 after clipping; rows that sum to `floor` or less become 0. Works in place."""
    lengths = np.sqrt(np.einsum("nd,nd->n", histograms, histograms))
    strong = histograms.sum(1) > floor
    histograms *= np.where(strong, 1 / np.where(strong, lengths, 1), 0).astype(np.float32)[:, None]
    np.minimum(histograms, CLIP, out=histograms)
    lengths = np.sqrt(np.einsum("nd,nd->n", histograms, histograms))
    histograms /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
    return histograms


def gray_of(image: Shaped[Tensor, "C H W"], shortest: int = 0, longest: int = 1 << 30) -> Float32[Tensor, "H2 W2"]:
    """Grey 0..1 at a working size.

    Pictures smaller than a grid's patches need, such as 32x32, are enlarged (bilinear) until the shorter side has
    `shortest` pixels; larger ones are shrunk (by area) until the longer side has `longest`, which wins.
    """
    gray = torch.from_numpy(grey_levels(image) / np.float32(255))
    height, width = gray.shape
    scale = min(max(1.0, shortest / max(1, min(height, width))), longest / max(1, height, width))
    if scale == 1 or not gray.numel():
        return gray
    import cv2

    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    return torch.from_numpy(cv2.resize(gray.numpy(), size, interpolation=way))


def _one_size(
    pixels: Float32[np.ndarray, "H W"], side: int, step: int, contrast: float | int
) -> tuple[Float32[np.ndarray, "N 2"], Float32[np.ndarray, "N 128"]]:
    import cv2

    from bestiary.features._kernels.dense_sift import describe_patches, orient_gradients

    tops, lefts = (grid_starts(length, side, step) for length in pixels.shape)
    xy = np.stack(np.meshgrid(lefts, tops), axis=-1).reshape(-1, 2).astype(np.float32) + side / 2
    out = np.zeros((len(xy), 128), np.float32)
    if not len(xy):
        return xy, out
    smooth = cv2.GaussianBlur(pixels, (0, 0), SMOOTHING * side / 4, borderType=cv2.BORDER_REPLICATE)
    magnitudes, shares = np.empty_like(smooth), np.empty_like(smooth)
    bins = np.empty(smooth.shape, np.uint8)
    orient_gradients(smooth, magnitudes, bins, shares)
    describe_patches(magnitudes, bins, shares, cell_weights(side), lefts, tops, out)
    return xy, unit_descriptors(out, contrast * side * side)
