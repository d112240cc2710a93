import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry.default_boxes import DefaultBoxes, DefaultMap, default_maps


def test_order_and_sizes_of_a_cell() -> None:
    cell = DefaultMap(30, 60, (2, 3), 8)
    assert cell.count == 6
    root2, root3 = math.sqrt(2), math.sqrt(3)
    wanted = [
        (30, 30),
        (math.sqrt(1800),) * 2,
        (30 * root2, 30 / root2),
        (30 / root2, 30 * root2),
        (30 * root3, 30 / root3),
        (30 / root3, 30 * root3),
    ]
    torch.testing.assert_close(cell.sizes(), torch.tensor(wanted))


def test_without_a_larger_size_there_is_one_square() -> None:
    cell = DefaultMap(60, None, (2,), 16)
    assert cell.count == len(cell.sizes()) == 3


def test_whole_pixels_are_cut_before_the_root() -> None:
    cell = DefaultMap(35.84, 76.8, (2,), 8)
    cut = cell.sizes(whole_pixels=True)
    assert cut[0].tolist() == [35, 35]
    assert float(cut[1, 0]) == pytest.approx(math.sqrt(35 * 76))
    assert float(cut[2, 0]) == pytest.approx(35 * math.sqrt(2))
    assert float(cell.sizes()[0, 0]) == pytest.approx(35.84)


def test_only_sides_are_cut_to_the_longest() -> None:
    sizes = DefaultMap(261, 315, (2,), 300).sizes(longest=300)
    assert sizes[:, 0].max() == 300
    assert float(sizes[2, 1]) == pytest.approx(261 / math.sqrt(2))
    boxes = DefaultBoxes((DefaultMap(261, 315, (2,), 300),), longest=300).over([(1, 1)])
    assert boxes[2, 0] == 0  # centred at 150
    assert DefaultBoxes((DefaultMap(261, 315, (2,), 300),)).over([(1, 1)])[2, 0] < 0


def test_every_box_by_a_loop() -> None:
    """Centres (i + 0.5) step, map by map, cells row by row."""
    maps = default_maps((10, 20, 40), ((2,), (2, 3)), (8, 15))
    boxes = DefaultBoxes(maps).over([(2, 3), (1, 2)])
    wanted = []
    for of_map, (down, across) in zip(maps, [(2, 3), (1, 2)], strict=True):
        for i in range(down):
            for j in range(across):
                x, y = (j + 0.5) * of_map.step, (i + 0.5) * of_map.step
                wanted += [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in of_map.sizes().tolist()]
    torch.testing.assert_close(boxes, torch.tensor(wanted))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RecordError, match="wanted one a map"):
        default_maps((10, 20), ((2,), (2,)), (8, 16))
    with pytest.raises(RecordError, match="got 1 grids, wanted 2"):
        DefaultBoxes(default_maps((10, 20, 30), ((2,), (2,)), (8, 16))).over([(3, 3)])
    with pytest.raises(RecordError, match="positive numbers of pixels"):
        DefaultMap(0, 5, (2,), 8)
