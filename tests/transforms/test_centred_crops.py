import numpy as np
import pytest
import torch
from transform_scenes import blank

from bestiary.errors import UsageError
from bestiary.records import Objects, Sample, Target
from bestiary.transforms.centred_crops import RandomCentredCrop


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_middle_keeps_its_distance_from_the_edges_and_reaches_every_place_within() -> None:
    crop = RandomCentredCrop((5, 5), (1.0,), border=3)
    corners = [crop.plan((10, 12), rng(seed)).matrix[:, 2] for seed in range(300)]
    middles = {(2 - int(x), 2 - int(y)) for x, y in corners}
    assert middles == {(x, y) for x in range(3, 9) for y in range(3, 7)}


def test_the_border_is_halved_until_there_is_room() -> None:
    crop = RandomCentredCrop((5, 5), (1.0,), border=128)
    rows = {2 - int(crop.plan((9, 300), rng(seed)).matrix[1, 2]) for seed in range(200)}
    assert rows == set(range(4, 5))
    columns = {2 - int(crop.plan((9, 300), rng(seed)).matrix[0, 2]) for seed in range(400)}
    assert min(columns) == 128
    assert max(columns) == 171
    assert crop.plan((1, 1), rng()).size_hw == (5, 5)


def test_factors_zoom_and_what_lies_outside_is_black() -> None:
    image = torch.full((3, 20, 20), 200, dtype=torch.uint8)
    sample = Sample(image, Target(), "white", (20, 20))
    near = RandomCentredCrop((11, 11), (0.5,), border=9)(sample, rng()).image
    assert near.shape == (3, 11, 11)
    assert (near == 200).all()
    far = RandomCentredCrop((11, 11), (4.0,), border=9)(sample, rng()).image
    assert (far[:, 5, 5] == 200).all()
    assert (far[:, 0] == 0).all()
    assert 0.15 < (far == 200).float().mean() < 0.35  # (20 / 44)^2 of it


def test_boxes_move_with_the_pixels_and_what_is_left_of_them_stays() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 10:30, 20:50] = 255
    boxes = torch.tensor([[20.0, 10.0, 50.0, 30.0]])
    sample = Sample(image, Target(objects=Objects(boxes, torch.tensor([0]))), "box", (40, 60))
    for seed in range(20):
        moved = RandomCentredCrop((24, 24), (0.5, 1.0, 1.5), border=12)(sample, rng(seed))
        bright = (moved.image[0] > 127).nonzero()
        assert moved.target.objects is not None
        if not len(bright):
            continue
        low, high = bright.min(0).values, bright.max(0).values + 1
        seen = [int(low[1]), int(low[0]), int(high[1]), int(high[0])]
        assert moved.target.objects.boxes_xyxy[0].tolist() == pytest.approx(seen, abs=1.01)


def test_a_picture_is_left_as_it_was_and_wrong_numbers_are_refused() -> None:
    sample = blank((6, 8))
    before = sample.image.clone()
    RandomCentredCrop((5, 5))(sample, rng())
    assert torch.equal(sample.image, before)
    for wrong in ({"size_hw": (0, 5)}, {"factors": ()}, {"factors": (0.0,)}, {"border": -1}):
        with pytest.raises(UsageError):
            RandomCentredCrop(**{"size_hw": (5, 5), **wrong})
