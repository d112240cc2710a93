import math
from collections.abc import Callable

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.ops import boxes3d
from bestiary.ops.boxes3d import birds_eye_iou, box3d_corners, box3d_iou

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def random_boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(count, 3, generator=g) * 4, torch.rand(count, 3, generator=g) * 3 + 0.3
    return torch.cat([centre, size, torch.rand(count, 1, generator=g) * 7 - 3.5], dim=1).double()


def contains(boxes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Which points lie in which box, by solving for coordinates along its edges from one corner."""
    corners = box3d_corners(boxes)
    edges = corners[:, [4, 2, 1]] - corners[:, :1]
    along = torch.einsum("nek,npk->npe", edges, points[None] - corners[:, :1]) / edges.square().sum(-1)[:, None]
    return ((along >= 0) & (along <= 1)).all(-1)


def test_volumes_equal_those_counted_on_a_grid() -> None:
    boxes = random_boxes(6, 0)
    steps = torch.arange(-3, 8, 0.13, dtype=torch.float64)
    inside = contains(boxes, torch.cartesian_prod(steps, steps, steps)).double()
    inter = inside @ inside.t()
    union = inside.sum(1)[:, None] + inside.sum(1)[None] - inter
    torch.testing.assert_close(box3d_iou(boxes, boxes), inter / union, rtol=0, atol=0.02)


def test_hand_worked() -> None:
    # A car of 4 x 2 x 2 metres, and itself a quarter turned: 2 x 2 shared of 8 + 8 - 4; half as high up: half of it.
    car = torch.tensor([[1.0, 1, 10, 4, 2, 2, 0.3]])
    turned = car + torch.tensor([0, 0, 0, 0, 0, 0, math.pi / 2])
    raised = turned - torch.tensor([0.0, 1, 0, 0, 0, 0, 0])
    above = car - torch.tensor([0.0, 2, 0, 0, 0, 0, 0])
    others = torch.cat([car, turned, raised, above])
    torch.testing.assert_close(birds_eye_iou(car, others)[0], torch.tensor([1, 1 / 3, 1 / 3, 1]))
    torch.testing.assert_close(box3d_iou(car, others)[0], torch.tensor([1, 1 / 3, 4 / 28, 0]), rtol=1e-5, atol=1e-6)


def test_the_sense_of_yaw_is_that_of_the_corners() -> None:
    # A long thin box at 45 degrees points to -z with its far end: it meets a small box there, not the mirrored one.
    pole = torch.tensor([[0.0, 0, 10, 8, 1, 0.2, math.pi / 4]])
    there, mirrored = torch.tensor([[2.0, 0, 8, 1, 1, 1, 0]]), torch.tensor([[2.0, 0, 12, 1, 1, 1, 0]])
    assert float(birds_eye_iou(pole, there)) > 0.05
    assert float(birds_eye_iou(pole, mirrored)) == 0


def test_gradients_flow() -> None:
    a, b = random_boxes(3, 1).requires_grad_(), random_boxes(4, 2).requires_grad_()
    assert torch.autograd.gradcheck(box3d_iou, (a, b))
    assert torch.autograd.gradcheck(birds_eye_iou, (a, b))


@pytest.mark.parametrize("measure", [box3d_iou, birds_eye_iou])
def test_identities_empties_and_layouts(measure: Measure) -> None:
    a, b = random_boxes(30, 3), random_boxes(40, 4)
    torch.testing.assert_close(measure(a, a).diagonal(), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(measure(a, b), measure(b, a).t())
    with_gradient = measure(a.clone().requires_grad_(), b)
    assert torch.equal(with_gradient, measure(a, b)), "kernel and plain torch"
    assert torch.equal(measure(a.t().contiguous().t(), b), measure(a, b))
    assert torch.equal(measure(a.half(), b.half()), measure(a.half().float(), b.half().float()))
    flat = a * torch.tensor([1, 1, 1, 0, 1, 1, 1])
    assert not measure(flat, flat).any()
    assert measure(a[:0], b).shape == (0, 40)
    assert box3d_corners(a[:0]).shape == (0, 8, 3)
    with pytest.raises(RecordError, match=r"wanted \(N, 7\)"):
        boxes3d._require_boxes7("boxes", torch.zeros(2, 6))
