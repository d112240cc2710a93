"""Superpixels by local k-means: Achanta, Shaji, Smith, Lucchi, Fua, Suesstrunk: SLIC Superpixels Compared to
State-of-the-art Superpixel Methods, PAMI 2012."""

import math

import numpy as np
import torch
from jaxtyping import Float32, Int32, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import require


def slic_segments(
    image: UInt8[Tensor, "C H W"], count: int = 500, compactness: int | float = 10.0, rounds: int = 10
) -> Int32[Tensor, "H W"]:
    """Number of the superpixel that each pixel belongs to, from 0 in reading order; each is 4-connected.

    Pixels are compared in CIELAB (pictures of other than three channels: as they are, 0..100) and in place: `D^2 =
    d_colour^2 + (compactness d_place / S)^2` with S the side of a square of average size, within S of each centre
    along both axes (algorithm 1, equation 3). Parts of a superpixel that lie apart count by themselves; those of fewer
    than S^2 / 4 pixels join a neighbour.

    Args:
        image: 0..255.
        count: how many to aim at; the centres stand on a grid at first, so it may come a few more or fewer.
        compactness: m of the paper, 1 to 40: how much the place counts against the colour.
        rounds: of k-means.

    Raises:
        RecordError: not [C, H, W], or empty.
        UsageError: a count or number of rounds below 1, or a compactness that is not above 0.
    """
    from bestiary.features._kernels.slic import cluster, connect

    fits = image.ndim == 3 and image.numel() > 0
    require(fits, "slic_segments(image)", f"shape {tuple(image.shape)}", "(C, H, W), not empty")
    if min(count, rounds) < 1 or not compactness > 0:
        got = f"got count {count}, compactness {compactness}, rounds {rounds}, wanted at least 1, above 0, at least 1"
        raise UsageError(got, where="slic_segments")
    pixels = _colours(image)
    height, width = pixels.shape[:2]
    step = math.sqrt(height * width / count)
    centres, labels = _grid(pixels, step)
    cluster(pixels, centres, max(step, 1.0), float(compactness), rounds, labels)
    connected = np.empty((height, width), np.int32)
    connect(labels, int(step * step / 4), connected)
    return torch.from_numpy(connected)


def _colours(image: UInt8[Tensor, "C H W"]) -> Float32[np.ndarray, "H W C2"]:
    import cv2

    values = image.detach().cpu().permute(1, 2, 0).contiguous().numpy().astype(np.float32) / 255
    return cv2.cvtColor(values, cv2.COLOR_RGB2LAB) if values.shape[2] == 3 else values * 100


def _grid(
    pixels: Float32[np.ndarray, "H W C"], step: float
) -> tuple[Float32[np.ndarray, "S D"], Int32[np.ndarray, "H W"]]:
    """Centres (y, x, colour) of equal cells, moved to the least gradient of the nine pixels around; and each pixel's
    cell.
    """
    height, width = pixels.shape[:2]
    down, across = (max(1, round(side / step)) for side in (height, width))
    ys = ((np.arange(down) + 0.5) * height / down).astype(int)
    xs = ((np.arange(across) + 0.5) * width / across).astype(int)
    steepness = _squared_gradient(pixels)
    centres = []
    for y in ys:
        for x in xs:
            top, left = max(0, y - 1), max(0, x - 1)
            around = steepness[top : y + 2, left : x + 2]
            dy, dx = divmod(int(around.argmin()), around.shape[1])
            centres.append([top + dy, left + dx, *pixels[top + dy, left + dx]])
    cell = (np.arange(height) * down // height)[:, None] * across + np.arange(width) * across // width
    return np.array(centres, np.float32), cell.astype(np.int32)


def _squared_gradient(pixels: Float32[np.ndarray, "H W C"]) -> Float32[np.ndarray, "H W"]:
    """Equation 2 of the paper's earlier report: central differences in both directions, borders repeated."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    across = padded[1:-1, 2:] - padded[1:-1, :-2]
    return np.square(down).sum(2) + np.square(across).sum(2)
