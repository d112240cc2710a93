"""Gaussian sums without approximation: over all pairs of points, and on the grid of a picture."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.boxes import at_least_float32
from bestiary.records import require

_PAIRS_AT_ONCE = 1 << 24
"""Weights held at a time by the filter over all pairs (64 MB of float32)."""


def exact_gaussian_filter(values: Float[Tensor, "N C"], features: Float[Tensor, "N d"]) -> Float[Tensor, "N C"]:
    """Sum of all points' values, each weighted by a Gaussian of its distance, pair by pair: O(N^2).

    Convention: as `permutohedral_filter`, of which this is the truth: exp(-|f_i - f_j|^2 / 2), peak 1, j = i included.
    Gradients flow to values and features. Half precision is computed in float32.

    Args:
        values: a row a point.
        features: the points' coordinates in units of the Gaussian's standard deviation.

    Raises:
        RecordError: shapes do not fit.
    """
    fits = values.ndim == features.ndim == 2 and values.shape[0] == features.shape[0]
    got = f"shapes {tuple(values.shape)} and {tuple(features.shape)}"
    require(fits, "exact_gaussian_filter(values, features)", got, "(N, C) and (N, d)")
    computed = at_least_float32(values)
    points, rows = features.to(computed.dtype), max(1, _PAIRS_AT_ONCE // max(1, len(features)))
    parts = [gaussian_matrix(part, points) @ computed for part in points.split(rows)]
    return torch.cat(parts).to(values.dtype)


def gaussian_matrix(points: Float[Tensor, "N d"], others: Float[Tensor, "M d"]) -> Float[Tensor, "N M"]:
    """exp(-|f_i - f_j|^2 / 2) of each pair; squares of differences, as differences of squares would lose digits."""
    total = points.new_zeros(points.shape[0], others.shape[0])
    for column, other in zip(points.unbind(1), others.unbind(1), strict=True):
        total = total + (column[:, None] - other[None]).square()
    return torch.exp(-0.5 * total)


def grid_gaussian_filter(values: Float[Tensor, "H W C"], sigma: int | float) -> Float[Tensor, "H W C"]:
    """Sum of all pixels' values, each weighted by a Gaussian of its distance in the picture: exact, as it is separable.

    Convention: exp(-|p_i - p_j|^2 / (2 sigma^2)), peak 1, not normalised, j = i included; pixels beyond the picture do
    not exist (divide by the filter of ones for a weighted mean). Weights below the rounding error of the peak (2^-24,
    in float64 2^-53) are left out. Gradients flow to the values. Half precision is computed in float32.

    Args:
        values: channels last.
        sigma: standard deviation in pixels, above 0.

    Raises:
        RecordError: not three axes, or sigma is not positive and finite.
    """
    require(values.ndim == 3, "grid_gaussian_filter(values)", f"shape {tuple(values.shape)}", "(H, W, C)")
    require(0 < sigma < math.inf, "grid_gaussian_filter(sigma)", sigma, "a positive number of pixels")
    computed = at_least_float32(values)
    bits = 53 if computed.dtype == torch.float64 else 24
    reach = min(int(sigma * math.sqrt(2 * bits * math.log(2))), max(values.shape[:2]))
    distance = torch.arange(reach + 1, dtype=torch.float64, device=values.device)
    taps = torch.exp(-0.5 * (distance / sigma).square()).to(computed.dtype)
    height, width, channels = values.shape
    down = _blur(computed.reshape(height, width * channels), taps)
    return _blur(down.view(height, width, channels), taps).to(values.dtype)


def _blur(values: Float[Tensor, "*B S C"], taps: Float[Tensor, " T"]) -> Float[Tensor, "*B S C"]:
    """Blur along the last axis but one, a block of places at a time: products of matrices are several times faster than
    a loop over taps, and a block as wide as the reach wastes little on weights that are zero.
    """
    size, reach = values.shape[-2], len(taps) - 1
    block = max(16, reach)
    weights, parts = F.pad(taps, (0, 1)), []
    for start in range(0, size, block):
        stop, first, last = min(size, start + block), max(0, start - reach), min(size, start + block + reach)
        place = torch.arange(first, last, device=values.device)
        distance = (place[start - first : stop - first, None] - place).abs()
        parts.append(weights[distance.clamp(max=reach + 1)] @ values[..., first:last, :])
    return torch.cat(parts, dim=-2) if parts else values
