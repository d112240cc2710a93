import itertools

import torch

from bestiary.assign.bipartite import give_each_its_best
from bestiary.assign.matcher import NEGATIVE, ThresholdMatcher
from bestiary.geometry.boxes import pairwise_iou

MATCHER = ThresholdMatcher(0.5, 0.5)


def owners(objects: torch.Tensor, boxes: torch.Tensor) -> dict[int, int]:
    """Box -> object of the positives."""
    found = give_each_its_best(MATCHER.match_boxes(objects, boxes), objects, boxes)
    return {int(i): int(found.object[i]) for i in found.positive.nonzero()[:, 0]}


def test_an_object_below_the_threshold_has_its_best_box() -> None:
    objects = torch.tensor([[0.0, 0, 4, 4]])
    boxes = torch.tensor([[20.0, 0, 30, 10], [0, 0, 10, 10], [2, 2, 12, 12]])
    assert MATCHER.match_boxes(objects, boxes).kind.tolist() == [NEGATIVE] * 3
    assert owners(objects, boxes) == {1: 0}


def test_a_box_that_is_best_for_two_goes_to_the_nearer_and_the_other_takes_its_next() -> None:
    objects = torch.tensor([[0.0, 0, 6, 6], [0, 0, 9, 9]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 3, 3], [40, 40, 50, 50]])
    assert pairwise_iou(objects, boxes).argmax(1).tolist() == [0, 0]
    assert owners(objects, boxes) == {0: 1, 1: 0}
    assert owners(objects.flip(0), boxes) == {0: 0, 1: 1}


def test_a_box_claimed_by_a_worse_fitting_object_changes_its_owner() -> None:
    """The only box is better for the first; the second overlaps it too, and there is another one for nobody."""
    objects = torch.tensor([[0.0, 0, 10, 10], [0, 0, 8, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9.5, 10]])
    assert MATCHER.match_boxes(objects, boxes).object.tolist() == [0, 0]
    assert owners(objects, boxes) == {0: 0, 1: 1}


def test_objects_that_nothing_overlaps_and_no_objects_change_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    assert owners(torch.tensor([[100.0, 100, 110, 110]]), boxes) == {}
    assert owners(torch.zeros(0, 4), boxes) == {}
    assert len(give_each_its_best(MATCHER.match_boxes(boxes, boxes[:0]), boxes, boxes[:0])) == 0


def test_more_objects_than_boxes_leaves_the_worst_without() -> None:
    objects = torch.tensor([[0.0, 0, 5, 5], [0, 0, 9, 9], [0, 0, 2, 2]])
    assert owners(objects, torch.tensor([[0.0, 0, 10, 10]])) == {0: 1}


def test_it_equals_a_plain_loop_over_all_pairs() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner = 40 * torch.rand(37, 2, generator=rng)
        boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(37, 2, generator=rng)], 1)
        objects, boxes = boxes[:7] + 1.0, boxes[5:]
        assignment = MATCHER.match_boxes(objects, boxes)
        wanted = {int(i): int(assignment.object[i]) for i in assignment.positive.nonzero()[:, 0]}
        iou = pairwise_iou(objects, boxes)
        pairs = sorted(itertools.product(range(7), range(32)), key=lambda p: -float(iou[p]))
        done: set[int] = set()
        taken: set[int] = set()
        for row, column in pairs:
            if float(iou[row, column]) > 0 and row not in done and column not in taken:
                done.add(row)
                taken.add(column)
                wanted[column] = row
        assert owners(objects, boxes) == wanted
