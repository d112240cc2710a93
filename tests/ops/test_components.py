import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bestiary.errors import RecordError
from bestiary.ops.components import Components, connected_components


def flooded(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Numbers by flooding from each pixel that has none, row by row."""
    order = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[connectivity]
    steps = [s for s in np.ndindex(*[3] * mask.ndim) if 0 < sum(abs(k - 1) for k in s) <= order]
    labels, count = np.zeros(mask.shape, int), 0
    for start in np.ndindex(*mask.shape):
        if not mask[start] or labels[start]:
            continue
        count += 1
        labels[start], stack = count, [start]
        while stack:
            here = stack.pop()
            for step in steps:
                there = tuple(h + s - 1 for h, s in zip(here, step, strict=True))
                inside = all(0 <= t < n for t, n in zip(there, mask.shape, strict=True))
                if inside and mask[there] and not labels[there]:
                    labels[there] = count
                    stack.append(there)
    return labels


def check(mask: np.ndarray, connectivity: int) -> Components:
    got = connected_components(torch.from_numpy(mask), connectivity)
    assert np.array_equal(got.label_map.numpy(), flooded(mask, connectivity))
    assert len(got) == got.label_map.max()
    for i in range(len(got)):
        places = np.argwhere(got.label_map.numpy() == i + 1)[:, ::-1]
        assert got.areas[i] == len(places)
        assert got.boxes_xyxy[i].tolist() == [*places.min(0), *(places.max(0) + 1)]
        np.testing.assert_allclose(got.centroids[i].numpy(), places.mean(0) + 0.5, rtol=1e-12)
    return got


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.1, 0.4, 0.6, 1]), st.integers(0, 999))
def test_pictures_equal_flooding(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    for connectivity in (4, 8):
        check(mask, connectivity)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_volumes_equal_flooding(connectivity: int, share: float) -> None:
    check(np.random.default_rng(1).random((4, 5, 6)) < share, connectivity)


def test_large_pictures_keep_the_order_of_first_pixels_and_equal_scipy() -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(2).random((400, 500)), 2) > 0.5
    got = connected_components(torch.from_numpy(mask), 8)
    theirs, count = ndimage.label(mask, np.ones((3, 3)))
    assert len(got) == count
    first = [int(np.flatnonzero(got.label_map.numpy() == i + 1)[0]) for i in range(count)]
    assert first == sorted(first)
    assert len(np.unique(got.label_map.numpy().astype(np.int64) * (count + 1) + theirs)) == count + 1


def test_a_diagonal_is_one_part_of_eight_neighbours_and_many_of_four() -> None:
    mask = torch.eye(3).bool()
    assert connected_components(mask).areas.tolist() == [3]
    four = connected_components(mask, 4)
    assert four.areas.tolist() == [1, 1, 1]
    assert four.centroids.tolist() == [[0.5, 0.5], [1.5, 1.5], [2.5, 2.5]]


def test_nothing() -> None:
    for shape in ((3, 4), (0, 4), (2, 3, 4)):
        got = connected_components(torch.zeros(shape).bool(), 8 if len(shape) == 2 else 6)
        assert len(got) == 0
        assert got.boxes_xyxy.shape == (0, 2 * len(shape))
        assert got.label_map.shape == shape


@pytest.mark.usefixtures("unchecked")
def test_bad_wishes_are_named() -> None:
    with pytest.raises(RecordError, match=r"one of \(4, 8\)"):
        connected_components(torch.zeros(2, 2).bool(), 6)
    with pytest.raises(RecordError, match=r"\(H, W\) or \(D, H, W\)"):
        connected_components(torch.zeros(2).bool())
