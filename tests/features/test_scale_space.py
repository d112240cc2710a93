"""Levels of a scale space against Gaussians made another way."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from bestiary.features.scale_space import blur, scale_space


@pytest.mark.parametrize("shape", [(300, 40), (7, 50), (1, 1), (2, 90)])
@pytest.mark.parametrize("sigma", [0.6, 3.1])
def test_blur_is_a_gaussian_whatever_the_bands(shape: tuple[int, int], sigma: float) -> None:
    grey = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        blurred = blur(grey, sigma)
    finally:
        torch.set_num_threads(threads)
    reach = (round(8 * sigma + 1) | 1) // 2
    wanted = ndimage.gaussian_filter(grey.astype(np.float64), sigma, mode="mirror", radius=reach)
    assert np.abs(blurred - wanted).max() < 1e-3


def test_levels_have_the_blur_and_place_that_they_are_said_to_have() -> None:
    """A small Gaussian spot: its variance in each level is the spot's and the level's, its mean stays."""
    rows, columns = np.mgrid[0:96, 0:120] + 0.5
    x, y, spot = 61.7, 45.2, 1.5
    grey = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spot**2)).astype(np.float32)
    for doubled in (True, False):
        octaves = scale_space(grey, 3, 1.6, doubled)
        assert [octave.number for octave in octaves] == list(
            range(-1 if doubled else 0, len(octaves) - (doubled is True))
        )
        for octave in octaves[:3]:
            for i in range(4):
                level = octave.levels[i].astype(np.float64)
                c = np.arange(level.shape[1]) * octave.step + octave.offset
                share = level.sum(0) / level.sum()
                mean = (share * c).sum()
                sigma = 1.6 * 2 ** (i / 3) * octave.step
                variance = (share * (c - mean) ** 2).sum()
                assert mean == pytest.approx(x, abs=0.02)
                # The picture is taken to have a blur of half a pixel; samples a quarter off a pixel are mixed 3 : 1.
                mixing = 3 / 16 if doubled else 0
                assert variance == pytest.approx(spot**2 - 0.25 + mixing + sigma**2, rel=0.01)


def test_octaves_end_where_nothing_more_can_be_found() -> None:
    shapes = [octave.levels.shape for octave in scale_space(np.zeros((50, 70), np.float32))]
    assert shapes == [(6, 100, 140), (6, 50, 70), (6, 25, 35), (6, 12, 17)]
    assert [octave.levels.shape for octave in scale_space(np.zeros((2, 90), np.float32), 2)] == [(5, 4, 180)]
