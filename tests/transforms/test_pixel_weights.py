"""Weights at the borders of classes, and by the size of regions."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.records import Objects, Sample, Target
from bestiary.transforms.edge_weights import EdgeWeights, label_edges
from bestiary.transforms.size_weights import SizeWeights

RNG = np.random.default_rng(0)


def sample(label_map: Tensor | None = None, masks: Tensor | None = None, weights: Tensor | None = None) -> Sample:
    objects = None
    if masks is not None:
        objects = Objects(torch.zeros(len(masks), 4), torch.zeros(len(masks), dtype=torch.int64), masks=masks)
    shape = label_map.shape if label_map is not None else masks.shape[-2:] if masks is not None else (4, 5)
    size_hw = (int(shape[0]), int(shape[1]))
    target = Target(objects=objects, label_map=label_map, weight_map=weights)
    return Sample(torch.zeros(3, *size_hw), target, "x.png", size_hw)


def weights_of(transform: EdgeWeights | SizeWeights, given: Sample) -> Tensor:
    found = transform(given, RNG).target.weight_map
    assert found is not None
    return found


def rows(*texts: str) -> Tensor:
    """A label map written as digits; `.` is unknown."""
    return torch.tensor([[255 if c == "." else int(c) for c in text] for text in texts], dtype=torch.uint8)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_edges_are_known_pixels_near_another_known_label(width: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(1).choice([0, 0, 0, 0, 0, 1, 7, 255], (13, 17)).astype(np.uint8))
    labels[:, 9:] = torch.where(labels[:, 9:] == 1, 0, labels[:, 9:])
    wanted = torch.zeros(labels.shape, dtype=torch.bool)
    for y, x in itertools.product(range(13), range(17)):
        near = labels[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        near = near[near != 255]
        wanted[y, x] = bool(labels[y, x] != 255) and bool((near != labels[y, x]).any())
    assert torch.equal(label_edges(labels, width), wanted)
    assert 0 < int(wanted.sum()) < wanted.numel()


def test_the_band_is_added_to_what_is_there() -> None:
    labels = rows("000111", "000111")
    assert weights_of(EdgeWeights(4.0, 1), sample(labels)).tolist() == [[1, 1, 5, 5, 1, 1]] * 2
    before = torch.full((2, 6), 2.0)
    assert weights_of(EdgeWeights(4.0, 2), sample(labels, weights=before)).tolist() == [[2, 6, 6, 6, 6, 2]] * 2
    assert before.unique().tolist() == [2.0], "the given sample stays"


def test_a_border_with_the_unknown_or_of_the_picture_is_none() -> None:
    assert not label_edges(rows("00..", "00.."), 3).any()
    assert label_edges(rows("00.1"), 3).tolist() == [[True, True, False, True]]


def test_masks_have_edges_where_there_is_no_label_map() -> None:
    masks = torch.zeros(2, 1, 8, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 2:7] = True, True
    wanted = [[1, 3, 3, 3, 3, 1, 3, 3]]
    assert weights_of(EdgeWeights(2.0, 1), sample(masks=masks)).tolist() == wanted


def test_each_region_counts_alike() -> None:
    labels = rows("00011", "00011", "10000", "00.00")
    found = weights_of(SizeWeights(limit=100), sample(labels))
    known = labels != 255
    assert float(found[known].mean()) == pytest.approx(1.0)
    assert float(found[2, 0]) == pytest.approx(19 / 3)  # a speck, a block of four, the ground of 14
    assert float(found[:2, 3:].sum()) == pytest.approx(19 / 3)
    assert float(found[(labels == 0)].sum()) == pytest.approx(19 / 3)
    assert float(weights_of(SizeWeights(limit=2), sample(labels))[2, 0]) == 2


def test_diagonal_neighbours_are_one_region() -> None:
    found = weights_of(SizeWeights(100), sample(rows("100", "010", "000")))
    assert found.unique().tolist() == pytest.approx([9 / 14, 9 / 4])


def test_a_mask_is_a_region_and_the_smallest_counts() -> None:
    masks = torch.zeros(2, 1, 10, dtype=torch.bool)
    masks[0, :, :6], masks[1, :, 4:6] = True, True
    found = weights_of(SizeWeights(100), sample(masks=masks))[0]
    pixels = 6 + 2 + 4  # with the rest
    assert found.tolist() == pytest.approx([pixels / (3 * 6)] * 4 + [pixels / (3 * 2)] * 2 + [pixels / (3 * 4)] * 4)
    nothing = weights_of(SizeWeights(), sample(masks=torch.zeros(0, 2, 3, dtype=torch.bool)))
    assert nothing.tolist() == [[1.0] * 3] * 2


def test_sizes_multiply_what_is_there_and_nothing_labelled_is_one() -> None:
    labels = rows("01")
    assert weights_of(SizeWeights(), sample(labels, weights=torch.tensor([[3.0, 5.0]]))).tolist() == [[3, 5]]
    assert weights_of(SizeWeights(), sample(rows("..", ".."))).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("transform", [EdgeWeights(), SizeWeights()])
def test_some_truth_of_pixels_is_demanded(transform: EdgeWeights | SizeWeights) -> None:
    with pytest.raises(RecordError, match=r"x\.png: target: got neither a label map nor masks"):
        transform(sample(), RNG)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: EdgeWeights(-1.0), "EdgeWeights"),
    (lambda: EdgeWeights(1.0, 0), "at least 1 pixel"),
    (lambda: SizeWeights(0.0), "SizeWeights"),
])  # fmt: skip
def test_what_cannot_be_is_named(make, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
