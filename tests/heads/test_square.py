"""Pictures into squares, stretched or letterboxed, and boxes there and back."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.square import Square
from bestiary.records import Objects, Target


@pytest.mark.parametrize("letterbox", [True, False])
@pytest.mark.parametrize("size_hw", [(48, 64), (33, 100), (64, 64), (200, 1)])
def test_boxes_come_back(letterbox: bool, size_hw: tuple[int, int]) -> None:
    square = Square(64, letterbox)
    height, width = size_hw
    boxes = torch.tensor([[0.0, 0, width, height], [0.2 * width, 0.1 * height, 0.7 * width, 0.9 * height]])
    there = square.to_square(boxes, size_hw)
    assert there.min() >= 0
    assert there.max() <= 64
    torch.testing.assert_close(square.to_picture(there, size_hw), boxes, atol=1e-3, rtol=1e-4)
    assert square.place(torch.zeros(3, *size_hw)).shape == (3, 64, 64)


def test_a_letterbox_has_grey_margins_and_the_picture_in_the_middle() -> None:
    placed = Square(64, True).place(torch.full((3, 60, 120), 255, dtype=torch.uint8))
    assert placed[:, 16:48].min() > 0.9999
    assert (placed[:, :16] == 0.5).all()
    assert (placed[:, 48:] == 0.5).all()
    assert Square(64, True).to_square(torch.tensor([[0.0, 0, 120, 60]]), (60, 120)).tolist() == [[0, 16, 64, 48]]
    assert Square(64).place(torch.ones(3, 60, 120)).min() > 0.9999


def test_what_the_square_shows_is_where_its_boxes_say() -> None:
    image = torch.zeros(3, 90, 150)
    image[:, 30:60, 100:130] = 1
    target = Target(label=3, objects=Objects(torch.tensor([[100.0, 30, 130, 60]]), torch.tensor([1])))
    for letterbox in (True, False):
        (placed,), (moved,) = Square(60, letterbox).bring([image], [target])
        assert moved.label == 3
        assert moved.objects is not None
        x1, y1, x2, y2 = moved.objects.boxes_xyxy[0].round().int().tolist()
        assert placed[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 0.9
        assert (placed > 0.75).float().sum() / 3 == pytest.approx((x2 - x1) * (y2 - y1), rel=0.15)


def test_no_side() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Square(0)


def test_averaging_or_sampling() -> None:
    stripes = torch.tensor([0.0, 1, 1, 1]).repeat(8).expand(1, 32, 32)
    assert Square(8, antialias=False).place(stripes)[0, 4].tolist() == [1] * 8
    averaged = Square(8).place(stripes)[0, 4, 2:6]
    torch.testing.assert_close(averaged, torch.full((4,), 0.75), atol=0.1, rtol=0)
    assert torch.equal(Square(32).place(stripes), stripes)


def test_times_keeps_the_way_and_at_least_a_pixel() -> None:
    assert Square(300, antialias=False).times(0.5) == Square(150, antialias=False)
    assert Square(3, letterbox=True).times(0.01) == Square(1, letterbox=True)
