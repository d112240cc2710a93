"""Resizing, cropping and stacking pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.errors import RecordError
from bestiary.layers.scaling import as_float, centre_crop, resize_short_side, stack_equal


def test_bytes_become_shares_and_floats_stay() -> None:
    assert as_float(torch.full((1, 1, 1), 255, dtype=torch.uint8)).item() == 1.0
    image = torch.rand(3, 2, 2)
    assert as_float(image) is image


@pytest.mark.parametrize(
    ("size", "side", "wanted"), [((100, 200), 50, (50, 100)), ((201, 100), 50, (100, 50)), ((7, 7), 32, (32, 32))]
)
def test_the_shorter_side_is_met_and_the_longer_rounded_down(
    size: tuple[int, int], side: int, wanted: tuple[int, int]
) -> None:
    assert tuple(resize_short_side(torch.rand(3, *size), side).shape[-2:]) == wanted


def test_a_picture_of_that_size_is_not_touched() -> None:
    image = torch.rand(3, 32, 50)
    assert resize_short_side(image, 32) is image


def test_shrinking_equals_pillow() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 90, 120), dtype=np.uint8))
    ours = resize_short_side(as_float(image), 30) * 255
    theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((40, 30), Image.Resampling.BILINEAR)
    # Pillow rounds to bytes after each of its two passes.
    assert np.abs(ours.permute(1, 2, 0).numpy() - np.asarray(theirs)).max() <= 1.01


def test_the_crop_is_central() -> None:
    image = torch.arange(5 * 7, dtype=torch.float32).view(1, 5, 7)
    assert centre_crop(image, 3)[0].tolist() == [[9, 10, 11], [16, 17, 18], [23, 24, 25]]
    # An odd margin of 5 and 3: Python rounds 2.5 to 2 and 1.5 to 2, and so does torchvision.
    assert centre_crop(image, 2)[0].tolist() == [[16, 17], [23, 24]]


def test_stacking_names_the_sizes_that_differ() -> None:
    equal = [torch.zeros(3, 4, 5), torch.ones(3, 4, 5)]
    assert stack_equal(equal).shape == (2, 3, 4, 5)
    batch = torch.zeros(2, 3, 4, 4)
    assert stack_equal(batch) is batch
    with pytest.raises(RecordError, match=r"\(3, 4, 5\), \(3, 6, 5\).*to_network_scale"):
        stack_equal([*equal, torch.zeros(3, 6, 5)])
    with pytest.raises(RecordError, match="no picture"):
        stack_equal([])
