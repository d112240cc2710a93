"""The 32 features against a loop that follows their definition, what they must not depend on, and the pyramid."""

import math

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.dpm_hog import (
    CHANNELS,
    MIRRORED,
    OUTSIDE,
    bordered,
    dpm_features,
    edges_of,
    feature_pyramid,
    features_of_edges,
    level_scale,
    mirrored_features,
    number_of_levels,
)


def photograph(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth colour with texture: no two directions are equally good anywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 7, generator=generator) * 200
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (smooth + 25 * torch.rand(3, height, width, generator=generator)).clamp(0, 255)


def naive(image: np.ndarray, cell: int) -> np.ndarray:
    """One pixel, one cell, one number at a time, in double precision."""
    _, height, width = image.shape
    rows, columns = math.floor(height / cell + 0.5), math.floor(width / cell + 0.5)
    histogram = np.zeros((rows, columns, 18))
    for y in range(1, rows * cell - 1):
        for x in range(1, columns * cell - 1):
            v, u = min(y, height - 2), min(x, width - 2)
            gradients = [(p[v, u + 1] - p[v, u - 1], p[v + 1, u] - p[v - 1, u]) for p in image]
            dx, dy = max(gradients, key=lambda g: g[0] ** 2 + g[1] ** 2)
            dots = [math.cos(o * math.pi / 9) * dx + math.sin(o * math.pi / 9) * dy for o in range(18)]
            direction, length = int(np.argmax(dots)), math.hypot(dx, dy)
            for j in range(rows):
                for i in range(columns):
                    near_y = 1 - abs((y + 0.5) / cell - (j + 0.5))
                    near_x = 1 - abs((x + 0.5) / cell - (i + 0.5))
                    if near_x > 0 and near_y > 0:
                        histogram[j, i, direction] += length * near_x * near_y
    energy = ((histogram[..., :9] + histogram[..., 9:]) ** 2).sum(-1)
    found = np.zeros((CHANNELS, rows - 2, columns - 2))
    for j in range(1, rows - 1):
        for i in range(1, columns - 1):
            for number, (top, left) in enumerate([(j, i), (j - 1, i), (j, i - 1), (j - 1, i - 1)]):
                length = math.sqrt(energy[top : top + 2, left : left + 2].sum() + 1e-4)
                signed = np.minimum(histogram[j, i] / length, 0.2)
                unsigned = np.minimum((histogram[j, i, :9] + histogram[j, i, 9:]) / length, 0.2)
                found[:18, j - 1, i - 1] += signed / 2
                found[18:27, j - 1, i - 1] += unsigned / 2
                found[27 + number, j - 1, i - 1] = 0.2357 * signed.sum()
    return found


@pytest.mark.parametrize(("cell", "size"), [(8, (37, 44)), (4, (22, 19)), (2, (11, 12))])
def test_they_equal_the_loop(cell: int, size: tuple[int, int]) -> None:
    """Also where cells reach beyond the picture (37 / 8 rounds up) and where pixels are left over."""
    image = photograph(*size)
    found = dpm_features(image, cell)
    np.testing.assert_allclose(found.numpy(), naive(image.double().numpy(), cell), atol=2e-5)
    assert found.shape[1:] == tuple(math.floor(side / cell + 0.5) - 2 for side in size)


def test_threads_change_nothing() -> None:
    image, before = photograph(150, 170), torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(dpm_features(image))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_flat_picture_is_zero_and_light_changes_nothing() -> None:
    assert not dpm_features(torch.full((3, 48, 48), 200.0)).any()
    image = photograph(64, 72)
    torch.testing.assert_close(dpm_features(image), dpm_features(0.5 * image + 40), atol=1e-4, rtol=0)


def test_a_vertical_edge_votes_for_its_direction() -> None:
    image = torch.zeros(3, 48, 48)
    image[1, :, 24:] = 90  # in one channel alone: the strongest counts
    signed = dpm_features(image)[:18].sum((1, 2))
    assert int(signed.argmax()) == 0
    assert float(signed[1:].max()) == 0
    dark = dpm_features(255 - image)
    assert int(dark[:18].sum((1, 2)).argmax()) == 9
    torch.testing.assert_close(dark[18:], dpm_features(image)[18:])


