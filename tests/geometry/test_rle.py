import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.rle import (
    Rle,
    encode_rle,
    rle_areas,
    rle_boxes_xyxy,
    rle_intersection,
    rle_iou,
    rle_union,
)


def blobs(height: int, width: int, seed: int, count: int = 3) -> Tensor:
    """Ellipses, as things look: runs of many lengths, some down to the bottom and on at the top."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(count):
        cy, cx, ry, rx = rng.uniform(0, 1, 4) * [height, width, height / 1.5, width / 3] + [0, 0, 1, 1]
        mask ^= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return torch.from_numpy(mask)


def coco_of(mask: Tensor) -> dict[str, object]:
    return coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def naive_counts(mask: Tensor) -> list[int]:
    pixels = mask.t().flatten().tolist()
    runs = [(value, len(list(group))) for value, group in itertools.groupby(pixels)]
    return ([0] if runs[0][0] else []) + [length for _, length in runs]


@pytest.mark.parametrize("width", [1, 63, 64, 65, 127, 128, 130, 200])
@pytest.mark.parametrize("height", [1, 2, 37])
def test_every_remainder_of_64_pixels_equals_the_loops(height: int, width: int) -> None:
    for share in (0.03, 0.5, 0.97):
        mask = torch.rand(height, width, generator=torch.Generator().manual_seed(width)) < share
        rle = encode_rle(mask)
        assert rle.counts.tolist() == naive_counts(mask)
        assert torch.equal(rle.decode(), mask)
    assert encode_rle(torch.ones(height, width).bool()).counts.tolist() == [0, height * width]


@pytest.mark.parametrize("seed", range(6))
def test_things_in_large_masks_equal_pycocotools(seed: int) -> None:
    mask = blobs(333, 517, seed)
    ours, theirs = encode_rle(mask), coco_of(mask)
    assert ours.to_coco()["counts"] == theirs["counts"].decode()
    assert torch.equal(ours.decode(), mask)
    x, y, w, h = coco.toBbox(theirs)
    assert rle_boxes_xyxy([ours]).tolist() == [[x, y, x + w, y + h]]
    assert rle_areas([ours]).tolist() == [int(coco.area(theirs))]


def test_any_memory_layout_is_read() -> None:
    mask = blobs(60, 90, 1)
    for view in (mask.t().contiguous().t(), torch.stack([mask, ~mask], dim=-1)[..., 0], mask.flip(0).flip(0)):
        assert encode_rle(view) == encode_rle(mask)
    assert encode_rle(mask[5:40, 7:80]) == encode_rle(mask[5:40, 7:80].clone())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.lists(st.integers(0, 500), min_size=1, max_size=4))
def test_unions_and_intersections_equal_pixels_and_pycocotools(height: int, width: int, seeds: list[int]) -> None:
    masks = [blobs(height, width, seed) for seed in seeds]
    rles, theirs = [encode_rle(m) for m in masks], [coco_of(m) for m in masks]
    both = ((rle_union, torch.stack(masks).any(0), False), (rle_intersection, torch.stack(masks).all(0), True))
    for merged, pixels, intersect in both:
        assert merged(rles) == encode_rle(pixels)
        assert merged(rles).to_coco()["counts"] == coco.merge(theirs, intersect)["counts"].decode()


def test_merging_what_has_nothing_in_common() -> None:
    left, right = torch.zeros(70, 9).bool(), torch.zeros(70, 9).bool()
    left[:, 0], right[:, 8] = True, True
    assert rle_intersection([encode_rle(left), encode_rle(right)]).counts.tolist() == [630]
    assert rle_union([encode_rle(left), encode_rle(right)]).counts.tolist() == [0, 70, 490, 70]
    with pytest.raises(RecordError, match="at least one"):
        rle_intersection([])
    with pytest.raises(RecordError, match="as the first"):
        rle_intersection([encode_rle(left), encode_rle(right[:, :3])])


@pytest.mark.parametrize(("found", "true"), [(1, 1), (1, 6), (6, 1), (5, 6)])
def test_overlaps_by_walking_and_by_bits_equal_pycocotools(found: int, true: int) -> None:
    masks = [blobs(130, 170, seed, 1 + seed % 3) for seed in range(found)]
    truths = [blobs(130, 170, 50 + seed, 1 + seed % 2) for seed in range(true)]
    # Two pixels at the far corners: bits would take more room than runs.
    truths[-1] = torch.zeros(130, 170).bool()
    truths[-1][0, 0] = truths[-1][-1, -1] = True
    crowd = [i % 2 == 0 for i in range(true)]
    ours = rle_iou([encode_rle(m) for m in masks], [encode_rle(m) for m in truths], crowd)
    theirs = coco.iou([coco_of(m) for m in masks], [coco_of(m) for m in truths], crowd)
    assert np.array_equal(ours.numpy(), theirs)


def test_one_pair_equals_pycocotools_and_the_matrix_of_many() -> None:
    masks = [encode_rle(blobs(70, 90, seed, 3)) for seed in range(4)]
    masks += [encode_rle(torch.zeros(70, 90).bool()), encode_rle(torch.ones(70, 90).bool())]
    for crowd in (False, True):
        all_pairs = rle_iou(masks, masks, [crowd] * len(masks))
        assert ((all_pairs > 0) & (all_pairs < 1)).sum() >= 12  # not all of them apart or equal
        for n, one in enumerate(masks):
            for m, other in enumerate(masks):
                pair = rle_iou([one], [other], [crowd])
                assert pair.shape == (1, 1)
                assert pair[0, 0] == all_pairs[n, m]
                assert pair[0, 0] == coco.iou([one.to_coco()], [other.to_coco()], [crowd])[0, 0]


def test_more_bits_than_are_held_at_once() -> None:
    # 3 masks of 1.1 million words each: two rounds of 2^21 words. Stripes, so that bits pay.
    mask = torch.zeros(64, 1_100_000).bool()
    mask[::8] = True
    rles = [encode_rle(mask), encode_rle(~mask), encode_rle(torch.ones_like(mask))]
    expected = [[1, 0, 1 / 8], [0, 1, 7 / 8], [1 / 8, 7 / 8, 1]]
    assert rle_iou(rles, rles).tolist() == expected


def test_boxes_and_areas_of_no_and_of_empty_masks() -> None:
    assert rle_boxes_xyxy([]).shape == (0, 4)
    assert rle_areas([]).tolist() == []
    empty = Rle((4, 5), np.array([20], np.int32))
    assert rle_boxes_xyxy([empty]).tolist() == [[0, 0, 0, 0]]
    assert rle_areas([empty, encode_rle(torch.ones(2, 2).bool())]).tolist() == [0, 4]
    with pytest.raises(RecordError, match="as the first"):
        rle_boxes_xyxy([empty, encode_rle(torch.ones(2, 2).bool())])


def test_a_mask_without_pixels() -> None:
    for shape in ((0, 3), (3, 0), (0, 0)):
        rle = encode_rle(torch.zeros(shape).bool())
        assert rle.counts.tolist() == [0]
        assert rle.decode().shape == shape
        assert rle.area() == 0
