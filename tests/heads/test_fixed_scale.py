import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.fixed_scale import FixedScale
from bestiary.records import Objects, Target


def test_pictures_and_boxes_are_stretched_alike() -> None:
    target = Target(objects=Objects(torch.tensor([[10.0, 5, 20, 10]]), torch.tensor([3])))
    (image,), (moved,) = FixedScale(40).bring([torch.full((3, 20, 80), 255, dtype=torch.uint8)], [target])
    assert image.shape == (3, 40, 40)
    assert bool((image == 1).all())
    assert moved.objects is not None
    assert moved.objects.boxes_xyxy.tolist() == [[5, 10, 10, 20]]
    assert moved.objects.labels.tolist() == [3]


def test_averaging_or_sampling() -> None:
    stripes = torch.tensor([0.0, 1, 1, 1]).repeat(8).expand(1, 32, 32)
    assert FixedScale(8).resize(stripes)[0, 4].tolist() == [1] * 8
    averaged = FixedScale(8, antialias=True).resize(stripes)[0, 4, 2:6]
    torch.testing.assert_close(averaged, torch.full((4,), 0.75), atol=0.1, rtol=0)
    assert torch.equal(FixedScale(32).resize(stripes), stripes)


def test_times_keeps_the_way_and_at_least_a_pixel() -> None:
    assert FixedScale(300, antialias=True).times(0.5) == FixedScale(150, antialias=True)
    assert FixedScale(3).times(0.01).side == 1
    with pytest.raises(UsageError, match="got 0, wanted at least 1"):
        FixedScale(0)
