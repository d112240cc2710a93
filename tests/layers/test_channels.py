import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.errors import RecordError
from bestiary.layers.channels import match_channels


def test_equal_channels_pass_untouched() -> None:
    image = torch.randint(0, 256, (4, 5, 6), dtype=torch.uint8)
    assert match_channels(image, 4) is image


def test_grey_is_pillows_luma_before_rounding() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    ours = match_channels(torch.from_numpy(pixels).permute(2, 0, 1), 1)
    assert ours.shape == (1, 40, 50)
    theirs = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)
    assert np.abs(ours[0].double().numpy() * 255 - theirs).max() < 0.51


def test_three_equal_channels_give_the_grey_back() -> None:
    grey = torch.rand(2, 1, 7, 9)
    assert torch.allclose(match_channels(match_channels(grey, 3), 1), grey, atol=1e-6)


def test_one_channel_is_repeated_with_its_type() -> None:
    grey = torch.randint(0, 256, (1, 3, 4), dtype=torch.uint8)
    three = match_channels(grey, 3)
    assert three.dtype == torch.uint8
    assert torch.equal(three, torch.cat([grey] * 3))


def test_what_cannot_be_converted_says_how_to_mend() -> None:
    with pytest.raises(RecordError, match=r"4 channels, wanted 3.*in_channels=4"):
        match_channels(torch.zeros(4, 2, 2), 3)
    with pytest.raises(RecordError, match="2 channels, wanted 1"):
        match_channels(torch.zeros(2, 2, 2), 1)
