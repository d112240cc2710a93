"""What a network sees of a picture, found by pictures of coordinates."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.inspect.views import Drawn, input_batches, preparation, view_of
from bestiary.records import Sample, Target
from bestiary.zoo import build


def samples(sizes: list[tuple[int, int]]) -> list[Sample]:
    return [
        Sample(torch.full((3, h, w), i, dtype=torch.uint8), Target(label=0), f"{i}.png", (h, w))
        for i, (h, w) in enumerate(sizes)
    ]


def test_a_classifier_sees_the_centre() -> None:
    system = build("resnet18", ["a", "b"], {"resize": 64, "crop": 48})
    view = view_of(system, torch.rand(3, 100, 160), "a.png")
    assert view.pixels.shape == (1, 3, 48, 48)
    scale = 100 / 64
    assert view.along[0][0] == pytest.approx(scale, abs=0.02)
    # 48 of 64 rows are seen: 75 of 100 pixels, about the middle.
    assert view.region_xyxy == pytest.approx((42, 12, 118, 88), abs=1.5)
    corners = view.box_on_picture((0.0, 0.0, 48.0, 48.0))
    assert corners == pytest.approx((0, 0, view.picture.shape[2], view.picture.shape[1]), abs=view.scale)


def test_a_detector_pads_and_what_is_padding_is_no_part_of_the_picture() -> None:
    system = build("fasterrcnn_resnet18_fpn", ["a"], {"min_size": 64, "max_size": 128})
    view = view_of(system, torch.rand(3, 50, 90))
    assert view.pixels.shape[2:] == (64, 128)
    assert view.along[0] == pytest.approx((50 / 64, 0), abs=0.02)
    assert view.region_xyxy == (0, 0, 90, 50)


def test_a_valid_network_sees_mirrored_margins_around_its_tile() -> None:
    system = build("unet", ["a", "b"])
    view = view_of(system, torch.rand(3, 60, 60))
    margin = -view.along[0][1]
    assert view.along[0][0] == pytest.approx(1, abs=1e-6)
    assert margin == pytest.approx(92, abs=1e-3)
    assert view.region_xyxy[:2] == (0, 0)


def test_maps_land_where_they_were_seen() -> None:
    system = build("resnet18", ["a", "b"], {"resize": 64, "crop": 32})
    image = torch.zeros(3, 128, 128)
    image[:, 60:68, 76:84] = 1  # within the crop, which sees 32..96
    view = view_of(system, image)
    brightest = view.on_picture(view.pixels[0])[0]
    y, x = divmod(int(brightest.argmax()), brightest.shape[1])
    left, top = view.region_xyxy[:2]
    assert (x + 0.5) / view.scale + left == pytest.approx(80, abs=4)
    assert (y + 0.5) / view.scale + top == pytest.approx(64, abs=4)
    seen = view.picture[0] > 128
    assert bool(seen[y, x])


def test_small_pictures_are_enlarged_by_whole_factors_and_large_ones_shrunk() -> None:
    system = build("resnet18_cifar", ["a", "b"])
    small = view_of(system, torch.rand(3, 32, 32))
    assert small.picture.shape == (3, 320, 320)
    assert torch.equal(small.picture[:, ::10, ::10], small.picture[:, 9::10, 9::10])
    large = view_of(system, torch.rand(3, 2000, 2000))
    assert max(large.picture.shape) == 900


def test_inputs_of_one_size_share_a_batch_in_order() -> None:
    system = build("unet_padded_small", ["a", "b"])
    batches = list(input_batches(system, samples([(32, 32), (32, 32), (48, 32), (32, 32)]), 8))
    assert [indices for indices, _, _ in batches] == [[0, 1], [2], [3]]
    assert [len(i) for i, _, _ in input_batches(system, samples([(32, 32)] * 5), 2)] == [2, 2, 1]
    alone = preparation(system)(samples([(48, 32)])[0].image)
    assert batches[1][2].shape == alone.shape


def test_some_pictures_are_drawn_at_random_but_the_same_each_time() -> None:
    data = samples([(4, 4)] * 50)
    drawn = Drawn(data, 10, seed=1)
    names = [drawn[i].name for i in range(len(drawn))]
    assert len(set(names)) == 10
    assert names == [Drawn(data, 10, seed=1)[i].name for i in range(10)]
    assert names != [Drawn(data, 10, seed=2)[i].name for i in range(10)]
    assert names == sorted(names, key=lambda n: int(n.split(".")[0]))
    assert len(Drawn(data, 1000)) == 50


def test_a_system_without_a_network_has_no_view() -> None:
    with pytest.raises(UsageError):
        view_of(build("nearest_neighbour", ["a", "b"]), torch.rand(3, 8, 8))
