import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from bestiary.errors import RecordError, UsageError
from bestiary.ops.components import connected_components
from bestiary.ops.distance import border_weights
from bestiary.records import Objects, Sample, Target
from bestiary.transforms.border_weights import BorderWeights, class_balance

RNG = np.random.default_rng(0)


def sample(labels: np.ndarray, masks: np.ndarray | None = None) -> Sample:
    objects = None
    if masks is not None:
        n = len(masks)
        objects = Objects(torch.zeros(n, 4), torch.zeros(n, dtype=torch.int64), masks=torch.from_numpy(masks))
    size = (int(labels.shape[0]), int(labels.shape[1]))
    target = Target(label_map=torch.from_numpy(labels), objects=objects)
    return Sample(torch.zeros(3, *size, dtype=torch.uint8), target, "cells.png", size)


def discs(gap: int = 6, radius: int = 12, height: int = 61, width: int = 90) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    left, right = width // 2 - gap // 2 - radius, width // 2 + gap - gap // 2 + radius
    middle = height // 2
    found = np.zeros((height, width), np.uint8)
    for centre in (left, right):
        found[(y - middle) ** 2 + (x - centre) ** 2 <= radius**2] = 1
    return found


def border_term(cells: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    return border_weights(torch.from_numpy(cells), w0, sigma).numpy()


def label_cells(foreground: np.ndarray) -> np.ndarray:
    return connected_components(torch.from_numpy(foreground), connectivity=4).label_map.numpy()


def naive_term(cells: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    numbers = [n for n in np.unique(cells) if n]
    if len(numbers) < 2:
        return np.zeros(cells.shape)
    distances = np.sort([ndimage.distance_transform_edt(cells != n) for n in numbers], axis=0)
    term = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return np.where(cells > 0, 0, term)


def test_two_discs_in_closed_form() -> None:
    radius, gap = 12, 6
    labels = discs(gap, radius)
    term = border_term(label_cells(labels == 1), 10.0, 5.0)
    middle = labels.shape[0] // 2
    between = np.flatnonzero(labels[middle] == 0)
    inside = between[(between > np.flatnonzero(labels[middle])[0]) & (between < np.flatnonzero(labels[middle])[-1])]
    # between the discs d1 + d2 is the distance of their facing pixels, wherever one stands
    assert np.allclose(term[middle, inside], 10 * math.exp(-((len(inside) + 1) ** 2) / 50), rtol=1e-12)
    # at other places: distances to the centres less the radius, as far as the pixels resolve the circle
    left, right = 45 - 3 - 12, 45 + 3 + 12
    for y, x in ((5, 45), (55, 40), (middle, 74)):
        sums = math.hypot(y - middle, x - left) + math.hypot(y - middle, x - right) - 2 * radius
        got = math.sqrt(-50 * math.log(term[y, x] / 10))
        assert abs(got - sums) < 1.0


@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_many_cells_equal_the_naive_term(sigma: float) -> None:
    rng = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(rng.standard_normal((120, 150)), 3) > 0.05
    cells = label_cells(blobs)
    assert cells.max() > 15
    assert np.abs(border_term(cells, 10.0, sigma) - naive_term(cells, 10.0, sigma)).max() < 1e-9


def test_no_border_without_a_second_cell() -> None:
    assert (border_term(np.zeros((9, 9), np.int32)) == 0).all()
    one = np.zeros((9, 9), np.int32)
    one[2:4, 2:4] = 1
    assert (border_term(one) == 0).all()
    far = np.zeros((5, 300), np.int32)
    far[2, 0], far[2, -1] = 1, 2
    assert border_term(far).max() == 0


def test_diagonal_neighbours_are_two_cells() -> None:
    assert label_cells(np.array([[True, False], [False, True]])).tolist() == [[1, 0], [0, 2]]


def test_balance_of_a_picture_has_mean_one_over_the_labelled_pixels() -> None:
    labels = np.array([[0, 0, 0, 1], [2, 2, 255, 255]], np.uint8)
    weights = class_balance(labels)
    assert np.allclose(weights, [[6 / 9, 6 / 9, 6 / 9, 2], [1, 1, 0, 0]])
    assert math.isclose(weights[labels != 255].mean(), 1)


def test_given_class_weights_are_used_and_must_cover_the_labels() -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    assert class_balance(labels, (0.5, 3.0)).tolist() == [[0.5, 3.0, 0.0]]
    with pytest.raises(RecordError, match="label 2, wanted one of 2"):
        class_balance(np.array([[2]], np.uint8), (1.0, 1.0))


def test_transform_adds_both_terms_and_nothing_else() -> None:
    labels = discs()
    before = sample(labels)
    after = BorderWeights(class_weights=(1.0, 1.0))(before, RNG)
    assert after.target.weight_map is not None
    expected = 1 + border_term(label_cells(labels == 1))
    assert np.allclose(after.target.weight_map.numpy(), expected)
    assert after.image is before.image
    assert after.target.label_map is before.target.label_map
    assert before.target.weight_map is None
    assert expected.max() > 4


def test_object_masks_separate_cells_that_touch_in_the_label_map() -> None:
    labels = np.ones((9, 20), np.uint8)
    labels[:, 9:11] = 0
    labels[4, 9:11] = 1  # a bridge makes one component of both
    masks = np.zeros((2, 9, 20), bool)
    masks[0, :, :9] = masks[1, :, 11:] = True
    flat = BorderWeights(class_weights=(1.0, 1.0))
    joined = flat(sample(labels), RNG).target.weight_map
    split = flat(sample(labels, masks), RNG).target.weight_map
    assert joined is not None
    assert split is not None
    assert joined.max() == 1
    assert math.isclose(float(split[0, 9]), 1 + 10 * math.exp(-9 / 50), rel_tol=1e-6)


def test_what_cannot_be_weighed_is_refused() -> None:
    with pytest.raises(RecordError, match=r"cells.png: target.label_map"):
        BorderWeights()(Sample(torch.zeros(3, 2, 2), Target(), "cells.png", (2, 2)), RNG)
    for bad in ({"sigma": 0.0}, {"w0": -1.0}):
        with pytest.raises(UsageError, match="wanted w0 >= 0 and sigma > 0"):
            BorderWeights(**bad)
