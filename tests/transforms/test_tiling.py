"""Random tiles: where they lie, and what of the truth they keep."""

import numpy as np
import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.truth import Truth
from bestiary.records import Objects, Sample, Target
from bestiary.transforms.tiling import RandomTile, cut_to_window


def scene(size_hw: tuple[int, int] = (120, 200), *boxes: tuple[float, float, float, float]) -> Sample:
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    target = Target(objects=Objects(rows, torch.arange(len(rows))), proposals_xyxy=rows)
    y, x = torch.meshgrid(torch.arange(size_hw[0]), torch.arange(size_hw[1]), indexing="ij")
    return Sample(torch.stack([x, y, x]).to(torch.uint8), target, "scene", size_hw)


def draws(tile: RandomTile, sample: Sample, count: int = 200) -> list[tuple[int, int, int, int]]:
    return [tile.draw(sample, np.random.default_rng(i)) for i in range(count)]


def test_tiles_lie_inside_and_everywhere() -> None:
    windows = draws(RandomTile(50, with_object=0.0), scene())
    assert all(x1 >= 0 and y1 >= 0 and x2 <= 200 and y2 <= 120 for x1, y1, x2, y2 in windows)
    assert all((x2 - x1, y2 - y1) == (50, 50) for x1, y1, x2, y2 in windows)
    assert {min(x for x, *_ in windows) < 5, max(x for x, *_ in windows) > 145} == {True}


def test_tiles_around_an_object_show_it_whole() -> None:
    sample = scene((120, 200), (150.5, 3, 180, 20))
    for x1, y1, x2, y2 in draws(RandomTile(50, with_object=1.0), sample):
        assert x1 <= 150.5 < 180 <= x2
        assert y1 <= 3 < 20 <= y2
    places = {x1 for x1, *_ in draws(RandomTile(50, with_object=1.0), sample)}
    assert places == set(range(130, 151)), "every place that shows it is drawn"


def test_tiles_on_a_larger_object_show_nothing_else() -> None:
    sample = scene((120, 200), (20, 10, 190, 110))
    assert all(
        x1 >= 20 and x2 <= 190 and y1 >= 10 and y2 <= 110 for x1, y1, x2, y2 in draws(RandomTile(50, 1.0), sample)
    )


def test_the_tile_is_the_part_and_its_truth() -> None:
    sample = scene((120, 200), (60, 60, 70, 80))
    tile = RandomTile(50, with_object=1.0)
    cut = tile(sample, np.random.default_rng(4))
    x1, y1 = int(cut.image[0, 0, 0]), int(cut.image[1, 0, 0])
    assert cut.size_hw == (50, 50)
    assert cut.original_size_hw == (120, 200)
    assert cut.target.objects is not None
    assert cut.target.proposals_xyxy is not None
    assert cut.target.objects.boxes_xyxy.tolist() == [[60 - x1, 60 - y1, 70 - x1, 80 - y1]]
    assert torch.equal(cut.target.proposals_xyxy, cut.target.objects.boxes_xyxy)


def test_a_picture_that_is_no_larger_stays() -> None:
    sample = scene((40, 50), (1, 1, 5, 5))
    assert RandomTile(50)(sample, np.random.default_rng(0)) is sample
    narrow = RandomTile(50, with_object=0.0)(scene((40, 90)), np.random.default_rng(0))
    assert narrow.size_hw == (40, 50)


def test_some_pictures_stay_whole() -> None:
    sample = scene()
    whole = [RandomTile(50, whole=0.5)(sample, np.random.default_rng(i)) is sample for i in range(100)]
    assert 30 < sum(whole) < 70


def test_what_hardly_shows_is_neither_object_nor_background() -> None:
    boxes = [(0, 0, 10, 10), (45, 0, 55, 10), (48, 20, 58, 30), (60, 0, 70, 10)]
    target = scene((120, 200), *boxes).target
    cut = cut_to_window(target, (120, 200), (0, 0, 50, 50), min_visible=0.3)
    assert cut.objects is not None
    assert cut.objects.crowd is not None
    assert cut.objects.labels.tolist() == [0, 1, 2]
    assert cut.objects.crowd.tolist() == [False, False, True]
    truth = Truth.of(cut.objects)
    assert truth.boxes_xyxy.tolist() == [[0, 0, 10, 10], [45, 0, 50, 10]]
    assert truth.crowds_xyxy.tolist() == [[48, 20, 50, 30]]
    assert cut.proposals_xyxy is not None
    assert torch.equal(cut.proposals_xyxy, truth.boxes_xyxy), "a proposal that hardly shows is none"


def test_crowds_stay_crowds_and_a_picture_without_objects_stays_one() -> None:
    objects = Objects(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0]), crowd=torch.tensor([True]))
    cut = cut_to_window(Target(objects=objects), (20, 20), (0, 0, 15, 15))
    assert cut.objects is not None
    assert cut.objects.crowd is not None
    assert cut.objects.crowd.tolist() == [True]
    empty = cut_to_window(Target(objects=Objects.empty()), (20, 20), (0, 0, 15, 15)).objects
    assert empty is not None
    assert len(empty) == 0
    assert cut_to_window(Target(label=3), (20, 20), (0, 0, 15, 15)).objects is None


def test_shares_and_sides_that_cannot_be() -> None:
    for wrong in (
        {"side": 0},
        {"side": 5, "with_object": 1.5},
        {"side": 5, "whole": -0.1},
        {"side": 5, "min_visible": 2.0},
    ):
        with pytest.raises(UsageError, match="RandomTile"):
            RandomTile(**wrong)  # type: ignore[arg-type]
