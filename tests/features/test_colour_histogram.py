"""Colours are counted exactly."""

import colorsys

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.colour_histogram import colour_histogram, intersection


def picture(seed: int = 0, height: int = 13, width: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("space", ["rgb", "hsv"])
def test_the_order_of_the_pixels_does_not_matter(space: str) -> None:
    image = picture()
    moved = image.flatten(1)[:, torch.randperm(13 * 17)].view(3, 17, 13)
    assert torch.equal(colour_histogram(image, (8, 8, 8), space), colour_histogram(moved, (8, 8, 8), space))


@pytest.mark.parametrize("space", ["rgb", "hsv"])
def test_doubling_every_pixel_changes_nothing(space: str) -> None:
    image = picture()
    doubled = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(colour_histogram(image, (8, 6, 5), space), colour_histogram(doubled, (8, 6, 5), space))


def test_intersection_with_itself_is_one_and_with_other_colours_zero() -> None:
    red, blue = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    red[0], blue[2] = 255, 255
    a, b = (colour_histogram(image, (8, 8, 8)) for image in (red, blue))
    some = colour_histogram(picture(), (8, 8, 8))
    assert float(intersection(some, some)) == pytest.approx(1, abs=1e-6)
    assert float(intersection(a, b)) == 0
    assert float(a.sum()) == 1


def test_rgb_cells_are_those_of_plain_arithmetic() -> None:
    image, bins = picture(3, 1, 1), (8, 4, 16)
    r, g, b = (int(v) * n // 256 for v, n in zip(image.flatten(), bins, strict=True))
    assert int(colour_histogram(image, bins).argmax()) == (r * 4 + g) * 16 + b


def test_hsv_cells_are_those_of_the_standard_library() -> None:
    bins = (12, 8, 8)
    image = picture(4, 40, 40)
    wanted = torch.zeros(12 * 8 * 8)
    for r, g, b in image.flatten(1).T.tolist():
        h, s, v = colorsys.rgb_to_hsv(r, g, b)  # value 0..255, the others 0..1
        # An exact quotient may come out a hair below a border: there whole numbers are right.
        cells = int(h * 12 + 1e-9), int(s * 255 * 8 / 256 + 1e-9), int(v * 8 // 256)
        wanted[(cells[0] * 8 + cells[1]) * 8 + cells[2]] += 1
    torch.testing.assert_close(colour_histogram(image, bins, "hsv") * 1600, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_grey_has_neither_hue_nor_saturation(level: int) -> None:
    histogram = colour_histogram(torch.full((3, 2, 2), level, dtype=torch.uint8), (8, 8, 8), "hsv")
    assert int(histogram.argmax()) == level * 8 // 256


def test_what_is_no_colour_picture_is_refused(unchecked: None) -> None:
    for image in (
        torch.zeros(1, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 0, 4, dtype=torch.uint8),
        torch.zeros(3, 4, 4),
    ):
        with pytest.raises(RecordError, match="uint8"):
            colour_histogram(image, (8, 8, 8))
    with pytest.raises(RecordError, match="three numbers"):
        colour_histogram(picture(), (8, 0, 8))
