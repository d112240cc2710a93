import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.boundary import BoundaryScores, boundary_counts, boundary_f, davis_boundary_f
from bestiary.predictions import Segmentation
from bestiary.records import Target


def naive(truth: np.ndarray, said: np.ndarray, classes: int, reach: float, ignore: int = 255) -> np.ndarray:
    """All pairs of boundary pixels."""

    def outline(labels: np.ndarray, label: int) -> list[tuple[int, int]]:
        found = []
        for y, x in np.argwhere((labels == label) & (truth != ignore)).tolist():
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]
                if inside and truth[v, u] != ignore and labels[v, u] != label:
                    found.append((y, x))
                    break
        return found

    rows = []
    for label in range(classes):
        a, b = outline(said, label), outline(truth, label)
        near = [sum(any(math.dist(p, q) < reach for q in them) for p in us) for us, them in ((a, b), (b, a))]
        rows.append([near[0], len(a), near[1], len(b)])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(8))
def test_counts_equal_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.zoom(rng.random((2, 5, 6)), (1, 4, 4), order=1)
    truth, said = (smooth * 3).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.05] = 255
    for tolerance in (1, 1.5, 2, 3):
        assert np.array_equal(boundary_counts(truth, said, 3, tolerance), naive(truth, said, 3, tolerance))


def square(left: int, right: int, size: int = 20) -> np.ndarray:
    labels = np.zeros((size, size), np.uint8)
    labels[:, left:right] = 1
    return labels


def test_worked_by_hand_at_the_threshold() -> None:
    truth, said = square(5, 15), square(7, 15)
    # Class 1: columns 5 and 14 against 7 and 14, two apart; class 0: 4 and 15 against 6 and 15.
    assert boundary_counts(truth, said, 2, tolerance=2).tolist() == [[20, 40, 20, 40]] * 2, "two apart is not below two"
    assert boundary_counts(truth, said, 2, tolerance=2.001).tolist() == [[40, 40, 40, 40]] * 2
    assert boundary_f(boundary_counts(truth, said, 2, 2)).tolist() == [[0.5, 0.5, 0.5]] * 2
    # A share of the diagonal: 2 / hypot(20, 20) is about 0.0707.
    assert boundary_counts(truth, said, 2, tolerance=0.0706)[1, 0] == 20
    assert boundary_counts(truth, said, 2, tolerance=0.0708)[1, 0] == 40


def test_the_pictures_border_and_unknown_pixels_are_no_boundary() -> None:
    flat = np.zeros((6, 6), np.uint8)
    assert boundary_counts(flat, flat, 2).sum() == 0
    assert np.isnan(boundary_f(boundary_counts(flat, flat, 2))).all()
    truth = square(3, 6, 6)
    truth[:, 2:4] = 255
    assert boundary_counts(truth, truth, 2).sum() == 0, "the classes meet only where nothing is known"
    assert boundary_counts(truth, square(3, 6, 6), 2)[:, :2].sum() == 0


def test_a_boundary_in_one_map_alone_scores_nothing() -> None:
    numbers = boundary_f(boundary_counts(np.zeros((8, 8), np.uint8), square(2, 5, 8), 3, 2))
    assert numbers[:, 2].tolist()[:2] == [0, 0]
    assert np.isnan(numbers[2]).all()
    assert numbers[0, 0] == 0
    assert math.isnan(numbers[0, 1])


def said(labels: np.ndarray, name: str = "") -> Segmentation:
    return Segmentation(torch.from_numpy(labels), tuple(labels.shape), name=name)


def target(labels: np.ndarray) -> Target:
    return Target(label_map=torch.from_numpy(labels))


def test_the_data_sets_number_is_the_mean_over_pictures() -> None:
    scores = BoundaryScores(["out", "in", "never"], tolerance=2)
    truths = [square(5, 15), square(5, 15), np.zeros((4, 4), np.uint8)]
    scores.update([said(square(5, 15)), said(square(7, 15)), said(truths[2])], [target(t) for t in truths])
    found = scores.compute()
    assert found.value == pytest.approx((1 + 0.5) / 2)
    assert found.per_class["in"]["boundary_f"] == pytest.approx(0.75)
    assert math.isnan(found.per_class["never"]["boundary_f"])
    assert found.values["boundary_f_classes"] == pytest.approx(0.75)
    assert "2 pixels" in found.protocol
    assert "over 2 pictures" in found.protocol


def test_averages_run_over_the_chosen_classes() -> None:
    truth, found = square(5, 15), square(5, 15)
    found[:2, :3] = 2
    scores = [BoundaryScores(["a", "b", "c"], 1.5, averaged=chosen) for chosen in (["b"], None)]
    for one in scores:
        one.update([said(found)], [target(truth)])
    assert scores[0].compute().value == 1
    assert scores[1].compute().value < 1
    with pytest.raises(UsageError, match="'d'"):
        BoundaryScores(["a"], averaged=["d"])


def test_halves_merge_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    whole, left, right = (BoundaryScores(["a", "b"]) for _ in range(3))
    for i in range(4):
        pair = [rng.integers(0, 2, (9, 9), np.uint8) for _ in range(2)]
        for scores in (whole, left if i < 2 else right):
            scores.update([said(pair[0])], [target(pair[1])])
    left.merge(right)
    assert left.compute().values == pytest.approx(whole.compute().values)
    with pytest.raises(UsageError, match="tolerance"):
        left.merge(BoundaryScores(["a", "b"], 3))


def test_bad_input_is_named() -> None:
    scores = BoundaryScores(["a", "b"])
    with pytest.raises(RecordError, match=r"cat\.png, label_map: got label 7 in the prediction"):
        scores.update([said(np.full((2, 2), 7, np.uint8), "cat.png")], [target(np.zeros((2, 2), np.uint8))])
    with pytest.raises(UsageError, match="tolerance"):
        BoundaryScores(["a"], tolerance=0)


def davis_naive(truth: np.ndarray, found: np.ndarray, radius: int) -> float:
    """The benchmark's own way: dilate by a disc and count."""

    def edges(mask: np.ndarray) -> np.ndarray:
        east, south, corner = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
        east[:, :-1], south[:-1], corner[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        b = mask ^ east | mask ^ south | mask ^ corner
        b[-1], b[:, -1] = mask[-1] ^ east[-1], mask[:, -1] ^ south[:, -1]
        b[-1, -1] = False
        return b

    grid = np.arange(-radius, radius + 1)
    disc = grid[:, None] ** 2 + grid[None] ** 2 <= radius**2
    a, b = edges(found), edges(truth)
    if not a.any() and not b.any():
        return 1.0
    if not a.any() or not b.any():
        return 0.0
    precision = (a & ndimage.binary_dilation(b, disc)).sum() / a.sum()
    recall = (b & ndimage.binary_dilation(a, disc)).sum() / b.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_davis_equals_its_own_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = ndimage.zoom(rng.random((2, 6, 7)), (1, 8, 8), order=1) > 0.5
    diagonal = math.hypot(*truth.shape)
    assert davis_boundary_f(truth, found) == pytest.approx(davis_naive(truth, found, math.ceil(0.008 * diagonal)))
    assert davis_boundary_f(truth, found, 3) == pytest.approx(davis_naive(truth, found, 3))


def test_davis_on_empty_objects() -> None:
    nothing, something = np.zeros((9, 9), bool), square(3, 6, 9).astype(bool)
    assert davis_boundary_f(nothing, nothing) == 1
    assert davis_boundary_f(something, nothing) == davis_boundary_f(nothing, something) == 0
    with pytest.raises(RecordError, match="size"):
        davis_boundary_f(nothing, nothing[:4])
