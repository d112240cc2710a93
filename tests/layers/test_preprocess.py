"""Normalisation and the named preprocessings."""

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.layers.preprocess import BYTE_STD, CAFFE_VGG_MEAN, VGG_FEATURES_MEAN, Normalize


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
