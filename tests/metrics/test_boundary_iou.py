"""Boundary IoU against its definition, class by class, and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.boundary_iou import BoundaryIouScores, boundary_band, boundary_iou_counts
from bestiary.predictions import Segmentation
from bestiary.records import Target


def patches(seed: int, size_hw: tuple[int, int] = (60, 83), classes: int = 4) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, classes, (6, 8), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 11), np.uint8))[: size_hw[0], : size_hw[1]]


def slow_band(mask: np.ndarray, reach: int) -> np.ndarray:
    """Erosion by a 3x3 square, step by step, with nothing around the picture: as the paper's own program does it."""
    padded = np.pad(mask, 1)
    for _ in range(reach):
        padded = binary_erosion(padded, np.ones((3, 3)), border_value=1)
    return mask & ~padded[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.01, 0.02, 0.06])
def test_counts_equal_erosion_class_by_class(seed: int, share: float) -> None:
    truth, said = patches(seed), np.roll(patches(seed), (2, 3), (0, 1))
    reach = max(1, round(share * math.hypot(*truth.shape)))
    counts = boundary_iou_counts(truth, said, 4, share)
    for k in range(4):
        a, b = slow_band(truth == k, reach), slow_band(said == k, reach)
        assert counts[k].tolist() == [int((a & b).sum()), int((a | b).sum())]


def test_unknown_pixels_are_in_no_band_and_make_none() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 255
    assert boundary_band(truth, truth != 255, 0.02).sum() == 40 * 40 - 38 * 38
    said = np.zeros((40, 40), np.uint8)
    said[15:25, 15:25] = 1  # where nothing is known
    assert boundary_iou_counts(truth, said, 2).tolist() == [[156, 156], [0, 0]]


def test_a_small_picture_is_band_throughout() -> None:
    labels = np.zeros((2, 90), np.uint8)
    assert boundary_band(labels, np.ones_like(labels, bool), 0.02).all()
    assert boundary_iou_counts(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 1).tolist() == [[1, 1]]


def scored(*pairs: tuple[np.ndarray, np.ndarray]) -> BoundaryIouScores:
    scores = BoundaryIouScores([f"c{k}" for k in range(5)])
    for truth, said in pairs:
        label_map = torch.from_numpy(said.copy())
        size_hw = (said.shape[0], said.shape[1])
        scores.update([Segmentation(label_map, size_hw)], [Target(label_map=torch.from_numpy(truth.copy()))])
    return scores


def test_the_same_is_one_a_shift_is_less_and_absent_classes_do_not_count() -> None:
    same = scored((patches(0), patches(0))).compute()
    assert same.value == 1.0
    assert math.isnan(same.per_class["c4"]["boundary_iou"])
    shifted = scored((patches(0), np.roll(patches(0), 1, 1))).compute()
    assert 0.3 < shifted.value < 0.9
    assert "2 % of the diagonal" in shifted.protocol


def test_pictures_are_added_before_they_are_divided_and_halves_merge() -> None:
    pairs = [(patches(s), np.roll(patches(s), s, 0)) for s in range(3)]
    whole, merged = scored(*pairs), scored(pairs[0])
    merged.merge(scored(*pairs[1:]))
    assert merged.compute().to_dict() == whole.compute().to_dict()
    table = sum(boundary_iou_counts(a, b, 5) for a, b in pairs)[:4]
    assert whole.compute().value == pytest.approx((table[:, 0] / table[:, 1]).mean(), abs=1e-12)


def test_bad_input_is_named() -> None:
    with pytest.raises(RecordError, match="label 3 in the prediction"):
        boundary_iou_counts(np.zeros((4, 4), np.uint8), np.full((4, 4), 3, np.uint8), 2)
    with pytest.raises(RecordError, match="size"):
        boundary_iou_counts(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
    with pytest.raises(UsageError, match="share"):
        BoundaryIouScores(["a"], share=2)
    with pytest.raises(UsageError, match="merge"):
        BoundaryIouScores(["a"]).merge(BoundaryIouScores(["b"]))
