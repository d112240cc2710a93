from collections import Counter

import numpy as np
import pytest
import torch
from transform_scenes import blank, discs

from bestiary.errors import UsageError
from bestiary.transforms import (
    Letterbox,
    RandomShortSide,
    Resize,
    ResizeLongSide,
    ResizeShortSide,
    ScaleJitter,
    Transform,
)
from bestiary.transforms.resizing import fitting_size, scaled_size, short_side_size


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("size_hw", "short", "longest", "want"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((480, 640), 800, None, (800, 1067)),
        ((400, 1000), 800, 1333, (533, 1333)),
        ((300, 500), 300, 500, (300, 500)),  # the longer side exactly at its limit
        ((1, 1000), 2, 100, (1, 100)),
    ],
)
def test_short_sides_by_hand(size_hw: tuple[int, int], short: int, longest: int | None, want: tuple[int, int]) -> None:
    assert short_side_size(size_hw, short, longest) == want
    assert short_side_size(size_hw[::-1], short, longest) == want[::-1]


def test_sizes_never_vanish_nor_exceed_their_room() -> None:
    assert scaled_size((2, 300), 0.01) == (1, 3)
    for height in range(1, 40):
        for width in range(1, 40):
            new = fitting_size((height, width), (13, 17))
            assert new[0] == 13 or new[1] == 17
            assert 1 <= new[0] <= 13
            assert 1 <= new[1] <= 17


def test_resizes_do_what_they_say() -> None:
    sample = blank((30, 60))
    sizes = {
        Resize((10, 11)): (10, 11),
        ResizeShortSide(15): (15, 30),
        ResizeShortSide(45, 80): (40, 80),
        ResizeLongSide(30): (15, 30),
        Letterbox((50, 50)): (50, 50),
        ScaleJitter((0.5, 0.5)): (15, 30),
        ScaleJitter((0.5, 0.5), (20, 20)): (20, 20),
    }
    for step, size in sizes.items():
        assert step(sample, rng()).size_hw == size, step
        assert step(sample, rng()).original_size_hw == (30, 60)


def test_letterbox_centres_between_margins() -> None:
    sample = discs((30, 60))
    boxed = Letterbox((61, 60), fill=7.0)(sample, rng())
    assert (boxed.image[:, :15] == 7).all()
    assert (boxed.image[:, 45:] == 7).all()
    assert torch.equal(boxed.image[:, 15:45], sample.image)
    assert sample.target.objects is not None
    assert boxed.target.objects is not None
    shift = torch.tensor([0.0, 15, 0, 15])
    torch.testing.assert_close(boxed.target.objects.boxes_xyxy, sample.target.objects.boxes_xyxy + shift)


def test_random_short_side_draws_each_length_equally_often() -> None:
    step, generator = RandomShortSide((16, 32, 48)), rng()
    drawn = Counter(step.plan((64, 96), generator).size_hw[0] for _ in range(3000))
    assert set(drawn) == {16, 32, 48}
    assert min(drawn.values()) > 900  # 1000 +- 26
    wide = {RandomShortSide(range(10, 13)).plan((10, 20), generator).size_hw[0] for _ in range(100)}
    assert wide == {10, 11, 12}


def test_scale_jitter_cuts_or_pads_to_its_size() -> None:
    sample, step = discs((40, 50)), ScaleJitter((0.2, 2.0), (32, 32), fill=9.0)
    scales, generator = [], rng()
    for _ in range(60):
        warp = step.plan(sample.size_hw, generator)
        scales.append(warp.matrix[0, 0] / (32 / 50))
        moved = warp.image(sample.image)
        assert moved.shape == (3, 32, 32)
        shown = warp.boxes(np.array([[0.0, 0, 50, 40]]))[0]
        if shown[2] < 32:
            assert shown[0] == 0, "small pictures lie in the corner"
            assert (moved[:, :, round(shown[2]) :] == 9).all()
        else:
            assert shown[0] <= 0, "no margin where the picture is large enough"
        assert np.abs(shown - np.round(shown)).max() < 1e-9
    assert 0.15 < min(scales) < 0.4
    assert 1.8 < max(scales) < 2.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resize((0, 5)),
        lambda: ResizeShortSide(0),
        lambda: ResizeShortSide(5, 0),
        lambda: RandomShortSide(()),
        lambda: ResizeLongSide(0),
        lambda: Letterbox((5, 0)),
        lambda: ScaleJitter((2.0, 1.0)),
        lambda: ScaleJitter((0.0, 1.0)),
    ],
)
def test_impossible_sizes_are_refused(make: type[Transform]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        make()
