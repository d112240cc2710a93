import math

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.geometry.rotated_boxes import (
    ROTATED_FORMATS,
    area_ratio,
    convert_rotated_boxes,
    rotated_corners,
    rotated_rectangles,
    shared_area,
)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(count, 2, generator=g) * 20, torch.rand(count, 2, generator=g) * 15 + 0.5
    return torch.cat([centre, size, torch.rand(count, 1, generator=g) * 720 - 360], dim=1).double()


def clipped_area(subject: list[tuple[float, float]], window: list[tuple[float, float]]) -> float:
    """Sutherland and Hodgman's clipping, one half-plane after the other, then the shoelace formula."""
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1], strict=True):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in subject]
        inside: list[tuple[float, float]] = []
        for i, (x, y) in enumerate(subject):
            px, py = subject[i - 1]
            if (sides[i - 1] >= 0) != (sides[i] >= 0):
                t = sides[i - 1] / (sides[i - 1] - sides[i])
                inside.append((px + t * (x - px), py + t * (y - py)))
            if sides[i] >= 0:
                inside.append((x, y))
        subject = inside
    pairs = zip(subject, subject[1:] + subject[:1], strict=True)
    return 0.5 * sum(x * v - u * y for (x, y), (u, v) in pairs)


def test_shared_areas_equal_clipping_in_loops() -> None:
    a, b = random_boxes(25, 0), random_boxes(30, 1)
    got = shared_area(rotated_rectangles(a)[:, None], rotated_rectangles(b)[None])
    assert (got > 1).sum() > 200
    for i, p in enumerate(rotated_corners(a).tolist()):
        for j, q in enumerate(rotated_corners(b).tolist()):
            wanted = clipped_area([(x, y) for x, y in p], [(x, y) for x, y in q])
            assert float(got[i, j]) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("degrees", [0.0, 30, 45, 90, -135, 359.999, 1e-7])
def test_boxes_that_coincide_touch_or_lie_within(degrees: float) -> None:
    box = torch.tensor([50.0, 40, 8, 6, degrees], dtype=torch.float64)
    inner = torch.tensor([50.0, 40, 4, 6, degrees], dtype=torch.float64)
    turned = torch.tensor([50.0, 40, 6, 8, degrees + 90], dtype=torch.float64)
    radians = math.radians(degrees)
    beside = box + torch.tensor([8 * math.cos(radians), -8 * math.sin(radians), 0, 0, 0], dtype=torch.float64)
    line, point = inner * torch.tensor([1, 1, 0, 1, 1]), inner * torch.tensor([1, 1, 0, 0, 1])
    others = rotated_rectangles(torch.stack([box, inner, turned, beside, line, point]))
    wanted = torch.tensor([48.0, 24, 48, 0, 0, 0], dtype=torch.float64)
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        own = rotated_rectangles(box.to(dtype))
        torch.testing.assert_close(shared_area(own[None], others.to(dtype)), wanted.to(dtype), rtol=0, atol=bound)
        torch.testing.assert_close(shared_area(others.to(dtype), own[None]), wanted.to(dtype), rtol=0, atol=bound)


def test_gradients_are_those_of_the_area() -> None:
    a, b = random_boxes(6, 2).requires_grad_(), random_boxes(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: shared_area(rotated_rectangles(x), rotated_rectangles(y)), (a, b))
    same = random_boxes(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(shared_area(rotated_rectangles(same), rotated_rectangles(same.detach())).sum(), same)
    assert torch.isfinite(grad).all()


def test_a_quarter_turn_is_counter_clockwise_in_the_picture() -> None:
    corners = rotated_corners(torch.tensor([[10.0, 20, 4, 2, 90]]))
    # The top left corner goes to the bottom left, the top right one to the top left.
    torch.testing.assert_close(corners[0], torch.tensor([[9.0, 22], [9, 18], [11, 18], [11, 22]]))


@pytest.mark.parametrize("source", ROTATED_FORMATS)
@pytest.mark.parametrize("target", ROTATED_FORMATS)
def test_every_format_in_every_other(source: str, target: str) -> None:
    boxes = random_boxes(20, 5)
    boxes[:, 4] = boxes[:, 4].remainder(360) - 180
    start, wanted = convert_rotated_boxes(boxes, "cxcywhr", source), convert_rotated_boxes(boxes, "cxcywhr", target)
    torch.testing.assert_close(convert_rotated_boxes(start, source, target), wanted)
    assert convert_rotated_boxes(start[:0], source, target).shape == (0, wanted.shape[1])


def test_unknown_format_is_named() -> None:
    with pytest.raises(UsageError, match="'xyxy', wanted one of cxcywhr, xywhr, xyxyxyxy"):
        convert_rotated_boxes(torch.zeros(1, 5), "cxcywhr", "xyxy")


def test_ratios_of_nothing_are_zero() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    assert area_ratio(zero, zero, zero).tolist() == [0, 0]
    assert area_ratio(one, one, one + 1e-7).tolist() == [1, 1]
