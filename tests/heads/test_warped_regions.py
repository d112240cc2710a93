"""Windows of regions: how much context they show, and what they show outside the picture."""

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.heads.warped_regions import grow, warp_regions


def marked(box: tuple[int, int, int, int], size: int = 400) -> torch.Tensor:
    """1 everywhere, 2 inside the box: outside the picture is 0."""
    pixels = torch.ones(3, size, size)
    pixels[:, box[1] : box[3], box[0] : box[2]] = 2
    return pixels


@pytest.mark.parametrize("box", [(100, 60, 295, 255), (150, 100, 250, 330), (190, 190, 205, 240)])
def test_a_window_keeps_exactly_16_pixels_of_context(box: tuple[int, int, int, int]) -> None:
    window = warp_regions(marked(box), torch.tensor([box]).float(), 227, 16)[0, 0]
    wanted = torch.nn.functional.pad(torch.ones(195), (16, 16)) > 0
    for line in (window[113], window[:, 113]):  # at corners, bilinear values of a small region are below a half
        torch.testing.assert_close(line > 1.5, wanted)
    assert (window > 0.99).all(), "context is the picture around the region, not a border"


def test_at_its_own_size_a_window_is_the_picture() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(3, 60, 80)
    windows = warp_regions(pixels, torch.tensor([[20.0, 10.0, 48.0, 38.0], [30.0, 20.0, 58.0, 48.0]]), 32, 2)
    torch.testing.assert_close(windows, torch.stack([pixels[:, 8:40, 18:50], pixels[:, 18:50, 28:60]]))


def test_outside_the_picture_is_the_mean_colour_and_the_border_does_not_fade() -> None:
    window = warp_regions(torch.ones(3, 50, 50), torch.tensor([[0.0, 0.0, 50.0, 50.0]]), 60, 5)[0, 0]
    wanted = torch.nn.functional.pad(torch.ones(50, 50), (5, 5, 5, 5))
    torch.testing.assert_close(window, wanted)
    assert not warp_regions(torch.ones(3, 50, 50), torch.tensor([[90.0, 90.0, 99.0, 99.0]]), 20, 0).any()


def test_axes_are_stretched_by_themselves() -> None:
    ramp = torch.arange(100.0).expand(1, 100, 100) + 0.5
    window = warp_regions(ramp, torch.tensor([[20.0, 0.0, 60.0, 100.0]]), 10)[0, 0]
    torch.testing.assert_close(window, torch.arange(22.0, 60, 4).expand(10, 10))


def test_growing_keeps_the_centre() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    torch.testing.assert_close(grow(boxes, 1.5), torch.tensor([[5.0, 10.0, 35.0, 70.0]]))


def test_no_region_gives_no_window_and_context_must_leave_room() -> None:
    assert warp_regions(torch.rand(3, 9, 9), torch.zeros(0, 4), 8, 1).shape == (0, 3, 8, 8)
    with pytest.raises(RecordError, match="context"):
        warp_regions(torch.rand(3, 9, 9), torch.zeros(0, 4), 8, 4)
