"""Means over windows of whole pixels from running sums: what an exported graph does, as no runtime has the operator.

A window's sum is a difference of four entries of the map's sums from its corner. Each map's mean is taken off first, so
that sums stay small and little is lost in the differences.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


def mean_by_sums(
    features: Float[Tensor, "B C H W"],
    pictures: Int64[Tensor, " R"],
    rows: Int64[Tensor, "R _h 2"],
    columns: Int64[Tensor, "R _w 2"],
    by_position: bool = False,
) -> Float[Tensor, "R _c _h _w"]:
    """`mean_in_windows` by arithmetic alone; arguments as there. Right to about 1e-4 of the features' spread."""
    (batch, channels, height, width), down, across = features.shape, rows.shape[1], columns.shape[1]
    bins = down * across
    positions = bins if by_position else 1
    groups = channels // positions
    level = features.mean((2, 3), keepdim=True)
    sums = F.pad((features - level).cumsum(2).cumsum(3), [1, 0, 1, 0])
    cells = (height + 1) * (width + 1)
    table = sums.view(batch, groups, positions, cells).permute(0, 2, 3, 1).reshape(-1, groups)
    position = torch.arange(bins, device=rows.device) if by_position else rows.new_zeros(bins)
    first = (pictures[:, None] * positions + position) * cells
    top, left = rows[..., 0], columns[..., 0]
    bottom, right = torch.maximum(rows[..., 1], top), torch.maximum(columns[..., 1], left)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return table[first + (y[:, :, None] * (width + 1) + x[:, None, :]).flatten(1)]

    total = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
    area = ((bottom - top)[:, :, None] * (right - left)[:, None, :]).flatten(1)[..., None]
    levels = level.view(batch, groups, positions).transpose(1, 2)[pictures[:, None], position]
    means = torch.where(area > 0, total / area.clamp(min=1) + levels, 0.0)
    return means.transpose(1, 2).reshape(-1, groups, down, across)
