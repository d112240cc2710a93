"""Tiles cover pictures, and an object on a seam is one object."""

import itertools

import pytest
import torch
from blob_detector import BlobDetector, picture, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.heads.tiling import Tiling, cut_sides, merge_over_seams
from bestiary.predictions import Detections


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_the_picture_with_the_overlap(height: int, width: int, tile: int, overlap: float) -> None:
    windows = Tiling(tile, overlap).windows((height, width))
    seen = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in windows:
        assert (x2 - x1, y2 - y1) == (min(tile, width), min(tile, height))
        assert min(x1, y1, width - x2, height - y2) >= 0
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    for axis, side in ((0, width), (1, height)):
        starts = sorted({window[axis] for window in windows})
        gaps = [b - a for a, b in itertools.pairwise(starts)]
        assert all(gap <= max(1, int(tile * (1 - overlap))) for gap in gaps)
        assert len(starts) == 1 or side > tile


def test_no_tile_is_more_than_needed() -> None:
    assert len(Tiling(100, 0.0).windows((200, 300))) == 6
    assert len(Tiling(100, 0.2).windows((100, 180))) == 2
    assert Tiling(100, 0.2).windows((100, 181))[1] == (40, 0, 140, 100)
    assert Tiling(0).windows((7, 9)) == [(0, 0, 9, 7)]


@pytest.mark.parametrize(
    "blob",
    [
        (60, 30, 70, 40, 0.9),  # smaller than the overlap, across the end of the first tile
        (40, 30, 90, 40, 0.9),  # larger than the overlap: whole nowhere
        (10, 30, 190, 40, 0.9),  # across all tiles
        (58, 58, 70, 70, 0.9),  # in the corner of four tiles
        (30, 30, 120, 110, 0.9),  # larger than a tile in both directions
        (2, 2, 198, 148, 0.9),  # nearly the whole picture
    ],
)
def test_an_object_on_a_seam_is_found_once(blob: tuple[int, int, int, int, float]) -> None:
    image = picture((150, 200), blob)
    for tile, overlap in ((64, 0.25), (64, 0.5), (81, 0.3)):
        system = BlobDetector()
        system.take({"tile": tile, "tile_overlap": overlap})
        assert rows_of(system.predict_images([image])[0]) == [(*map(float, blob[:4]), 1.0, 0.9)]


def test_neighbours_and_categories_stay_apart() -> None:
    image = picture((64, 200), (50, 20, 62, 30, 0.9), (64, 20, 76, 30, 0.5), (80, 20, 130, 30, 0.95))
    system = BlobDetector()
    system.take({"tile": 64, "tile_overlap": 0.25})
    assert rows_of(system.predict_images([image])[0]) == rows_of(BlobDetector().predict_images([image])[0])


@given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 11), st.integers(2, 9), st.integers(2, 9)), max_size=12))
@settings(max_examples=30, deadline=None)
def test_objects_smaller_than_the_overlap_are_found_as_if_whole(cells: list[tuple[int, int, int, int]]) -> None:
    places = {(x, y): (w, h) for x, y, w, h in cells}  # one to each cell of 11 pixels, so that none touch
    blobs = [
        (11 * x, 11 * y, 11 * x + w, 11 * y + h, 0.3 + 0.05 * i) for i, ((x, y), (w, h)) in enumerate(places.items())
    ]
    image = picture((140, 210), *blobs)
    system = BlobDetector()
    system.take({"tile": 56, "tile_overlap": 0.25})
    assert rows_of(system.predict_images([image])[0]) == rows_of(BlobDetector().predict_images([image])[0])


def test_inner_edges_cut_and_the_pictures_do_not() -> None:
    windows = torch.tensor([[0.0, 0, 100, 100]]).expand(3, 4)
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 60, 99, 100], [10, 40, 100, 60]])
    cut = cut_sides(boxes, windows, (100, 180))
    assert cut.tolist() == [[False] * 4, [False, False, True, False], [False, False, True, False]]


def detections(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = torch.tensor(rows)
    return Detections(table[:, :4], torch.zeros(len(rows), dtype=torch.int64), table[:, 4], size_hw=(100, 180))


LEFT, RIGHT = (0.0, 0.0, 100.0, 100.0), (80.0, 0.0, 180.0, 100.0)
TILES = torch.tensor([LEFT, RIGHT])


def test_two_whole_boxes_of_two_tiles_are_one_if_they_overlap_where_both_see() -> None:
    found = detections((82, 10, 98, 30, 0.6), (83, 10, 98, 29, 0.8), (150, 10, 160, 30, 0.9))
    merged = merge_over_seams(found, torch.tensor([LEFT, RIGHT, RIGHT]), TILES)
    # the first ends at its tile's edge, and the other tile sees it whole
    assert rows_of(merged) == [(150, 10, 160, 30, 0, 0.9), (83, 10, 98, 29, 0, 0.8)]


def test_boxes_of_one_tile_are_the_detectors_own_affair() -> None:
    found = detections((10, 10, 40, 40, 0.6), (11, 10, 40, 40, 0.8))
    assert len(merge_over_seams(found, torch.tensor([LEFT, LEFT]), TILES)) == 2


def test_a_piece_grows_to_the_whole_and_keeps_the_best_score() -> None:
    found = detections((50, 10, 100, 30, 0.9), (80, 11, 140, 30, 0.4))
    merged = merge_over_seams(found, torch.tensor([LEFT, RIGHT]), TILES)
    assert rows_of(merged) == [(50, 10, 140, 30, 0, 0.9)]
    whole = detections((50, 10, 100, 30, 0.9), (52, 11, 140, 31, 0.4))
    merged = merge_over_seams(whole, torch.tensor([LEFT, (0.0, 0.0, 180.0, 100.0)]), TILES)
    assert rows_of(merged) == [(50, 10, 140, 30, 0, 0.9)], "the whole picture's box shows how far the piece goes"


def test_nothing_found_is_nothing() -> None:
    nothing = Detections.empty((100, 180))
    assert len(merge_over_seams(nothing, torch.zeros(0, 4), TILES)) == 0
