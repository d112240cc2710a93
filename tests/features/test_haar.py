"""The number of features, their values against sums over pixels, and what they are blind to."""

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.haar import (
    KINDS,
    corner_table,
    enumerate_haar,
    haar_values,
    normalised_integrals,
)


def test_a_window_of_24_x_24_has_162336_features() -> None:
    features = enumerate_haar((24, 24))
    assert torch.bincount(features[:, 0]).tolist() == [43_200, 43_200, 27_600, 27_600, 20_736]
    assert len(features.unique(dim=0)) == 162_336
    kind, x, y, width, height = features.unbind(1)
    across = torch.tensor([len(cells[0]) for cells in KINDS])[kind]
    down = torch.tensor([len(cells) for cells in KINDS])[kind]
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert int((x + across * width).max()) == int((y + down * height).max()) == 24


def test_other_windows_are_counted_by_brute_force() -> None:
    count = 0
    for cells in KINDS:
        for h in range(1, 8):
            for w in range(1, 6):
                rows, columns = 7 - len(cells) * h + 1, 5 - len(cells[0]) * w + 1
                count += max(0, rows) * max(0, columns)
    assert len(enumerate_haar((7, 5))) == count
    with pytest.raises(RecordError, match="3 x 3"):
        enumerate_haar((2, 9))


def windows(count: int = 7, height: int = 9, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, height, width)).astype(np.float32)


def test_values_are_signed_sums_of_the_cells_pixels() -> None:
    pictures = windows()
    features = enumerate_haar((9, 8)).numpy()[::17]
    values = haar_values(normalised_integrals(pictures), features, (9, 8))
    exact = pictures.astype(np.float64)
    exact = (exact - exact.mean((1, 2), keepdims=True)) / exact.std((1, 2), keepdims=True)
    for (kind, x, y, w, h), row in zip(features, values, strict=True):
        expected = np.zeros(len(pictures))
        for i, signs in enumerate(KINDS[kind]):
            for j, sign in enumerate(signs):
                expected += sign * exact[:, y + i * h : y + (i + 1) * h, x + j * w : x + (j + 1) * w].sum((1, 2))
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_brightness_and_contrast_do_not_matter() -> None:
    features = enumerate_haar((9, 8)).numpy()
    plain, changed = (haar_values(normalised_integrals(w), features, (9, 8)) for w in (windows(), windows() * 0.5 + 40))
    np.testing.assert_allclose(changed, plain, atol=2e-3)
    flat = np.full((1, 9, 8), 93, np.float32)
    assert np.abs(haar_values(normalised_integrals(flat), features, (9, 8))).max() == 0


@pytest.mark.parametrize("scale", [1, 1.25, 1.9, 3])
def test_corners_at_any_scale_see_no_brightness_and_whole_cells(scale: float) -> None:
    """Over a constant picture the integral image is x y, and every feature is 0. Over a ramp a feature is what it is at
    scale 1, as near as rounding goes.
    """
    features = enumerate_haar((12, 10)).numpy()
    places, shares = corner_table(features, scale)
    y, x = places[..., 0].astype(float), places[..., 1].astype(float)
    np.testing.assert_allclose((shares * y * x).sum(1), 0, atol=1e-9)
    assert places[..., 0].max() <= 12 * scale + 0.5
    assert places[..., 1].max() <= 10 * scale + 0.5
    at_one, ones = corner_table(features, 1)
    first = (ones * at_one[..., 0] * at_one[..., 1] ** 2 / 2).sum(1)
    now = (shares * y * x**2 / (2 * scale)).sum(1)
    # Each of up to four cells moves by half a pixel at most; at whole scales none does.
    moved = 0 if scale in (1, 3) else 4 * 0.5 / scale
    assert (np.abs(now - first) <= moved * features[:, 3] * features[:, 4] + 1e-9).all()
