import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.masks import (
    Rle,
    encode_rle,
    mask_iou,
    mask_to_box_xyxy,
    mask_to_polygons,
    polygons_to_mask,
    polygons_to_rle,
    rle_iou,
    rle_union,
)

sides = st.integers(1, 40)
shares = st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9, 1.0])


def random_mask(height: int, width: int, share: float, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((height, width)) < share)


def coco_encode(mask: Tensor) -> dict[str, object]:
    return coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def test_hand_worked_runs_go_down_the_columns() -> None:
    mask = torch.tensor([[0, 0, 1], [0, 1, 1]]).bool()
    assert encode_rle(mask).counts.tolist() == [3, 3]
    assert encode_rle(~mask).counts.tolist() == [0, 3, 3]
    assert encode_rle(torch.zeros(2, 3).bool()).counts.tolist() == [6]
    assert encode_rle(torch.ones(2, 3).bool()).counts.tolist() == [0, 6]
    assert encode_rle(torch.zeros(0, 3).bool()).counts.tolist() == [0]
    assert encode_rle(mask).to_coco() == {"size": [2, 3], "counts": "33"}


@settings(max_examples=150, deadline=None)
@given(sides, sides, shares, st.integers(0, 1000))
def test_masks_text_areas_and_boxes_equal_pycocotools(height: int, width: int, share: float, seed: int) -> None:
    mask = random_mask(height, width, share, seed)
    ours, theirs = encode_rle(mask), coco_encode(mask)
    assert ours.to_coco() == {"size": [height, width], "counts": theirs["counts"].decode()}
    assert ours.area() == coco.area(theirs)
    x, y, w, h = coco.toBbox(theirs)
    assert ours.box_xyxy().tolist() == [x, y, x + w, y + h]
    assert torch.equal(mask_to_box_xyxy(mask), ours.box_xyxy())
    for counts in (theirs["counts"], theirs["counts"].decode(), ours.counts.tolist()):
        back = Rle.from_coco({"size": [height, width], "counts": counts})
        assert back == ours
        assert torch.equal(back.decode(), mask)


def test_text_of_long_and_shrinking_runs() -> None:
    # Differences of both signs and of one to five characters.
    counts = [0, 1, 15, 16, 17, 500, 3, 100_000, 40_000, 2, 1_000_000, 1]
    rle = Rle((1, sum(counts)), np.array(counts, np.int32))
    assert (
        rle.to_coco()["counts"]
        == coco.frPyObjects({"size": [1, sum(counts)], "counts": counts}, 1, 1)["counts"].decode()
    )
    assert Rle.from_coco(rle.to_coco()) == rle


def test_runs_of_zero_length_in_the_middle_are_read_as_they_are() -> None:
    rle = Rle.from_coco({"size": [4, 2], "counts": [2, 0, 1, 3, 0, 1, 1, 0]})
    assert rle.decode().t().flatten().tolist() == [False] * 3 + [True] * 4 + [False]
    assert rle.area() == 4
    assert rle.box_xyxy().tolist() == [0, 0, 2, 4]
    assert rle_union([rle, rle]) == encode_rle(rle.decode())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"size": [2, 2]}, "also 'counts'"),
        ({"counts": [4]}, "also 'size'"),
        ({"size": [2], "counts": [4]}, r"wanted \[height, width\]"),
        ({"size": "ab", "counts": [4]}, r"wanted \[height, width\]"),
        ({"size": [2, 2], "counts": [3]}, "3 pixels, wanted 2 x 2 = 4"),
        ({"size": [2, 2], "counts": [5, -1]}, "a run of -1 pixels"),
        ({"size": [2, 2], "counts": [3.5, 0.5]}, "whole numbers"),
        ({"size": [2, 2], "counts": [float("nan")]}, "whole numbers"),
        ({"size": [2, 2], "counts": [2**40]}, "whole numbers"),
        ({"size": [2, 2], "counts": None}, "whole numbers"),
        ({"size": [2, 2], "counts": "no"}, "wanted"),
        ({"size": [2, 2], "counts": []}, "no run"),
        ({"size": [2, 2], "counts": "~~"}, "COCO's text"),
        ({"size": [2, 2], "counts": "4\x00"}, "COCO's text"),
        ({"size": [2, 2], "counts": "Q"}, "ends within a number"),
        ({"size": [2, 2], "counts": "é4"}, "COCO's text"),
        ({"size": [2, 2], "counts": b"ooooooooooooooooooooo"}, "COCO's text"),
        ({"size": [2, 2], "counts": "O5"}, "0 to 2"),
        ({"size": [-1, 2], "counts": [0]}, "two numbers of pixels"),
    ],
)
def test_bad_run_lengths_are_named(bad: dict[str, object], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        Rle.from_coco(bad)


coordinate = st.one_of(
    st.floats(-30, 90), st.integers(-10, 60).map(float), st.integers(-20, 200).map(lambda v: v / 5 + 0.1)
)


@settings(max_examples=400, deadline=None)
@given(
    sides, sides, st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9), min_size=1, max_size=3)
)
@example(10, 10, [[(2.0, 2.0), (7.0, 2.0), (7.0, 7.0), (2.0, 7.0)]])
@example(5, 5, [[(0.0, 0.0), (5.0, 0.0), (5.0, 5.0), (0.0, 5.0)]])
@example(5, 5, [[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]])
@example(9, 9, [[(0.0, 0.0), (8.0, 8.0), (8.0, 0.0), (0.0, 8.0)]])
def test_polygons_equal_pycocotools(height: int, width: int, shapes: list[list[tuple[float, float]]]) -> None:
    polygons = [[v for point in shape for v in point] for shape in shapes]
    theirs = coco.merge(coco.frPyObjects(polygons, height, width))
    assert polygons_to_rle(polygons, (height, width)).to_coco()["counts"] == theirs["counts"].decode()
    assert np.array_equal(polygons_to_mask(polygons, (height, width)).numpy(), coco.decode(theirs).astype(bool))


