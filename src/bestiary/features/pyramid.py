"""Spatial pyramids of visual words, and the kernel that compares them.

Lazebnik, Schmid, Ponce: *Beyond Bags of Features*, CVPR 2006; the pyramid match kernel is Grauman and Darrell's (ICCV
2005).
"""

import math

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.features.sparse_rows import SparseRows


def pyramid_width(num_words: int, levels: int) -> int:
    """Numbers of a pyramid whose finest grid has 2^levels cells a side: M (4^(L+1) - 1) / 3."""
    return num_words * (4 ** (levels + 1) - 1) // 3


def level_weights(levels: int) -> tuple[float, ...]:
    """What a match counts at each level: 1/2^L at level 0 and 1/2^(L-l+1) at level l. They sum to 1."""
    return (0.5**levels, *(0.5 ** (levels - level + 1) for level in range(1, levels + 1)))


def pyramid_columns(
    words: Int64[Tensor, " N"], xy: Float32[Tensor, "N 2"], size_hw: tuple[int, int], num_words: int, levels: int
) -> Int64[Tensor, " T"]:
    """Where each word counts in the concatenated histograms: once a level.

    Levels coarse to fine, cells of a level row by row, words within a cell. Points on the border between cells count in
    the right or lower one.
    """
    height, width = size_hw
    parts = []
    for level in range(levels + 1):
        grid = 2**level
        column = (xy[:, 0] * (grid / max(1, width))).long().clamp(0, grid - 1)
        row = (xy[:, 1] * (grid / max(1, height))).long().clamp(0, grid - 1)
        before = num_words * (4**level - 1) // 3
        parts.append(before + (row * grid + column) * num_words + words)
    return torch.cat(parts)


def weigh_pyramid(counts: SparseRows, num_words: int, levels: int) -> SparseRows:
    """Counts over the number of words in the picture, times the weight of their level.

    The plain histogram intersection of two such rows is the pyramid match kernel, and 1 of a picture with itself.
    """
    weights = torch.tensor(level_weights(levels))
    starts = torch.tensor([num_words * (4**level - 1) // 3 for level in range(1, levels + 1)], dtype=torch.int64)
    level = torch.bucketize(counts.columns, starts, right=True)
    # Every word counts once a level, so the whole row sums to (L + 1) times the number of words.
    shares = counts.of_unit_sum()
    return shares.with_values(shares.values * (levels + 1) * weights[level])


def intersection_features(histograms: SparseRows, order: int = 1) -> SparseRows:
    """Rows whose plain scalar product is nearly the histogram intersection (Vedaldi, Zisserman, PAMI 2012).

    The kernel is min(x, y) = sqrt(xy) exp(-|log(x / y)| / 2). Its last factor, repeated with the period P, is a cosine
    series in log x - log y, of which the first terms are kept: each number above 0 becomes 2 order + 1 numbers. Zeros
    stay zeros, so sparse rows stay sparse.

    Args:
        order: cosines beside the constant; 1 serves classifiers about as well as the exact kernel.
    """
    # P as in the authors' library: wide enough for most ratios of two numbers, narrow enough for few terms.
    period = 2.38 * math.log(order + 0.8) + 5.6
    x = histograms.values.clamp(min=1e-30)
    parts = [(x * _cosine_coefficient(0, period)).sqrt()]
    for j in range(1, order + 1):
        length, angle = (2 * x * _cosine_coefficient(j, period)).sqrt(), 2 * math.pi * j / period * x.log()
        parts += [length * angle.cos(), length * angle.sin()]
    several = len(parts)
    columns = histograms.columns[:, None] * several + torch.arange(several)
    values = torch.stack(parts, dim=1)
    return SparseRows(histograms.offsets * several, columns.flatten(), values.flatten(), histograms.width * several)


def _cosine_coefficient(j: int, period: float) -> float:
    """Of exp(-|t| / 2) on one period about 0: its mean product with cos(2 pi j t / period)."""
    frequency = 2 * math.pi * j / period
    return (1 - (-1) ** j * math.exp(-period / 4)) / (period * (0.25 + frequency**2))
