"""The size at which detectors see pictures."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.records import Objects, Target


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((300, 400), (600, 800)), ((300, 600), (500, 1000)), ((400, 300), (800, 600)), ((1, 4000), (1, 4000))],
)
def test_the_shorter_side_counts_unless_the_longer_is_too_long(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert size_of(NetworkScale(600, 1000).resize(torch.rand(3, *size))) == wanted


def test_bytes_boxes_and_proposals_are_brought_along() -> None:
    objects = Objects(torch.tensor([[2.0, 4.0, 20.0, 30.0]]), torch.tensor([1]))
    target = Target(objects=objects, proposals_xyxy=torch.tensor([[1.0, 1.0, 2.0, 3.0]]))
    picture = torch.full((3, 32, 48), 255, dtype=torch.uint8)
    images, targets = NetworkScale(64, 200).bring([picture, picture[:, :, :32]], [target, Target()])
    assert [size_of(image) for image in images] == [(64, 96), (64, 64)]
    assert images[0].dtype == torch.float32
    assert float(images[0].max()) == 1
    assert targets[0].objects is not None
    assert targets[0].objects.boxes_xyxy.tolist() == [[4, 8, 40, 60]]
    assert targets[0].proposals_xyxy is not None
    assert targets[0].proposals_xyxy.tolist() == [[2, 2, 4, 6]]
    assert targets[1].objects is None
    assert targets[1].proposals_xyxy is None


def test_scales_of_a_test_are_multiples() -> None:
    assert NetworkScale(600, 1000).times(1.5) == NetworkScale(900, 1500)
    assert NetworkScale(1, 1).times(0.1) == NetworkScale(1, 1)


@pytest.mark.parametrize("sides", [(0, 5), (6, 5)])
def test_sizes_that_cannot_be_are_named(sides: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"got min_size={sides[0]}, max_size={sides[1]}"):
        NetworkScale(*sides)
