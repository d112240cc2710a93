import math
from collections.abc import Callable

import jaxtyping
import pytest
import torch

from bestiary import ops
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import (
    pairwise_complete_iou,
    pairwise_distance_iou,
    pairwise_generalized_iou,
    pairwise_iou,
)
from bestiary.ops import eager, overlaps

Measure = Callable[..., torch.Tensor]


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


# What torchvision 0.28 gives for these three boxes against these three.
A = torch.tensor([[10.0, 20, 50, 80], [0, 0, 30, 30], [5, 5, 5.5, 60]])
B = torch.tensor([[12.0, 18, 55, 70], [40, 40, 90, 60], [0, 0, 30, 30]])
GENERALIZED = [[0.6750896, -0.2708333, -0.1604839], [-0.1675858, -0.6481481, 1], [-0.3035385, -0.7802139, -0.4780055]]
DISTANCE = [[0.6862233, -0.06, -0.0984052], [-0.0753334, -0.3183761, 1], [-0.1383364, -0.3781768, -0.0755194]]
COMPLETE = [[0.6861637, -0.0799296, -0.0986674], [-0.0753475, -0.3225155, 1], [-0.1682116, -0.5824304, -0.1239973]]


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [
        (ops.generalized_box_iou, GENERALIZED),
        (overlaps.distance_box_iou, DISTANCE),
        (overlaps.complete_box_iou, COMPLETE),
    ],
)
def test_the_reference_s_numbers(measure: Measure, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(measure(A, B), torch.tensor(wanted), rtol=0, atol=2e-7)
    a, b = A.double().requires_grad_(), B.double().requires_grad_()
    # alpha is a constant to the gradient of the complete form: there the first two boxes' ratios are kept equal.
    if measure is not overlaps.complete_box_iou:
        torch.autograd.gradcheck(measure, (a[:2] + 0.01, b[:2]))
    assert torch.equal(measure(A.t().contiguous().t(), B), measure(A, B)), "columns apart in memory"
    assert measure(A.half(), B.half()).dtype == torch.float32
    assert measure(A[:0], B).shape == (0, 3)
    both = measure(torch.stack([A, B]), torch.stack([B, A]))
    torch.testing.assert_close(both, torch.stack([measure(A, B), measure(B, A)]))


def test_alpha_is_a_constant_to_the_gradient_of_complete_iou() -> None:
    a, b = A[:1].double().requires_grad_(), B[1:2].double()
    (got,) = torch.autograd.grad(overlaps.complete_box_iou(a, b).sum(), a)

    def ratio(boxes: torch.Tensor) -> torch.Tensor:
        return torch.atan((boxes[0, 2] - boxes[0, 0]) / (boxes[0, 3] - boxes[0, 1]))

    v = 4 / math.pi**2 * (ratio(a) - ratio(b)) ** 2
    alpha = (v / (1 - ops.box_iou(a, b)[0, 0] + v + 1e-7)).detach()
    (wanted,) = torch.autograd.grad(overlaps.distance_box_iou(a, b).sum() - alpha * v, a)
    torch.testing.assert_close(got, wanted)


def test_boxes_without_height_have_a_complete_iou_and_a_gradient() -> None:
    flat = torch.tensor([[0.0, 0, 4, 0], [1, 1, 1, 1]], requires_grad=True)
    value = overlaps.complete_box_iou(flat, torch.tensor([[0.0, 0, 4, 4]]))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


PLAIN = [
    (overlaps.box_iou, pairwise_iou),
    (overlaps.generalized_box_iou, pairwise_generalized_iou),
    (overlaps.distance_box_iou, pairwise_distance_iou),
    (overlaps.complete_box_iou, pairwise_complete_iou),
]


@pytest.mark.parametrize(("measure", "plain"), PLAIN)
def test_kernels_and_pieces_give_what_plain_torch_gives(
    measure: Measure, plain: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "_PAIRS_ON_CPU", 7 * 41)
    for dtype, bound in ((torch.float32, 3e-7), (torch.float64, 1e-15)):
        a, b = random_boxes(203, 4).to(dtype), random_boxes(41, 5).to(dtype)
        a[:2], b[0] = torch.tensor([3.0, 3, 3, 3]), torch.tensor([3.0, 3, 3, 3])  # points, of which two coincide
        a[2:4], b[1:3] = torch.tensor([0.0, 5, 9, 5]), torch.tensor([0.0, 0, 9, 9])  # a line
        torch.testing.assert_close(measure(a, b), plain(a, b), rtol=0, atol=bound, equal_nan=True)
        assert torch.equal(eager.in_row_chunks(plain, a[4:], b[1:]), plain(a[4:], b[1:]))


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_every_upright_format(fmt: str) -> None:
    a, b = random_boxes(40, 6), random_boxes(30, 7)
    c, d = ops.box_convert(a, "xyxy", fmt), ops.box_convert(b, "xyxy", fmt)
    torch.testing.assert_close(ops.box_iou(c, d, fmt), ops.box_iou(a, b), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ops.box_area(c, fmt), ops.box_area(a))


def test_formats_of_the_reference() -> None:
    assert float(ops.box_iou(A[:1], B[:1], fmt="cxcywh")) == pytest.approx(0.8045977)
    assert float(ops.box_iou(A[:1], B[:1], "xywh")) == pytest.approx(0.7117314)
    turned = torch.tensor([[50.0, 40, 30, 10, 30]])
    corners = [34.509621, 43.169872, 60.490383, 28.169872, 65.490387, 36.830124, 39.509621, 51.830124]
    torch.testing.assert_close(ops.box_convert(turned, "cxcywhr", "xyxyxyxy"), torch.tensor([corners]))
    for fmt in ("cxcywhr", "xywhr", "xyxyxyxy"):
        boxes = ops.box_convert(turned, "cxcywhr", fmt)
        torch.testing.assert_close(ops.box_iou(boxes, boxes, fmt), torch.ones(1, 1))


def test_formats_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match="both upright or both rotated"):
        ops.box_convert(torch.zeros(1, 5), "cxcywhr", "xyxy")
    with pytest.raises(UsageError, match="'yxyx', wanted one of"):
        ops.box_iou(A, B, "yxyx")
    with pytest.raises(UsageError, match="'yxyx', wanted one of"):
        ops.box_area(A, "yxyx")
    with pytest.raises(UsageError, match="inclusive"):
        ops.box_iou(A, B, "xywh", inclusive=True)
    with pytest.raises(UsageError, match="inclusive"):
        ops.box_area(A, "cxcywh", inclusive=True)
    with pytest.raises(RecordError, match="equal batch axes"):
        overlaps._require_two_sets("box_iou", torch.zeros(2, 3, 4), torch.zeros(3, 3, 4))
    with pytest.raises(RecordError, match=r"wanted \(..., N, 4\)"):
        overlaps._require_two_sets("box_iou", torch.zeros(3, 5), torch.zeros(3, 4))


