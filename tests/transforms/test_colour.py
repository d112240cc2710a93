import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.decomposition import PCA
from torch import Tensor
from transform_scenes import blank, discs

from bestiary.errors import RecordError, UsageError
from bestiary.records import Sample, Target
from bestiary.transforms import ColourJitter, PCAColour, RandomGrey
from bestiary.transforms.colour import principal_colours


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample_of(image: Tensor) -> Sample:
    return Sample(image, Target(), "c", tuple(image.shape[-2:]))


def soft(size_hw: tuple[int, int] = (24, 32)) -> Sample:
    """Colours far from 0 and 255, where nothing clips."""
    image = rng(5).integers(90, 150, (*size_hw, 3), dtype=np.uint8)
    return sample_of(torch.from_numpy(image).permute(2, 0, 1))


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def drawn(seed: int, strengths: tuple[float, float, float], hue: float) -> tuple[np.ndarray, list[float], float]:
    """What `ColourJitter` draws: its order, factors and turn."""
    generator = rng(seed)
    order = generator.permutation(4)
    factors = [generator.uniform(max(0.0, 1 - s), 1 + s) for s in strengths]
    return order, factors, generator.uniform(-hue, hue)


@pytest.mark.parametrize(
    ("strengths", "enhancer"),
    [
        ((0.3, 0.0, 0.0), ImageEnhance.Brightness),
        ((0.0, 0.5, 0.0), ImageEnhance.Contrast),
        ((0.0, 0.0, 0.5), ImageEnhance.Color),
    ],
)
def test_each_strength_alone_equals_pillow(strengths: tuple[float, float, float], enhancer: type) -> None:
    for seed in range(8):
        sample = soft()
        got = ColourJitter(*strengths)(sample, rng(seed)).image.int()
        factor = drawn(seed, strengths, 0.0)[1][np.argmax(strengths)]
        want = np.asarray(enhancer(pil(sample.image)).enhance(factor)).astype(int)
        assert np.abs(got.permute(1, 2, 0).numpy() - want).max() <= 2  # Pillow rounds the mean, the grey and the blend


def naive_jitter(image: np.ndarray, order: np.ndarray, factors: list[float]) -> np.ndarray:
    """One step after the other in float, unclipped."""
    grey = np.array([0.299, 0.587, 0.114])
    for step in order:
        if step == 0:
            image = image * factors[0]
        elif step == 1:
            image = factors[1] * image + (1 - factors[1]) * (image @ grey).mean()
        elif step == 2:
            image = factors[2] * image + (1 - factors[2]) * (image @ grey)[..., None]
    return image


def test_one_matrix_equals_the_steps_in_any_order() -> None:
    sample, orders = soft(), set()
    for seed in range(40):
        order, factors, _ = drawn(seed, (0.2, 0.3, 0.4), 0.0)
        orders.add(tuple(order))
        want = naive_jitter(sample.image.permute(1, 2, 0).double().numpy(), order, factors)
        got = ColourJitter(0.2, 0.3, 0.4)(sample, rng(seed)).image.permute(1, 2, 0).double().numpy()
        assert np.abs(got - want).max() <= 1  # half a level of rounding, and OpenCV's factors have ten bits
        floating = sample_of(sample.image.float() / 255)
        exact = ColourJitter(0.2, 0.3, 0.4)(floating, rng(seed)).image.permute(1, 2, 0).double().numpy()
        np.testing.assert_allclose(exact * 255, want, atol=1e-3)
    assert len(orders) > 12


def test_colours_are_clipped_not_wrapped() -> None:
    bright = sample_of(torch.full((3, 4, 4), 250, dtype=torch.uint8))
    images = [ColourJitter(brightness=0.9)(bright, rng(seed)).image for seed in range(20)]
    assert max(int(image.max()) for image in images) == 255
    assert all(image.unique().numel() == 1 for image in images)
    floats = [ColourJitter(0.9, 0.9, 0.9, 0.5)(sample_of(torch.rand(3, 8, 8)), rng(s)).image for s in range(20)]
    assert min(float(image.min()) for image in floats) >= 0
    assert max(float(image.max()) for image in floats) <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_hue_turns_as_colorsys_does(dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (3, 6, 7), dtype=torch.uint8)
    image[:, 0, 0], image[:, 0, 1], image[:, 0, 2] = 0, 255, 77  # no hue to turn
    top = 255 if dtype == torch.uint8 else 1
    image = image if dtype == torch.uint8 else image.float() / 255
    for seed in range(6):
        turn = drawn(seed, (0.0, 0.0, 0.0), 0.5)[2]
        got = ColourJitter(hue=0.5)(sample_of(image), rng(seed)).image.permute(1, 2, 0).double().numpy()
        for y in range(6):
            for x in range(7):
                h, s, v = colorsys.rgb_to_hsv(*(image[:, y, x].double() / top).tolist())
                want = np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * top
                assert np.abs(got[y, x] - want).max() <= (0.51 if dtype == torch.uint8 else 1e-5)


