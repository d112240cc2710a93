import itertools

import pytest
import torch

from bestiary.ops.local_contrast import laplacian_pyramid, normalise_contrast


def test_contrast_is_that_of_the_square_around_each_value() -> None:
    maps = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    side, reach = 5, 2

    def mean(values: torch.Tensor, y: int, x: int) -> torch.Tensor:
        return values[..., max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].mean((-2, -1))

    centred = torch.empty_like(maps)
    for y, x in itertools.product(range(9), range(12)):
        centred[..., y, x] = maps[..., y, x] - mean(maps, y, x)
    found = normalise_contrast(maps, side)
    for y, x in itertools.product(range(9), range(12)):
        wanted = centred[..., y, x] / mean(centred.square(), y, x).sqrt()
        assert torch.allclose(found[..., y, x], wanted, atol=1e-9)


def test_plain_areas_stay_plain_and_gain_does_not_matter() -> None:
    noise = torch.rand(1, 1, 30, 30, dtype=torch.float64)
    assert normalise_contrast(torch.full_like(noise, 0.7)).abs().max() < 1e-9
    assert torch.allclose(normalise_contrast(noise), normalise_contrast(noise * 0.3 + 0.5), atol=1e-9)


def test_the_pyramid_adds_up_to_the_picture() -> None:
    image = torch.rand(1, 2, 16, 24, dtype=torch.float64)
    fine, middle, coarse = laplacian_pyramid(image, 3)
    assert [tuple(level.shape[-2:]) for level in (fine, middle, coarse)] == [(16, 24), (8, 12), (4, 6)]

    def enlarged(level: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(level, scale_factor=2, mode="bilinear")

    assert torch.allclose(fine + enlarged(middle + enlarged(coarse)), image, atol=1e-12)
    assert torch.equal(laplacian_pyramid(image, 1)[0], image)


@pytest.mark.parametrize("level", [0, 1])
def test_halving_does_not_shift_and_flat_pictures_have_no_detail(level: int) -> None:
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    flipped = laplacian_pyramid(image.flip(-1), 3)[level].flip(-1)
    assert torch.allclose(flipped, laplacian_pyramid(image, 3)[level], atol=1e-12)
    assert laplacian_pyramid(torch.ones(1, 1, 32, 32), 3)[level].abs().max() < 1e-6
