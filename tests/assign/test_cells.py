"""Objects to the cells of a grid."""

import pytest
import torch
from torch import Tensor

from bestiary.assign.cells import NOBODY, assign_cells, joined_cells
from bestiary.errors import RecordError


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def test_an_object_belongs_to_the_cell_of_its_centre() -> None:
    truth = assign_cells(boxes((10, 20, 30, 60), (60, 0, 80, 20)), torch.tensor([3, 1]), (80, 80), 4)
    assert truth.labels.shape == (1, 4, 4)
    assert truth.occupied[0].nonzero().tolist() == [[0, 3], [2, 1]]
    assert truth.labels[0, 2, 1] == 3
    assert truth.labels[0, 0, 3] == 1
    # Centre (20, 40): the left border of column 1, the upper one of row 2.
    torch.testing.assert_close(truth.boxes[0, 2, 1], torch.tensor([0.0, 0.0, 0.25, 0.5]))
    torch.testing.assert_close(truth.boxes[0, 0, 3], torch.tensor([0.5, 0.5, 0.25, 0.25]))
    assert not truth.boxes[~truth.occupied].any()


def test_pictures_need_not_be_square() -> None:
    truth = assign_cells(boxes((0, 0, 100, 10)), torch.tensor([0]), (40, 200), 4)
    assert truth.occupied[0].nonzero().tolist() == [[0, 1]]
    torch.testing.assert_close(truth.boxes[0, 0, 1], torch.tensor([0.0, 0.5, 0.5, 0.25]))


def test_of_two_objects_in_a_cell_the_first_is_learned() -> None:
    pair = boxes((10, 10, 30, 30), (11, 11, 31, 31))
    assert int(assign_cells(pair, torch.tensor([5, 6]), (80, 80), 2).labels[0, 0, 0]) == 5
    assert int(assign_cells(pair.flip(0), torch.tensor([6, 5]), (80, 80), 2).labels[0, 0, 0]) == 6
    assert int(assign_cells(pair, torch.tensor([5, 6]), (80, 80), 2).occupied.sum()) == 1


def test_centres_on_the_far_border_have_a_cell() -> None:
    truth = assign_cells(boxes((79, 79, 81, 81)), torch.tensor([0]), (80, 80), 4)
    assert truth.occupied[0].nonzero().tolist() == [[3, 3]]


def test_cells_on_crowds_are_ignored_unless_they_have_an_object() -> None:
    crowd = boxes((0, 0, 45, 25))
    truth = assign_cells(boxes((0, 0, 10, 10)), torch.tensor([0]), (80, 80), 4, crowd)
    assert truth.ignored[0].nonzero().tolist() == [[0, 1]]


def test_no_object_is_legal_and_pictures_join() -> None:
    empty = assign_cells(boxes(), torch.zeros(0, dtype=torch.int64), (80, 80), 3, boxes())
    assert (empty.labels == NOBODY).all()
    assert not empty.ignored.any()
    both = joined_cells([empty, assign_cells(boxes((0, 0, 9, 9)), torch.tensor([2]), (80, 80), 3)])
    assert both.occupied.sum((1, 2)).tolist() == [0, 1]
    with pytest.raises(RecordError, match="wanted at least 1"):
        assign_cells(boxes(), torch.zeros(0, dtype=torch.int64), (80, 80), 0)
