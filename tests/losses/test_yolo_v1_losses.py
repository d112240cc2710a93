"""Equation 3 of YOLO: nothing for a perfect answer, and each of the five terms alone, by its exact value."""

import math

import pytest
import torch
from torch import Tensor

from bestiary.assign.cells import CellTruth
from bestiary.losses.yolo_v1 import CellLosses, Cells, responsible, yolo_v1_losses

SIDE, BOXES, CATEGORIES = 3, 2, 4


def truth() -> CellTruth:
    """Two pictures; in the first one object in cell (1, 2), in the second none."""
    labels = torch.full((2, SIDE, SIDE), -1)
    boxes = torch.zeros(2, SIDE, SIDE, 4)
    labels[0, 1, 2] = 3
    boxes[0, 1, 2] = torch.tensor([0.4, 0.6, 0.25, 0.36])
    return CellTruth(labels, boxes, torch.zeros(2, SIDE, SIDE, dtype=torch.bool))


def perfect() -> Cells:
    """The second box of the object's cell is it; the first is elsewhere."""
    probs = torch.zeros(2, SIDE, SIDE, CATEGORIES)
    confidences = torch.zeros(2, SIDE, SIDE, BOXES)
    boxes = torch.zeros(2, SIDE, SIDE, BOXES, 4)
    probs[0, 1, 2, 3] = 1
    confidences[0, 1, 2, 1] = 1
    boxes[0, 1, 2, 1] = torch.tensor([0.4, 0.6, 0.5, 0.6])
    return Cells(probs, confidences, boxes)


def terms(cells: Cells) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in yolo_v1_losses(cells, truth())._asdict().items()}


def changed(part: str, place: tuple[int, ...], value: float) -> Cells:
    cells = perfect()
    getattr(cells, part)[place] += value
    return cells


def test_a_perfect_answer_costs_nothing() -> None:
    assert all(value == pytest.approx([0, 0], abs=1e-12) for value in terms(perfect()).values())


@pytest.mark.parametrize(
    ("part", "place", "term", "wanted"),
    [
        ("confidences", (0, 1, 2, 1), "confidence", 0.3**2),
        ("confidences", (0, 1, 2, 0), "no_object", 0.5 * 0.3**2),
        ("confidences", (0, 0, 0, 1), "no_object", 0.5 * 0.3**2),
        ("probs", (0, 1, 2, 0), "category", 0.3**2),
        ("probs", (0, 1, 2, 3), "category", 0.3**2),
    ],
)
def test_each_other_term_alone(part: str, place: tuple[int, ...], term: str, wanted: float) -> None:
    found = terms(changed(part, place, 0.3))
    assert found.pop(term) == pytest.approx([wanted, 0], rel=1e-5)
    assert all(value == pytest.approx([0, 0], abs=1e-12) for value in found.values())


@pytest.mark.parametrize(("number", "term"), [(0, "centre"), (1, "centre"), (2, "size"), (3, "size")])
def test_a_moved_box_costs_five_squares_and_its_lost_overlap(number: int, term: str) -> None:
    found = terms(changed("boxes", (0, 1, 2, 1, number), 0.1))
    assert found.pop(term) == pytest.approx([5 * 0.1**2, 0], rel=1e-5)
    wide, high = (0.5, 0.6)
    if number < 2:  # moved by 0.1 of a cell: a thirtieth of the picture
        side = (0.25, 0.36)[number]
        overlap = (side - 0.1 / 3) / (side + 0.1 / 3)
    else:
        overlap = ((wide, high)[number - 2] / ((wide, high)[number - 2] + 0.1)) ** 2
    assert found.pop("confidence") == pytest.approx([(1 - overlap) ** 2, 0], rel=1e-4)
    assert all(value == pytest.approx([0, 0], abs=1e-12) for value in found.values())


@pytest.mark.parametrize(
    ("part", "place"), [("probs", (0, 0, 0, 1)), ("boxes", (1, 1, 2, 0, 2)), ("boxes", (0, 1, 2, 0, 0))]
)
def test_empty_cells_and_boxes_that_are_not_responsible_cost_nothing(part: str, place: tuple[int, ...]) -> None:
    assert all(value == pytest.approx([0, 0], abs=1e-12) for value in terms(changed(part, place, 0.05)).values())


def test_gradients_go_where_the_equation_has_terms() -> None:
    torch.manual_seed(0)
    cells = Cells(*(torch.rand_like(part).requires_grad_() for part in perfect()))
    losses = yolo_v1_losses(cells, truth())
    torch.stack(list(losses)).sum().backward()
    grads = [part.grad for part in cells]
    assert all(isinstance(g, Tensor) for g in grads)
    probs, confidences, boxes = (g for g in grads if g is not None)
    assert probs.abs().sum(-1).nonzero().tolist() == [[0, 1, 2]]
    assert bool((confidences != 0).all())
    moved = boxes.abs().sum(-1).nonzero().tolist()
    assert len(moved) == 1
    assert moved[0][:3] == [0, 1, 2]


def test_the_box_that_overlaps_most_is_responsible_and_else_the_nearest() -> None:
    cells = perfect()
    cells.boxes[0, 1, 2, 0] = torch.tensor([0.4, 0.6, 0.4, 0.6])
    best, overlap = responsible(cells.boxes, truth())
    assert (int(best[0, 1, 2]), float(overlap[0, 1, 2])) == (1, pytest.approx(1.0))
    cells.boxes[0, 1, 2, 1] = torch.tensor([0.4, 0.6, 0.1, 0.1])
    best, overlap = responsible(cells.boxes, truth())
    assert (int(best[0, 1, 2]), float(overlap[0, 1, 2])) == (0, pytest.approx(0.16 / 0.25))
    cells.boxes[0, 1, 2] = torch.tensor([[9.0, 9.0, 0.5, 0.6], [5.0, 5.0, 0.5, 0.6]])
    best, overlap = responsible(cells.boxes, truth())
    assert (int(best[0, 1, 2]), float(overlap[0, 1, 2])) == (1, 0.0)
    assert int(best.sum()) == 1


def test_crowded_cells_cost_nothing_and_weights_weigh_the_objects_category() -> None:
    known = truth()
    known.ignored[1, 0, 0] = True
    cells = changed("confidences", (1, 0, 0, 1), 0.7)
    assert all(float(v.sum()) == pytest.approx(0, abs=1e-12) for v in yolo_v1_losses(cells, known))
    wrong = changed("probs", (0, 1, 2, 0), 0.5)
    weighed: CellLosses = yolo_v1_losses(wrong, known, class_weights=torch.tensor([9.0, 9.0, 9.0, 2.0]))
    assert float(weighed.category[0]) == pytest.approx(2 * 0.25)
    assert math.isclose(float(yolo_v1_losses(perfect(), known, class_weights=torch.ones(4)).category[0]), 0.0)


def test_empty_boxes_and_truth_have_finite_losses() -> None:
    cells = Cells(*(torch.zeros_like(part).requires_grad_() for part in perfect()))
    losses = yolo_v1_losses(cells, truth())
    total = torch.stack(list(losses)).sum()
    total.backward()
    assert all(part.grad is not None and bool(part.grad.isfinite().all()) for part in cells)