@pytest.mark.parametrize("count", [2, 60])
def test_inclusive_ends_are_one_pixel_further(count: int) -> None:
    g = torch.Generator().manual_seed(count)
    boxes = torch.randint(0, 12, (count, 4), generator=g).float()
    boxes[:, 2:] += boxes[:, :2]
    got = ops.box_iou(boxes, boxes, inclusive=True)
    covered = torch.zeros(count, 26, 26, dtype=torch.bool)
    for picture, (x1, y1, x2, y2) in zip(covered, boxes.long().tolist(), strict=True):
        picture[y1 : y2 + 1, x1 : x2 + 1] = True
    flat = covered.flatten(1).double()
    inter = flat @ flat.t()
    union = flat.sum(1)[:, None] + flat.sum(1)[None] - inter
    torch.testing.assert_close(got, (inter / union).float())
    assert torch.equal(ops.box_area(boxes, inclusive=True), flat.sum(1).float())


def test_batches_go_through_the_kernel() -> None:
    a, b = random_boxes(120, 8).view(2, 60, 4), random_boxes(100, 9).view(2, 50, 4)
    got = ops.box_iou(a, b)
    assert torch.equal(got, torch.stack([ops.box_iou(a[0], b[0]), ops.box_iou(a[1], b[1])]))
    assert torch.equal(ops.box_iou(a.half(), b.half()), pairwise_iou(a.half(), b.half()))
    assert torch.equal(ops.box_iou(a.transpose(0, 1).contiguous().transpose(0, 1), b), got)
    vmapped = torch.func.vmap(plain_iou)(a, b)
    torch.testing.assert_close(vmapped, got)


def plain_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ops.box_iou(a, b)


def test_compiled_and_exported_whole() -> None:
    a, b = random_boxes(70, 1), random_boxes(80, 2)

    class Overlaps(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return ops.box_iou(a, b), ops.generalized_box_iou(a, b), overlaps.complete_box_iou(a, b)

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        wanted = Overlaps()(a, b)
        compiled = torch.compile(Overlaps(), fullgraph=True, backend="aot_eager")(a, b)
        exported = torch.export.export(Overlaps(), (a, b)).module()(a, b)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    for got in (compiled, exported):
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other)