def test_a_mirror_reorders_the_features() -> None:
    image = photograph(56, 64)
    torch.testing.assert_close(mirrored_features(dpm_features(image)), dpm_features(image.flip(-1)), atol=1e-5, rtol=0)
    assert sorted(MIRRORED) == list(range(CHANNELS))
    assert [MIRRORED[i] for i in MIRRORED] == list(range(CHANNELS))


def test_bytes_and_floats_are_the_same_picture() -> None:
    image = torch.randint(256, (3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(dpm_features(image), dpm_features(image.double()))


@pytest.mark.parametrize("size", [(1, 1), (2, 30), (15, 40), (19, 19)])
def test_pictures_without_inner_cells_have_no_features(size: tuple[int, int]) -> None:
    found = dpm_features(torch.rand(3, *size) * 255)
    assert found.shape == (CHANNELS, *(max(0, math.floor(side / 8 + 0.5) - 2) for side in size))
    assert not found.numel()


def test_outside_is_said_by_one_feature_alone() -> None:
    wide = bordered(torch.rand(CHANNELS, 3, 4), 1, 2, 3, 0)
    assert wide.shape == (CHANNELS, 7, 6)
    inside = torch.zeros(7, 6, dtype=torch.bool)
    inside[1:4, 2:] = True
    assert (wide[OUTSIDE][~inside] == 1).all()
    assert not wide[:OUTSIDE, ~inside].any()
    none = bordered(torch.zeros(CHANNELS, 2, 2), 0, 0, 0, 0)
    assert not none.any()


def test_a_pair_is_one_octave_apart_and_covers_the_picture() -> None:
    image = photograph(130, 170)
    pairs = feature_pyramid(image, per_octave=3)
    assert len(pairs) == number_of_levels((130, 170), 3) == 1 + math.floor(3 * math.log2(130 / 40))
    for pair in pairs:
        wanted = 8 / level_scale(pair.index, 3)
        for level, cell in ((pair.coarse, wanted), (pair.fine, wanted / 2)):
            assert level.cell_hw == pytest.approx((cell, cell), rel=0.02)
            rows, columns = level.features.shape[1:]
            assert abs(rows * level.cell_hw[0] - 130) <= level.cell_hw[0] / 2 + 1e-6
            assert abs(columns * level.cell_hw[1] - 170) <= level.cell_hw[1] / 2 + 1e-6
            assert (level.features[OUTSIDE, 0] == 1).all()
            assert not level.features[OUTSIDE, 1:-1, 1:-1].any()
    # The first octave of parts is the picture itself with cells of 4 pixels.
    torch.testing.assert_close(pairs[0].fine.features[:, 1:-1, 1:-1], dpm_features(image, 4))
    torch.testing.assert_close(pairs[0].coarse.features[:, 1:-1, 1:-1], features_of_edges(edges_of(image), 8))


def test_the_finest_scale_has_cells_half_as_large() -> None:
    image = photograph(60, 60)
    pairs = feature_pyramid(image, per_octave=2, finest=2)
    assert pairs[0].coarse.cell_hw == (4, 4)
    assert pairs[0].fine.cell_hw == (2, 2)
    torch.testing.assert_close(pairs[2].coarse.features, feature_pyramid(image, 2)[0].coarse.features)


def test_only_the_levels_that_are_wanted_are_made() -> None:
    image = photograph(130, 130)
    every = feature_pyramid(image, per_octave=2)
    some = feature_pyramid(image, per_octave=2, wanted=[3, 1, 9])
    assert [pair.index for pair in some] == [1, 3, 9]
    for pair in some[:2]:
        torch.testing.assert_close(pair.fine.features, every[pair.index].fine.features)


def test_tiny_pictures_have_a_pyramid_of_outside_cells() -> None:
    for size in ((1, 1), (3, 40), (10, 9)):
        (pair,) = feature_pyramid(torch.rand(3, *size) * 255)
        assert min(pair.coarse.features.shape[1:]) >= 1
        assert (pair.coarse.features[OUTSIDE] == 1).any()


def test_bad_arguments_are_refused() -> None:
    for bad in ({"per_octave": 0}, {"finest": 3}):
        with pytest.raises(RecordError):
            feature_pyramid(torch.rand(3, 50, 50), **bad)
    with pytest.raises(RecordError):
        features_of_edges(edges_of(torch.rand(3, 50, 50)), 0)
