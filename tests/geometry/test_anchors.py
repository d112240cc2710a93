import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry.anchors import cell_anchors, grid_anchors, pyramid_anchors, strides_of


def test_the_published_anchors_of_one_cell() -> None:
    assert cell_anchors([32], [0.5, 1, 2]).tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    got = cell_anchors([128, 256, 512], [0.5, 1.0, 2.0])
    assert got[:2].tolist() == [[-91, -45, 91, 45], [-181, -91, 181, 91]], "ratio by ratio, then size by size"
    assert got[4].tolist() == [-128, -128, 128, 128]


@pytest.mark.parametrize("size", [8, 33, 64, 101.5, 512])
def test_areas_and_ratios_survive_rounding(size: float) -> None:
    for ratio, (x1, y1, x2, y2) in zip((0.5, 1.0, 2.0), cell_anchors([size], [0.5, 1, 2]).tolist(), strict=True):
        assert abs((x2 - x1) - size / math.sqrt(ratio)) <= 1.0
        assert abs((y2 - y1) - size * math.sqrt(ratio)) <= 1.0


def test_order_is_row_column_anchor() -> None:
    cell = cell_anchors([4], [0.5, 2])
    got = grid_anchors(cell, (2, 3), (10, 100))
    naive = [
        [x1 + 100 * c, y1 + 10 * r, x2 + 100 * c, y2 + 10 * r]
        for r in range(2)
        for c in range(3)
        for x1, y1, x2, y2 in cell.tolist()
    ]
    assert got.tolist() == naive


def test_the_published_number_of_anchors() -> None:
    grids = [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]
    strides = strides_of((800, 1344), grids)
    assert strides == [(4, 4), (8, 8), (16, 16), (32, 32), (61, 64)], "rounded down where the map was rounded up"
    levels = pyramid_anchors([(32,), (64,), (128,), (256,), (512,)], [0.5, 1, 2], grids, strides)
    assert sum(len(level) for level in levels) == 268_569
    assert levels[4][-1].tolist() == [20 * 64 - 181, 12 * 61 - 362, 20 * 64 + 181, 12 * 61 + 362]
    nine = pyramid_anchors(
        [(32, 40, 50)] * 5, [0.5, 1, 2], [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)], strides
    )
    assert sum(len(level) for level in nine) == 201_600


def test_misfits_are_named() -> None:
    with pytest.raises(RecordError, match="as many of each"):
        pyramid_anchors([(32,)], [1], [(2, 2), (1, 1)], [(4, 4)])
    with pytest.raises(RecordError, match="positive numbers"):
        cell_anchors([0], [1])
    with pytest.raises(RecordError, match="positive ratios"):
        cell_anchors([32], [])
    with pytest.raises(RecordError, match="at least one cell"):
        strides_of((10, 10), [(0, 3)])


def test_no_cells_no_anchors() -> None:
    assert grid_anchors(torch.zeros(3, 4), (0, 5), (4, 4)).shape == (0, 4)
