import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor
from transform_scenes import blank, same

from bestiary.errors import RecordError, UsageError
from bestiary.records import Sample, Target
from bestiary.transforms.photometric import PhotometricDistortion

OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draws(step: PhotometricDistortion, seed: int) -> tuple[bool, float, float, float, float]:
    """What it draws: whether contrast is early, and the four amounts."""
    generator = rng(seed)
    early, happens = generator.random() < 0.5, generator.random(4) < step.p
    shift = generator.uniform(-step.brightness, step.brightness) if happens[0] else 0.0
    factor = generator.uniform(1 - step.contrast, 1 + step.contrast) if happens[1] else 1.0
    saturation = generator.uniform(1 - step.saturation, 1 + step.saturation) if happens[2] else 1.0
    return early, shift, factor, saturation, generator.uniform(-step.hue, step.hue) if happens[3] else 0.0


def by_pixels(image: Tensor, early: bool, shift: float, factor: float, saturation: float, turn: float) -> np.ndarray:
    """The four steps in plain loops on 0..1, by Python's own HSV."""
    out = np.zeros((*image.shape[1:], 3))
    for y, x in np.ndindex(*image.shape[1:]):
        colour = np.clip(image[:, y, x].numpy() / 255 + shift, 0, 1)
        colour = np.clip(colour * factor, 0, 1) if early else colour
        h, s, v = colorsys.rgb_to_hsv(*colour)
        colour = np.array(colorsys.hsv_to_rgb((h + turn) % 1, min(1, s * saturation), v))
        out[y, x] = colour if early else np.clip(colour * factor, 0, 1)
    return out


def test_it_equals_plain_loops_in_both_orders() -> None:
    step, orders = PhotometricDistortion(p=1.0), set()
    sample = blank((7, 9))
    for seed in range(12):
        drawn = draws(step, seed)
        orders.add(drawn[0])
        got = step(sample, rng(seed)).image
        want = by_pixels(sample.image, *drawn) * 255
        assert got.dtype == torch.uint8
        assert np.abs(got.permute(1, 2, 0).numpy() - want).max() <= 0.51
    assert orders == {True, False}


def test_floats_are_changed_as_bytes_are() -> None:
    sample = blank((7, 9))
    real = Sample(sample.image.float() / 255, Target(), "r", (7, 9))
    for seed in range(4):
        a, b = (PhotometricDistortion(p=1.0)(s, rng(seed)).image for s in (sample, real))
        assert b.dtype == torch.float32
        assert float((a / 255 - b).abs().max()) <= 0.51 / 255


def test_each_happens_half_of_the_time_and_brightness_is_added() -> None:
    step = PhotometricDistortion(**{**OFF, "brightness": 0.1})
    grey = Sample(torch.full((3, 2, 2), 0.5), Target(), "g", (2, 2))
    values = np.array([float(step(grey, rng(seed)).image[0, 0, 0]) for seed in range(200)])
    changed = values != 0.5
    assert 0.4 < changed.mean() < 0.6
    assert 0.4 <= values.min() < 0.41
    assert 0.59 < values.max() <= 0.6


def test_contrast_multiplies_and_knows_no_mean() -> None:
    step = PhotometricDistortion(**{**OFF, "contrast": 0.5}, p=1.0)
    image = torch.tensor([0.0, 0.2, 0.4]).view(1, 1, 3).expand(3, 1, 3)
    out = step(Sample(image.contiguous(), Target(), "c", (1, 3)), rng(1)).image[0, 0]
    assert float(out[0]) == 0
    assert float(out[2]) == pytest.approx(2 * float(out[1]))
    assert float(out[1]) != pytest.approx(0.2)


def test_nothing_drawn_is_nothing_changed_and_the_given_picture_stays() -> None:
    sample = blank()
    assert PhotometricDistortion(p=0.0)(sample, rng()) is sample
    before = sample.image.clone()
    changed = PhotometricDistortion(p=1.0)(sample, rng())
    assert torch.equal(sample.image, before)
    assert not same(changed, sample)
    assert changed.target is sample.target


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="hue up to"):
        PhotometricDistortion(hue=0.6)
    with pytest.raises(UsageError, match="a probability"):
        PhotometricDistortion(p=2.0)
    with pytest.raises(RecordError, match="got 1 channels, wanted 3"):
        PhotometricDistortion()(blank(channels=1), rng())
