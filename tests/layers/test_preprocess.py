"""Normalisation and the named preprocessings."""

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.layers.preprocess import (
    BYTE_STD,
    CAFFE_VGG_MEAN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGG_FEATURES_MEAN,
    Normalize,
    channel_normalize,
)


def test_pixels_are_scaled_by_hand() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    normal = Normalize((0.5, 0.1, 0.0), (0.5, 0.2, 4.0))(image).flatten()
    torch.testing.assert_close(normal, torch.tensor([-1.0, 0.5, 0.25]))
    torch.testing.assert_close(Normalize()(image), Normalize()(image.float() / 255))


@pytest.mark.parametrize("batch", [(), (2,)])
def test_caffes_networks_see_blue_green_red_0_to_255(batch: tuple[int, ...]) -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(*batch, 3, 2, 2)
    seen = Normalize(CAFFE_VGG_MEAN, BYTE_STD, "bgr")(image)
    wanted = torch.tensor([50 - 103.939, 100 - 116.779, 200 - 123.68]).view(3, 1, 1).expand_as(seen)
    torch.testing.assert_close(seen, wanted)


def test_the_features_that_ssd_starts_from_see_red_green_blue_0_to_255() -> None:
    image = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    seen = Normalize(VGG_FEATURES_MEAN, BYTE_STD)(image).flatten()
    torch.testing.assert_close(seen, 255 - torch.tensor([123.0, 117.0, 104.0]), rtol=1e-3, atol=1e-3)


def test_other_channels_are_refused() -> None:
    with pytest.raises(RecordError, match="wanted 3 channels"):
        Normalize()(torch.rand(1, 4, 4))


def test_pictures_of_another_number_of_channels_have_the_averages() -> None:
    three, five = channel_normalize(3, channel_order="bgr"), channel_normalize(5, channel_order="bgr")
    assert three.channel_order == "bgr"
    assert torch.equal(three.mean.flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(five.mean.flatten(), torch.full((5,), sum(IMAGENET_MEAN) / 3))
    torch.testing.assert_close(five.std.flatten(), torch.full((5,), sum(IMAGENET_STD) / 3))
    image = torch.rand(5, 2, 3)
    torch.testing.assert_close(five(image), (image - five.mean) / five.std)  # their order stays
