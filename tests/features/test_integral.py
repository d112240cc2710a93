"""Rectangle sums equal brute force at every position."""

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.integral import grey_bytes, integral_image, integral_images, rectangle_sums


def all_rectangles(height: int, width: int) -> torch.Tensor:
    return torch.tensor(
        [
            [x1, y1, x2, y2]
            for y1 in range(height + 1)
            for y2 in range(y1, height + 1)
            for x1 in range(width + 1)
            for x2 in range(x1, width + 1)
        ]
    )


def test_every_rectangle_is_the_sum_of_its_pixels() -> None:
    levels = torch.randint(0, 256, (6, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rectangles = all_rectangles(6, 9)
    brute = torch.stack([levels[y1:y2, x1:x2].double().sum() for x1, y1, x2, y2 in rectangles.tolist()])
    sums, squares = integral_images(levels)
    assert torch.equal(rectangle_sums(sums, rectangles), brute)
    assert torch.equal(sums, integral_image(levels))
    assert torch.equal(squares, integral_image(levels.long().square()))


def test_white_pictures_larger_than_32_bits_are_exact() -> None:
    levels = torch.full((3000, 3000), 255, dtype=torch.uint8)
    sums, squares = integral_images(levels)
    assert sums[-1, -1] == 255 * 3000 * 3000 > 2**31
    assert squares[-1, -1] == 255**2 * 3000 * 3000


def test_rectangles_beyond_the_picture_and_other_than_bytes_are_refused() -> None:
    integral = integral_image(torch.zeros(4, 5))
    for wrong in ([0, 0, 6, 4], [0, 0, 5, 5], [-1, 0, 2, 2], [3, 0, 2, 2]):
        with pytest.raises(RecordError, match="within 5 x 4"):
            rectangle_sums(integral, torch.tensor([[0, 0, 1, 1], wrong]))
    with pytest.raises(RecordError, match="uint8"):
        integral_images(torch.zeros(4, 4))
    assert tuple(integral_images(torch.zeros(0, 4, dtype=torch.uint8))[0].shape) == (1, 5)


def test_grey_is_the_luminance() -> None:
    image = torch.tensor([[255, 0, 0, 40], [0, 255, 0, 40], [0, 0, 255, 40]], dtype=torch.uint8)[:, None]
    assert grey_bytes(image).tolist() == [[76, 150, 29, 40]]
    assert grey_bytes(image[:1]).tolist() == [[255, 0, 0, 40]]