def test_a_polygon_of_very_many_points_equals_pycocotools() -> None:
    turn = np.linspace(0, 200 * np.pi, 20_000)
    spiral = np.stack([100 + turn / 8 * np.cos(turn), 100 + turn / 8 * np.sin(turn)], axis=1).reshape(-1)
    theirs = coco.frPyObjects([spiral.tolist()], 200, 200)[0]
    assert polygons_to_rle([spiral], (200, 200)).to_coco()["counts"] == theirs["counts"].decode()


def test_a_whole_pixel_square_fills_its_pixels() -> None:
    mask = polygons_to_mask([[1, 1, 3, 1, 3, 4, 1, 4]], (5, 5))
    assert mask.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2], [3, 1], [3, 2]]


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        ([], "at least one"),
        ([[0, 0, 1, 1]], "4 numbers, wanted x, y of at least three points"),
        ([[0, 0, 1, 1, 2, 2, 3]], "7 numbers"),
        ([[0, 0, 1, 1, 2, float("nan")]], "finite numbers"),
        ([[0, 0, 1, 1, 2, 1e9]], "finite numbers"),
    ],
)
def test_bad_polygons_are_named(polygons: list[list[float]], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        polygons_to_mask(polygons, (4, 4))


@settings(max_examples=60, deadline=None)
@given(sides, sides, shares, st.integers(0, 1000))
def test_outlines_give_the_mask_back_with_its_holes_filled(height: int, width: int, share: float, seed: int) -> None:
    mask = random_mask(height, width, share, seed)
    polygons = mask_to_polygons(mask)
    if not mask.any():
        assert polygons == []
        return
    got = polygons_to_mask(polygons, (height, width))
    assert np.array_equal(got.numpy(), binary_fill_holes(mask.numpy()))


def test_outlines_come_largest_first() -> None:
    mask = torch.zeros(20, 20).bool()
    mask[1:3, 1:3] = True
    mask[5:18, 5:18] = True
    first, second = mask_to_polygons(mask)
    assert first.reshape(-1, 2).min(0).tolist() == [5.25, 5.25]
    assert second.reshape(-1, 2).max(0).tolist() == [2.75, 2.75]


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(0, 1000))
def test_overlaps_equal_pycocotools_with_and_without_crowds(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [random_mask(height, width, rng.choice([0, 0.1, 0.6, 1]), seed + i) for i in range(4)]
    true = [random_mask(height, width, rng.choice([0, 0.1, 0.6, 1]), seed + 10 + i) for i in range(3)]
    crowd = [False, True, False]
    ours = rle_iou([encode_rle(m) for m in found], [encode_rle(m) for m in true], crowd)
    theirs = coco.iou([coco_encode(m) for m in found], [coco_encode(m) for m in true], crowd)
    assert np.array_equal(ours.numpy(), theirs)
    dense = mask_iou(torch.stack(found), torch.stack(true), torch.tensor(crowd))
    torch.testing.assert_close(dense.double(), ours, rtol=1e-6, atol=0)


def test_overlaps_of_nothing() -> None:
    one = encode_rle(torch.ones(3, 3).bool())
    assert rle_iou([], [one]).shape == (0, 1)
    assert rle_iou([one], []).shape == (1, 0)
    assert mask_iou(torch.zeros(0, 3, 3).bool(), torch.ones(2, 3, 3).bool()).shape == (0, 2)
    with pytest.raises(RecordError, match="as the first"):
        rle_iou([one], [encode_rle(torch.ones(2, 3).bool())])


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.lists(st.tuples(shares, st.integers(0, 100)), min_size=1, max_size=5))
def test_unions_equal_the_pixels_and_are_canonical(height: int, width: int, kinds: list[tuple[float, int]]) -> None:
    masks = [random_mask(height, width, share, seed) for share, seed in kinds]
    union = rle_union([encode_rle(m) for m in masks])
    assert union == encode_rle(torch.stack(masks).any(dim=0))
    with pytest.raises(RecordError, match="as the first"):
        rle_union([union, encode_rle(torch.ones(41, 1).bool())])


def test_equal_masks_hash_alike() -> None:
    a, b = encode_rle(torch.ones(2, 3).bool()), encode_rle(torch.ones(2, 3).bool())
    assert len({a, b}) == 1
    assert a != encode_rle(torch.ones(3, 2).bool())
    assert a != "a"
