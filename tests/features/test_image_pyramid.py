"""Scales at which a window fits, and boxes back to where they are."""

import itertools

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.image_pyramid import at_scale, pyramid_scales


def test_scales_fall_until_the_window_no_longer_fits() -> None:
    scales = pyramid_scales((480, 640), (128, 64), 1.2, largest=2.0)
    assert scales[0] == 2.0
    for larger, smaller in itertools.pairwise(scales):
        assert larger / smaller == pytest.approx(1.2)
    assert round(480 * scales[-1]) >= 128 > round(480 * scales[-1] / 1.2)
    assert pyramid_scales((100, 640), (128, 64), 1.2) == []


def test_boxes_come_back_to_their_pixels() -> None:
    image = torch.zeros(3, 101, 67, dtype=torch.uint8)
    image[:, 40:61, 30:51] = 255
    level = at_scale(image, 0.5)
    assert tuple(level.image.shape) == (3, 50, 34)
    rows, columns = (level.image[0] > 127).nonzero().unbind(1)
    box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
    torch.testing.assert_close(level.to_picture(box), torch.tensor([[30.0, 40.0, 51.0, 61.0]]), atol=1.1, rtol=0)
    torch.testing.assert_close(level.to_picture(torch.tensor([[0.0, 0, 34, 50]])), torch.tensor([[0.0, 0, 67, 101]]))


def test_shrinking_takes_means_and_size_one_is_the_picture() -> None:
    image = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8)
    means = image.float().reshape(1, 4, 2, 4, 2).mean((2, 4))
    assert (at_scale(image, 0.5).image.float() - means).abs().max() <= 0.5
    assert torch.equal(at_scale(image, 1).image, image)
    assert tuple(at_scale(image, 2).image.shape) == (1, 16, 16)


def test_steps_that_cannot_be_are_named() -> None:
    with pytest.raises(RecordError, match="step"):
        pyramid_scales((10, 10), (5, 5), 1)
    with pytest.raises(RecordError, match="largest"):
        pyramid_scales((10, 10), (5, 5), 1.1, largest=0)
