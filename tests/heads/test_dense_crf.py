"""The dense CRF as a part: the published sets, and that they do what the formula says."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.heads.dense_crf import DENSE_CRFS, DenseCrf, dense_crf_named
from bestiary.ops.dense_crf import Appearance, Smoothness, dense_crf


def case(labels: int = 3, size_hw: tuple[int, int] = (12, 12), seed: int = 0) -> tuple[Tensor, Tensor]:
    """A picture of two colours with noise, and probabilities that half know it."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 30, (3, *size_hw), generator=g, dtype=torch.uint8)
    image[:, :, size_hw[1] // 2 :] += 90
    logits = torch.randn(labels, *size_hw, generator=g)
    logits[0, :, : size_hw[1] // 2] += 1
    return image, logits.softmax(0)


def by_all_pairs(crf: DenseCrf, image: Tensor, probs: Tensor) -> Tensor:
    """Krähenbühl and Koltun's algorithm 1 over every pair of pixels, kernels normalised on both sides."""
    labels, height, width = probs.shape
    y, x = np.mgrid[0:height, 0:width].reshape(2, -1).astype(np.float64)
    colours = image.numpy().reshape(3, -1).astype(np.float64)
    places = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    between = ((colours[:, :, None] - colours[:, None]) ** 2).sum(0)
    total = np.zeros_like(places)
    for weight, kernel in (
        (
            crf.appearance.weight,
            np.exp(-places / (2 * crf.appearance.sigma_xy**2) - between / (2 * crf.appearance.sigma_rgb**2)),
        ),
        (crf.smoothness.weight, np.exp(-places / (2 * crf.smoothness.sigma_xy**2))),
    ):
        norm = kernel.sum(1) ** -0.5
        total += weight * norm[:, None] * kernel * norm
    unary = np.log(probs.double().numpy().reshape(labels, -1))
    found = np.exp(unary)
    for _ in range(crf.iterations):
        support = found @ total
        scores = unary - (support.sum(0) - support)  # Potts: what speaks for all the others
        found = np.exp(scores - scores.max(0))
        found /= found.sum(0)
    return torch.from_numpy(found.reshape(labels, height, width))


@pytest.mark.parametrize("name", list(DENSE_CRFS))
def test_every_set_equals_all_pairs_of_a_picture_of_12_x_12(name: str) -> None:
    crf, (image, probs) = DENSE_CRFS[name], case()
    exact = dense_crf(
        probs.double().log(), image, crf.iterations, crf.appearance, crf.smoothness, method="exact"
    )  # the lattice's error is in the operator's own tests
    torch.testing.assert_close(exact, by_all_pairs(crf, image, probs), rtol=0, atol=1e-6)


def test_the_part_is_the_operator_with_its_numbers() -> None:
    image, probs = case(4, (20, 31))
    crf = DenseCrf(Appearance(2.0, 9.0, 20.0), Smoothness(1.0, 2.0), iterations=3)
    found = crf.refine(image, probs)
    torch.testing.assert_close(found, dense_crf(probs.log(), image, 3, (2.0, 9.0, 20.0), (1.0, 2.0)))
    assert (found.argmax(0) != probs.argmax(0)).any()
    assert not torch.equal(found, DenseCrf(crf.appearance, crf.smoothness, iterations=4).refine(image, probs))


def test_pictures_of_one_channel_and_floats_and_half_precision_do() -> None:
    image, probs = case()
    crf = DENSE_CRFS["plain"]
    torch.testing.assert_close(crf.refine(image.float() / 255, probs), crf.refine(image, probs))
    assert crf.refine(image[:1], probs).shape == probs.shape
    assert crf.refine(image, probs.half()).dtype == torch.float16


def test_a_probability_of_zero_is_no_verdict() -> None:
    image, probs = case(2)
    image[:] = 100
    probs = torch.stack([torch.ones(12, 12), torch.zeros(12, 12)])
    probs[:, 6, 6] = torch.tensor([0.0, 1.0])
    found = DenseCrf(Appearance(0.0, 1.0, 1.0), Smoothness(200.0, 3.0)).refine(image, probs)
    assert torch.isfinite(found).all()
    assert found[0, 6, 6] > 0.5  # one sure pixel among a hundred sure neighbours


def test_identities() -> None:
    image, probs = case()
    silent = DenseCrf(Appearance(0.0, 49.0, 5.0), Smoothness(0.0, 3.0))
    assert torch.equal(silent.refine(image, probs).argmax(0), probs.argmax(0))
    even, flat = torch.full((3, 12, 12), 1 / 3), torch.full((3, 12, 12), 80, dtype=torch.uint8)
    for crf in DENSE_CRFS.values():
        torch.testing.assert_close(crf.refine(flat, even), even)


def test_published_numbers() -> None:
    assert DENSE_CRFS["deeplab_v1"] == DenseCrf(Appearance(4.0, 49.0, 5.0), Smoothness(3.0, 3.0), 10)
    assert DENSE_CRFS["deeplab_v2"] == DenseCrf(Appearance(4.0, 67.0, 3.0), Smoothness(3.0, 1.0), 10)
    assert DENSE_CRFS["deconvnet"] == DenseCrf(Appearance(5.0, 20.0, 3.0), Smoothness(3.0, 3.0), 10)
    assert DENSE_CRFS["plain"] == DenseCrf(Appearance(10.0, 80.0, 13.0), Smoothness(3.0, 3.0), 5)


def test_a_name_that_is_none() -> None:
    assert dense_crf_named("deconvnet") is DENSE_CRFS["deconvnet"]
    with pytest.raises(UsageError, match=r"no dense CRF is called 'deeplab_v3'.*Did you mean 'deeplab_v"):
        dense_crf_named("deeplab_v3")
    with pytest.raises(UsageError, match="There are deeplab_v1, deeplab_v2, deconvnet, plain"):
        dense_crf_named("zzz")
