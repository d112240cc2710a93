"""Darknet's moved frame and its colours in HSV."""

import colorsys

import numpy as np
import pytest
import torch
from transform_scenes import blank

from bestiary.errors import RecordError, UsageError
from bestiary.records import Objects, Sample, Target
from bestiary.transforms.darknet import HSVJitter, RandomFrame, shifted_colours


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_jitter_it_is_a_stretch() -> None:
    boxes = torch.tensor([[10.0, 4, 30, 16]])
    sample = Sample(torch.zeros(3, 20, 40), Target(objects=Objects(boxes, torch.tensor([0]))), "a", (20, 40))
    moved = RandomFrame((60, 60), 0.0)(sample, rng())
    assert moved.size_hw == (60, 60)
    assert moved.target.objects is not None
    torch.testing.assert_close(moved.target.objects.boxes_xyxy, torch.tensor([[15.0, 12, 45, 48]]))


def test_every_edge_moves_by_up_to_its_share_for_itself() -> None:
    plans = [RandomFrame((50, 50), 0.2).plan((100, 200), rng(seed)) for seed in range(400)]
    corners = np.array([plan.inverse @ [0, 0, 1] for plan in plans])
    ends = np.array([plan.inverse @ [50, 50, 1] for plan in plans])
    for found, low, high in (
        (corners[:, 0], -40, 40),
        (corners[:, 1], -20, 20),
        (ends[:, 0], 160, 240),
        (ends[:, 1], 80, 120),
    ):
        assert low <= found.min() < low + 3
        assert high - 3 < found.max() <= high
    moves = np.column_stack([corners, ends])
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.15


def test_boxes_follow_the_pixels_and_what_is_outside_is_grey() -> None:
    image = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    image[:, 20:40, 24:44] = 0
    target = Target(objects=Objects(torch.tensor([[24.0, 20, 44, 40]]), torch.tensor([0])))
    sample, seen = Sample(image, target, "a", (64, 64)), set()
    for seed in range(30):
        moved = RandomFrame((96, 96))(sample, rng(seed))
        assert moved.target.objects is not None
        x1, y1, x2, y2 = moved.target.objects.boxes_xyxy[0].round().int().tolist()
        dark = moved.image[0] < 64
        rows, columns = dark.any(1).nonzero()[:, 0], dark.any(0).nonzero()[:, 0]
        assert abs(int(rows[0]) - y1) <= 1
        assert abs(int(columns[0]) - x1) <= 1
        assert abs(int(rows[-1]) + 1 - y2) <= 1
        assert abs(int(columns[-1]) + 1 - x2) <= 1
        seen |= set(moved.image.unique().tolist())
    assert 128 in seen


def test_colours_change_as_in_hsv() -> None:
    generator = rng()
    for _ in range(50):
        colour = generator.uniform(0.05, 0.6, 3)
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        turn = float(generator.uniform(-0.5, 0.5))
        wanted = colorsys.hsv_to_rgb((hue + turn) % 1, min(1.0, 1.3 * saturation), min(1.0, 1.4 * value))
        image = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).expand(3, 2, 3).contiguous()
        out = shifted_colours(image, turn, 1.3, 1.4)
        assert out[:, 1, 2].tolist() == pytest.approx(wanted, abs=2e-3)


def test_bytes_stay_bytes_and_nothing_drawn_changes_nothing() -> None:
    sample = blank((5, 7))
    same = HSVJitter(0.0, 1.0, 1.0)(sample, rng())
    assert same.image.dtype == torch.uint8
    assert (same.image.int() - sample.image.int()).abs().max() <= 1
    changed = HSVJitter()(sample, rng()).image
    assert changed.dtype == torch.uint8
    assert changed.shape == sample.image.shape


def test_factors_and_their_inverses_are_as_frequent() -> None:
    image = torch.full((3, 1, 1), 0.4)
    sample = Sample(image, Target(), "a", (1, 1))
    values = np.array([float(HSVJitter(0.0, 1.0, 1.5)(sample, rng(seed)).image.max()) for seed in range(600)]) / 0.4
    assert 1 / 1.5 - 1e-3 <= values.min() < 0.68
    assert 1.48 < values.max() <= 1.5 + 1e-3
    assert 0.42 < (values < 1).mean() < 0.58


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="0 up to but not"):
        RandomFrame((8, 8), 0.5)
    with pytest.raises(UsageError, match="factors of at least 1"):
        HSVJitter(saturation=0.75)
    with pytest.raises(RecordError, match="got 1 channels, wanted 3"):
        HSVJitter()(Sample(torch.zeros(1, 2, 2), Target(), "a", (2, 2)), rng())
