import pytest
import torch

from bestiary import ops
from bestiary.geometry.boxes import pairwise_iou
from bestiary.ops import overlaps


def random_boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 100
    return torch.cat([corner, corner + torch.rand(count, 2, generator=g) * 50], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_give_what_plain_torch_gives_to_the_bit(dtype: torch.dtype) -> None:
    a, b = random_boxes(301, 0).to(dtype), random_boxes(97, 1).to(dtype)
    assert len(a) * len(b) > overlaps._WORTH_A_KERNEL
    assert torch.equal(ops.box_iou(a, b), pairwise_iou(a, b))


def test_the_number_of_threads_changes_nothing() -> None:
    a, b = random_boxes(500, 0), random_boxes(400, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.box_iou(a, b)
        torch.set_num_threads(3)
        three = ops.box_iou(a, b)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, three)


def test_hand_worked_overlaps() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [0, 0, 0, 0]])
    expected = torch.tensor([[1 / 7, 1, 0, 0], [0, 0, 0, float("nan")]])
    torch.testing.assert_close(ops.box_iou(a, b), expected, equal_nan=True)
    # Enclosing box 3 x 3 of the first pair, of which 2 are covered by neither; 6 x 6 of the far pair, 31 uncovered.
    got = ops.generalized_box_iou(a[:1], b[:3])[0]
    torch.testing.assert_close(got, torch.tensor([1 / 7 - 2 / 9, 1.0, -31 / 36]))


def test_gradients_flow_where_they_are_asked_for() -> None:
    a, b = random_boxes(80, 2).double().requires_grad_(), random_boxes(80, 3).double()
    assert ops.box_iou(a, b).requires_grad
    torch.autograd.gradcheck(ops.generalized_box_iou, (a[:3].detach().requires_grad_(), b[:4]))


def test_empty_sets() -> None:
    assert ops.box_iou(torch.zeros(0, 4), random_boxes(5000, 0)).shape == (0, 5000)
    assert ops.box_iou(random_boxes(3, 0), torch.zeros(0, 4)).shape == (3, 0)
    assert ops.generalized_box_iou(torch.zeros(0, 4), torch.zeros(2, 4)).shape == (0, 2)


def test_names_of_the_reference_are_the_geometry_underneath() -> None:
    boxes = torch.tensor([[-5.0, 2, 30, 8], [1, 1, 1.5, 9]])
    assert ops.clip_boxes_to_image(boxes, (6, 20)).tolist() == [[0, 2, 20, 6], [1, 1, 1.5, 6]]
    assert ops.remove_small_boxes(boxes, 0.5).tolist() == [0, 1]
    assert ops.remove_small_boxes(boxes, 0.51).tolist() == [0]
    assert ops.box_convert(boxes, "xyxy", "xywh").tolist() == [[-5, 2, 35, 6], [1, 1, 0.5, 8]]
    assert ops.box_area(boxes).tolist() == [210, 4]
