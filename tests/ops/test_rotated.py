import jaxtyping
import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry.boxes import xyxy_to_cxcywh
from bestiary.geometry.rotated_boxes import rotated_rectangles, shared_area
from bestiary.ops import nms, rotated_suppression
from bestiary.ops.overlaps import box_iou
from bestiary.ops.rotated import pairwise_shared_area, require_boxes5, rotated_box_corners, rotated_box_iou
from bestiary.ops.rotated_suppression import batched_rotated_nms, rotated_nms
from bestiary.ops.suppression import suppressed_in_torch


def random_boxes(count: int, seed: int, extent: float = 40) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(count, 2, generator=g) * extent, torch.rand(count, 2, generator=g) * 20 + 0.5
    return torch.cat([centre, size, torch.rand(count, 1, generator=g) * 720 - 360], dim=1)


def test_the_reference_s_numbers() -> None:
    a = torch.tensor([[50.0, 40, 30, 10, 30], [50, 40, 30, 10, -60], [80, 45, 20, 20, 45]])
    b = torch.tensor([[52.0, 41, 28, 12, 25], [50, 40, 10, 30, 120], [75, 40, 30, 30, 0]])
    # torchvision 0.28, box_iou(fmt="cxcywhr").
    wanted = torch.tensor([[0.6589262, 1, 0.0296275], [0.2336541, 0.2, 0.0032333], [0, 0, 0.3913943]])
    torch.testing.assert_close(rotated_box_iou(a, b), wanted, rtol=0, atol=2e-6)


def test_overlaps_equal_opencv_s() -> None:
    import cv2

    a, b = random_boxes(15, 0), random_boxes(15, 1)
    got = rotated_box_iou(a, b)
    for i, p in enumerate(a.tolist()):
        for j, q in enumerate(b.tolist()):
            # OpenCV's angle turns clockwise in the picture.
            kind, points = cv2.rotatedRectangleIntersection((p[:2], p[2:4], -p[4]), (q[:2], q[2:4], -q[4]))
            inter = 0.0 if kind == 0 else cv2.contourArea(cv2.convexHull(np.asarray(points)))
            union = p[2] * p[3] + q[2] * q[3] - inter
            assert float(got[i, j]) == pytest.approx(inter / union, abs=2e-5)


def test_threads_give_what_plain_torch_gives_to_the_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        a, b = rotated_rectangles(random_boxes(150, 2).to(dtype)), rotated_rectangles(random_boxes(130, 3).to(dtype))
        assert torch.equal(pairwise_shared_area(a, b), shared_area(a[:, None], b[None]))


def test_unturned_boxes_are_upright_boxes() -> None:
    g = torch.Generator().manual_seed(4)
    upright = torch.rand(30, 4, generator=g) * 50
    upright[:, 2:] += upright[:, :2] + 1
    turned = torch.cat([xyxy_to_cxcywh(upright), torch.zeros(30, 1)], dim=1)
    torch.testing.assert_close(rotated_box_iou(turned, turned), box_iou(upright, upright), rtol=1e-4, atol=1e-5)
    scores = torch.rand(30, generator=g)
    assert torch.equal(rotated_nms(turned, scores, 0.2), nms(upright, scores, 0.2))


def test_identities() -> None:
    boxes = random_boxes(40, 5)
    torch.testing.assert_close(rotated_box_iou(boxes, boxes).diagonal(), torch.ones(40))
    assert float(rotated_box_iou(boxes, boxes).max()) <= 1
    same = boxes[:, [0, 1, 3, 2, 4]] + torch.tensor([0.0, 0, 0, 0, 90])
    torch.testing.assert_close(rotated_box_iou(boxes, same).diagonal(), torch.ones(40))
    torch.testing.assert_close(rotated_box_iou(boxes, same), rotated_box_iou(same, boxes).t(), rtol=1e-4, atol=1e-5)
    empty = boxes * torch.tensor([1.0, 1, 0, 1, 1])
    assert not rotated_box_iou(boxes, empty).any()
    assert not rotated_box_iou(empty, empty).any()
    assert rotated_box_iou(boxes[:0], boxes).shape == (0, 40)


def test_gradients_layouts_and_half_precision() -> None:
    a, b = random_boxes(4, 6, 10).double().requires_grad_(), random_boxes(3, 7, 10).double().requires_grad_()
    assert torch.autograd.gradcheck(rotated_box_iou, (a, b))
    assert torch.autograd.gradcheck(rotated_box_corners, (a,))
    c, d = random_boxes(50, 8), random_boxes(60, 9)
    assert torch.equal(rotated_box_iou(c.t().contiguous().t(), d), rotated_box_iou(c, d))
    assert torch.equal(rotated_box_iou(c.half(), d.half()), rotated_box_iou(c.half().float(), d.half().float()))
    both = rotated_box_iou(torch.stack([c, c[torch.arange(49, -1, -1)]]), torch.stack([d, d]))
    assert torch.equal(both[0], both[1].flip(0))


def naive_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: list[int], threshold: float) -> list[int]:
    ious = rotated_box_iou(boxes, boxes)
    kept: list[int] = []
    for j in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        if not any(groups[i] == groups[j] and float(ious[i, j]) > threshold for i in kept):
            kept.append(j)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
def test_suppression_equals_the_loop_and_plain_torch(threshold: float) -> None:
    boxes = random_boxes(120, 10)
    boxes[100:] = boxes[:20]
    scores = torch.randint(0, 20, (120,), generator=torch.Generator().manual_seed(1)).float()
    idxs = torch.arange(120) % 3 * 1000
    assert rotated_nms(boxes, scores, threshold).tolist() == naive_nms(boxes, scores, [0] * 120, threshold)
    wanted = naive_nms(boxes, scores, idxs.tolist(), threshold)
    assert batched_rotated_nms(boxes, scores, idxs, threshold).tolist() == wanted
    ious = rotated_box_iou(boxes, boxes)
    plain = suppressed_in_torch(lambda i, j: ious[i][:, j], scores, idxs, threshold)
    assert plain.tolist() == wanted


def test_suppression_of_nothing_and_misfits() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert rotated_nms(torch.zeros(0, 5), torch.zeros(0), 0.5).tolist() == []
    assert batched_rotated_nms(torch.zeros(0, 5), torch.zeros(0), none, 0.5).tolist() == []
    with pytest.raises(RecordError, match=r"wanted \(..., N, 5\)"):
        require_boxes5("rotated_nms(boxes)", torch.zeros(2, 4))


def test_compiled_whole_and_well_formed() -> None:
    boxes, scores = random_boxes(30, 11), torch.rand(30, generator=torch.Generator().manual_seed(0))
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        torch.library.opcheck(rotated_suppression._rotated_nms, (boxes, scores, None, 0.5))
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            compiled = torch.compile(lambda b, s: s[rotated_nms(b, s, 0.3)], fullgraph=True, backend="aot_eager")
            assert torch.equal(compiled(boxes, scores), scores[rotated_nms(boxes, scores, 0.3)])
        whole = torch.compile(rotated_box_iou, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(whole(boxes, boxes), rotated_box_iou(boxes, boxes))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