def test_brightness_and_contrast_of_any_number_of_channels() -> None:
    for channels in (1, 2, 4, 6):
        image = torch.randint(90, 150, (channels, 9, 11), dtype=torch.uint8)
        factors = drawn(3, (0.2, 0.3, 0.0), 0.0)
        got = ColourJitter(0.2, 0.3)(sample_of(image), rng(3)).image
        value = image.double().numpy()
        for step in factors[0]:
            value = value * factors[1][0] if step == 0 else value
            value = factors[1][1] * value + (1 - factors[1][1]) * value.mean() if step == 1 else value
        assert np.abs(got.double().numpy() - value).max() <= 0.51


def test_what_needs_colour_says_so() -> None:
    grey = blank(channels=1)
    for step in (ColourJitter(saturation=0.1), ColourJitter(hue=0.1), RandomGrey(1.0)):
        with pytest.raises(RecordError, match="wanted 3"):
            step(grey, rng())
    with pytest.raises(RecordError, match="got 1 channels, wanted 3"):
        PCAColour()(grey, rng())


def test_probabilities() -> None:
    sample = discs()
    assert ColourJitter(0.5, p=0.0)(sample, rng()) is sample
    assert RandomGrey(0.0)(sample, rng()) is sample
    changed = sum(ColourJitter(0.5, p=0.5)(sample, rng(s)) is not sample for s in range(200))
    assert 65 < changed < 135


def test_grey_equals_pillow() -> None:
    sample = sample_of(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8))
    got = RandomGrey(1.0)(sample, rng()).image
    want = np.asarray(pil(sample.image).convert("L")).astype(int)
    assert (np.abs(got.int().numpy() - want) <= 1).all()
    assert torch.equal(got[0], got[1])
    assert torch.equal(got[0], got[2])


def test_pca_shift_is_constant_and_has_the_papers_spread() -> None:
    step = PCAColour(0.1)
    image = torch.full((3, 5, 5), 0.5)
    vectors = np.array(step.eigenvectors)
    amounts = []
    for seed in range(2000):
        shift = PCAColour(0.1)(sample_of(image), rng(seed)).image.double().numpy() - 0.5
        assert np.ptp(shift, axis=(1, 2)).max() == 0
        amounts.append(vectors.T @ shift[:, 0, 0])
    spread = np.std(amounts, axis=0)
    np.testing.assert_allclose(spread, 0.1 * np.array(step.eigenvalues), rtol=0.08)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)


def test_principal_colours_equal_sklearn() -> None:
    images = [torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8) for _ in range(3)]
    images[0][1] = images[0][0] // 2
    found = principal_colours(images)
    pixels = np.concatenate([i.reshape(3, -1).numpy().T for i in images]) / 255
    oracle = PCA().fit(pixels)
    scale = (len(pixels) - 1) / len(pixels)  # sklearn divides by n - 1
    np.testing.assert_allclose(found.eigenvalues, oracle.explained_variance_ * scale, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.array(found.eigenvectors).T @ oracle.components_.T), np.eye(3), atol=1e-6)
    with pytest.raises(RecordError, match="no pixel"):
        principal_colours([])


def test_impossible_arguments_are_refused() -> None:
    for bad in ({"brightness": -0.1}, {"hue": 0.6}, {"p": 2.0}):
        with pytest.raises(UsageError, match="wanted"):
            ColourJitter(**bad)
    with pytest.raises(UsageError, match="as many"):
        PCAColour(eigenvalues=(1.0, 2.0))
    with pytest.raises(UsageError, match="at least 0"):
        PCAColour(-1.0)


@pytest.mark.parametrize("step", [ColourJitter(0.5, 0.5, 0.5, 0.5), PCAColour(), RandomGrey(1.0)])
def test_truth_and_given_picture_stay(step: ColourJitter) -> None:
    sample, before = discs(), discs()
    out = step(sample, rng())
    assert out.target is sample.target
    assert torch.equal(sample.image, before.image)
    assert out.image.dtype == torch.uint8
