"""Haar-like features: differences between adjacent rectangles (Papageorgiou, Oren, Poggio, ICCV 1998; Viola, Jones,
CVPR 2001, section 2).

Five kinds, each a small grid of equal cells: two side by side, two stacked, three side by side, three stacked, and four
as a chequerboard. In the three-cell kinds the middle cell counts twice, so that no feature sees the brightness (the
paper counts it once).
"""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64
from torch import Tensor

from bestiary.records import require

KINDS = (((1, -1),), ((1,), (-1,)), ((-1, 2, -1),), ((-1,), (2,), (-1,)), ((1, -1), (-1, 1)))
"""What the cells of each kind count, in rows."""

CORNERS = 9
"""Most corners of cells that a kind has."""

LEAST_DEVIATION = 1.0
"""Grey levels: a window with less contrast is taken to have so much, or noise would look like an object."""


def enumerate_haar(window_hw: tuple[int, int]) -> Int32[Tensor, "N 5"]:
    """All features of a window: kind, and x, y, width, height of the first cell; 162,336 of 24 x 24 pixels.

    Raises:
        RecordError: a window smaller than 3 x 3.
    """
    require(min(window_hw) >= 3, "enumerate_haar(window_hw)", window_hw, "3 x 3 or more")
    parts = []
    for kind, cells in enumerate(KINDS):
        tops, heights = _spans(window_hw[0], len(cells))
        lefts, widths = _spans(window_hw[1], len(cells[0]))
        rows, columns = np.divmod(np.arange(len(tops) * len(lefts)), len(lefts))
        table = [np.full(len(rows), kind), lefts[columns], tops[rows], widths[columns], heights[rows]]
        parts.append(np.stack(table, axis=1))
    return torch.from_numpy(np.concatenate(parts).astype(np.int32))


def _spans(side: int, cells: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Starts and lengths of a cell such that `cells` of them in a row fit."""
    pairs = [(start, length) for length in range(1, side // cells + 1) for start in range(side - cells * length + 1)]
    starts, lengths = np.array(pairs, np.int64).reshape(-1, 2).T
    return starts, lengths


def corner_table(
    features: Int32[np.ndarray, "F 5"], scale: float | int
) -> tuple[Int64[np.ndarray, "F 9 2"], Float64[np.ndarray, "F 9"]]:
    """Where the corners of each feature's cells are, (y, x) in a window `scale` times as large, and how much the
    integral image counts there.

    Corners are rounded to whole pixels. Each cell counts as the mean of its pixels times its area at scale 1: so values
    of all scales compare, and rounding does not unbalance a feature.
    """
    places, shares = np.zeros((len(features), CORNERS, 2), np.int64), np.zeros((len(features), CORNERS))
    for kind, signs in enumerate(KINDS):
        mine = np.flatnonzero(features[:, 0] == kind)
        x, y, width, height = features[mine, 1:].T.astype(np.float64)
        cells_y, cells_x = len(signs), len(signs[0])
        ys = _rounded((y[:, None] + np.arange(cells_y + 1) * height[:, None]) * scale)
        xs = _rounded((x[:, None] + np.arange(cells_x + 1) * width[:, None]) * scale)
        # A cell of less than half a pixel, at scales below 1, would vanish.
        areas = np.maximum(np.diff(ys)[:, :, None] * np.diff(xs)[:, None, :], 1)
        worth = np.asarray(signs) * (width * height)[:, None, None] / areas
        grid = np.zeros((len(mine), cells_y + 1, cells_x + 1))
        grid[:, :-1, :-1] += worth
        grid[:, :-1, 1:] -= worth
        grid[:, 1:, :-1] -= worth
        grid[:, 1:, 1:] += worth
        corners = grid.shape[1] * grid.shape[2]
        shares[mine, :corners] = grid.reshape(len(mine), corners)
        spread = np.broadcast_to(ys[:, :, None], grid.shape), np.broadcast_to(xs[:, None, :], grid.shape)
        places[mine, :corners] = np.stack(spread, axis=-1).reshape(len(mine), corners, 2)
    return places, shares


def _rounded(values: Float64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
    return np.floor(values + 0.5).astype(np.int64)


def normalised_integrals(windows: Float32[np.ndarray, "N H W"]) -> Float32[np.ndarray, "N A"]:
    """Integral images, flattened, of windows of mean 0 and standard deviation 1."""
    exact = windows.astype(np.float64)
    exact = exact - exact.mean((1, 2), keepdims=True)
    exact /= np.maximum(exact.std((1, 2), keepdims=True), LEAST_DEVIATION)
    integrals = np.zeros((len(windows), windows.shape[1] + 1, windows.shape[2] + 1))
    integrals[:, 1:, 1:] = exact.cumsum(1).cumsum(2)
    return np.ascontiguousarray(integrals.reshape(len(windows), -1), np.float32)


def haar_values(
    integrals: Float32[np.ndarray, "N A"], features: Int32[np.ndarray, "F 5"], window_hw: tuple[int, int]
) -> Float32[np.ndarray, "F N"]:
    """Every feature of every window.

    Args:
        integrals: as `normalised_integrals` gives them.
        features: as `enumerate_haar` gives them.
        window_hw: size of the windows.
    """
    from bestiary.features._kernels.haar import corner_sums
    from bestiary.ops._kernels.threads import in_threads

    places, shares = corner_table(features, 1)
    offsets = np.ascontiguousarray(places[:, :, 0] * (window_hw[1] + 1) + places[:, :, 1])
    weights = shares.astype(np.float32)
    columns = np.ascontiguousarray(integrals.T)
    out = np.empty((len(features), len(integrals)), np.float32)

    def work(start: int, stop: int) -> None:
        corner_sums(columns, offsets, weights, start, stop, out)

    in_threads(work, len(features), torch.get_num_threads(), grain=256)
    return out
