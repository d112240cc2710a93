import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import (
    FORMATS,
    box_area,
    clip_boxes,
    convert_boxes,
    large_enough,
    pairwise_generalized_iou,
    pairwise_intersection,
    pairwise_iou,
    scale_boxes,
)

BOX = {"xyxy": [2.0, 4, 8, 20], "xywh": [2.0, 4, 6, 16], "cxcywh": [5.0, 12, 6, 16]}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_format_in_every_other(source: str, target: str) -> None:
    boxes = torch.tensor([BOX[source], [0.0, 0, 0, 0]])
    got = convert_boxes(boxes, source, target)
    assert got[0].tolist() == BOX[target]
    assert not got[1].any()
    got += 1
    assert boxes[0].tolist() == BOX[source], "the input is not shared"


def test_unknown_format_is_named() -> None:
    with pytest.raises(UsageError, match="'yxyx', wanted one of xyxy, xywh, cxcywh"):
        convert_boxes(torch.zeros(1, 4), "xyxy", "yxyx")


def test_pairwise_measures_equal_loops() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 4, generator=g).double() * 10, torch.rand(5, 4, generator=g).double() * 10
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    for i, p in enumerate(a.tolist()):
        for j, q in enumerate(b.tolist()):
            w, h = max(0.0, min(p[2], q[2]) - max(p[0], q[0])), max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
            union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - w * h
            hull = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
            assert float(pairwise_intersection(a, b)[i, j]) == pytest.approx(w * h, abs=1e-12)
            assert float(pairwise_iou(a, b)[i, j]) == pytest.approx(w * h / union, abs=1e-12)
            wanted = w * h / union - (hull - union) / hull
            assert float(pairwise_generalized_iou(a, b)[i, j]) == pytest.approx(wanted, abs=1e-12)


def test_identities_of_overlap() -> None:
    g = torch.Generator().manual_seed(1)
    a = torch.rand(6, 4, generator=g)
    a[:, 2:] += a[:, :2] + 0.1
    torch.testing.assert_close(pairwise_iou(a, a).diagonal(), torch.ones(6))
    torch.testing.assert_close(pairwise_iou(a, a), pairwise_iou(a, a).t())
    torch.testing.assert_close(pairwise_iou(a * 7 + 3, a * 7 + 3), pairwise_iou(a, a), rtol=1e-4, atol=1e-5)
    assert (pairwise_generalized_iou(a, a) <= pairwise_iou(a, a) + 1e-6).all()


def test_half_precision_areas_do_not_overflow() -> None:
    boxes = torch.tensor([[0.0, 0, 1000, 800]], dtype=torch.float16)
    assert box_area(boxes).item() == 800_000
    assert box_area(boxes).dtype == torch.float32
    assert box_area(torch.tensor([[0, 0, 3, 2]])).item() == 6


def test_clipping_keeps_shape_and_empties_what_lies_outside() -> None:
    boxes = torch.tensor([[[-3.0, -3, 5, 5], [30, 40, 50, 60]], [[1, 1, 2, 2], [0, 0, 10, 8]]])
    got = clip_boxes(boxes, (8, 10))
    assert got.tolist() == [[[0, 0, 5, 5], [10, 8, 10, 8]], [[1, 1, 2, 2], [0, 0, 10, 8]]]
    assert clip_boxes(torch.zeros(0, 4), (8, 10)).shape == (0, 4)


def test_scaling_takes_heights_from_heights() -> None:
    got = scale_boxes(torch.tensor([[1.0, 1, 2, 3]]), (10, 100), (30, 200))
    assert got.tolist() == [[2, 3, 4, 9]]
    back = scale_boxes(got, (30, 200), (10, 100))
    torch.testing.assert_close(back, torch.tensor([[1.0, 1, 2, 3]]))
    with pytest.raises(RecordError, match="positive sides"):
        scale_boxes(got, (0, 3), (3, 3))


def test_boxes_exactly_of_the_least_size_stay() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 3.999, 9], [0, 0, 9, 3.999], [5, 5, 5, 5]])
    assert large_enough(boxes, 4).tolist() == [0]
    assert large_enough(boxes, 0).tolist() == [0, 1, 2, 3]
    assert large_enough(boxes[:0], 1).shape == (0,)
