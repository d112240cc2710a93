import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.ops.dense_crf import (
    DEEPLAB_LARGE_FOV,
    DEEPLAB_V2,
    Appearance,
    Method,
    Normalization,
    Smoothness,
    dense_crf,
)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape checks off: the compiler cannot look into them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def random_case(labels: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(labels, height, width, generator=g, dtype=torch.float64)
    return logits, torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)


def naive_crf(
    logits: Tensor,
    image: Tensor,
    iterations: int,
    appearance: tuple[float, float, float],
    smoothness: tuple[float, float],
    compatibility: Tensor,
    normalization: str,
    include_self: bool,
) -> Tensor:
    """Algorithm 1 pixel by pixel and pair by pair."""
    labels, height, width = logits.shape
    levels = image.numpy().astype(np.float64)
    places = [(y, x) for y in range(height) for x in range(width)]
    kernels = []
    for kind, (weight, *sigmas) in enumerate((appearance, smoothness)):
        k = np.zeros((len(places), len(places)))
        for i, (y, x) in enumerate(places):
            for j, (v, u) in enumerate(places):
                exponent = ((y - v) ** 2 + (x - u) ** 2) / (2 * sigmas[0] ** 2)
                if kind == 0:
                    exponent += ((levels[:, y, x] - levels[:, v, u]) ** 2).sum() / (2 * sigmas[1] ** 2)
                k[i, j] = math.exp(-exponent) if include_self or i != j else 0.0
        n = k.sum(axis=1)
        if normalization == "symmetric":
            k = k / np.sqrt(n[:, None] * n[None])
        elif normalization == "before":
            k = k / n[None]
        elif normalization == "after":
            k = k / n[:, None]
        kernels.append(weight * k)
    unary = logits.reshape(labels, -1).t().numpy()
    probs = np.exp(unary) / np.exp(unary).sum(axis=1, keepdims=True)
    for _ in range(iterations):
        messages = sum(k @ probs for k in kernels)
        scores = unary - messages @ compatibility.numpy().T
        probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return torch.from_numpy(probs.T.reshape(labels, height, width))


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_the_exact_method_equals_the_loops_over_pixels_and_pairs(
    normalization: Normalization, include_self: bool
) -> None:
    logits, image = random_case(3, 5, 6)
    kernels = (2.0, 4.0, 60.0), (0.7, 1.5)
    potts = 1 - torch.eye(3, dtype=torch.float64)
    uneven = torch.tensor([[0.0, 1, 2], [0.5, 0, 1], [3, 0.2, -0.4]], dtype=torch.float64)
    for given, costs in ((None, potts), (potts, potts), (uneven, uneven)):
        got = dense_crf(logits, image, 4, *kernels, given, normalization, include_self, "exact")
        wanted = naive_crf(logits, image, 4, *kernels, costs, normalization, include_self)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def test_two_pixels_by_hand() -> None:
    # Two pixels side by side, equal colours, only the smoothness kernel, exp(-1/2) apart; one iteration.
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]], dtype=torch.float64)
    image, k = torch.zeros(3, 1, 2, dtype=torch.uint8), math.exp(-0.5)
    first = math.exp(2) / (math.exp(2) + 1)
    for include_self, own, n in ((True, 1.0, 1 + k), (False, 0.0, k)):
        scales: dict[Normalization, float] = {"none": 1.0, "symmetric": 1 / n}
        for normalization, scale in scales.items():
            got = dense_crf(logits, image, 1, None, (3.0, 1.0), None, normalization, include_self, "exact")
            # What speaks for label 0 over label 1 at each pixel.
            margin = torch.tensor([2.0, 0.0], dtype=torch.float64)
            support = torch.tensor([own * (2 * first - 1), k * (2 * first - 1)], dtype=torch.float64)
            torch.testing.assert_close(got[0, 0], torch.sigmoid(margin + 3 * scale * support))


@pytest.mark.parametrize(("labels", "sigma_rgb"), [(2, 30.0), (5, 13.0), (21, 13.0)])
def test_the_lattice_is_near_the_exact_method(labels: int, sigma_rgb: float) -> None:
    g = torch.Generator().manual_seed(1)
    image = F.interpolate(torch.rand(1, 3, 5, 6, generator=g), (40, 48), mode="bilinear")[0]
    logits = F.interpolate(torch.randn(1, labels, 6, 6, generator=g) * 2, (40, 48), mode="bilinear")[0]
    kernels = Appearance(4.0, 20.0, sigma_rgb), Smoothness(3.0, 3.0)
    exact = dense_crf(logits, image, 5, *kernels, method="exact")
    lattice = dense_crf(logits, image, 5, *kernels)
    # Where colours change as slowly as here, pixels between labels are undecided, and mean field makes much of little.
    changed = (exact.argmax(0) != logits.argmax(0)).float().mean()
    differing = (exact.argmax(0) != lattice.argmax(0)).float().mean()
    assert changed > 0.03, "the CRF changes labels here, else no test"
    assert differing < 0.25 * changed
    assert (exact - lattice).abs().mean() < 0.02
    torch.testing.assert_close(lattice.sum(0), torch.ones(40, 48))


def test_identities() -> None:
    logits, image = random_case(4, 12, 10)
    softmax = torch.softmax(logits, dim=0)
    torch.testing.assert_close(dense_crf(logits, image, 0), softmax)
    torch.testing.assert_close(dense_crf(logits, image, 5, None, None), softmax)
    torch.testing.assert_close(dense_crf(logits, image, 5, (0.0, 80, 13), (0, 3)), softmax)
    # Undecided pixels of a picture of one colour stay undecided.
    even = dense_crf(torch.zeros(4, 12, 10), torch.full((3, 12, 10), 0.4))
    torch.testing.assert_close(even, torch.full((4, 12, 10), 0.25))
    # A constant a pixel, and probabilities in place of logits, change nothing.
    wanted = dense_crf(logits, image)
    torch.testing.assert_close(dense_crf(logits + torch.randn(1, 12, 10, dtype=torch.float64), image), wanted)
    torch.testing.assert_close(dense_crf(softmax.log(), image), wanted)
    # A forbidden label stays forbidden.
    forbidden = logits.clone()
    forbidden[2] = -math.inf
    assert dense_crf(forbidden, image)[2].abs().max() == 0
    # Turned pictures give turned answers, exactly so pair by pair.
    turned = dense_crf(logits.flip(2), image.flip(2), method="exact")
    torch.testing.assert_close(turned.flip(2), dense_crf(logits, image, method="exact"))


def test_float_and_uint8_images_batches_layouts_and_types() -> None:
    logits, image = random_case(3, 9, 11)
    other_logits, other_image = random_case(3, 9, 11, seed=5)
    wanted = dense_crf(logits, image, 3)
    torch.testing.assert_close(dense_crf(logits, image.double() / 255, 3), wanted)
    batch = dense_crf(torch.stack([logits, other_logits]), torch.stack([image, other_image]), 3)
    torch.testing.assert_close(batch, torch.stack([wanted, dense_crf(other_logits, other_image, 3)]))
    last = torch.stack([logits] * 2).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(dense_crf(last, torch.stack([image] * 2), 3)[1], wanted)
    assert dense_crf(logits.half(), image, 3).dtype == torch.float16
    torch.testing.assert_close(dense_crf(logits.bfloat16(), image, 3).float(), wanted.float(), rtol=0.05, atol=0.05)
    assert dense_crf(logits, image[:1], 3).shape == logits.shape, "any number of image channels"
    assert dense_crf(torch.zeros(0, 3, 4, 5), torch.zeros(0, 3, 4, 5)).shape == (0, 3, 4, 5)
    assert dense_crf(torch.zeros(3, 0, 5), torch.zeros(3, 0, 5)).shape == (3, 0, 5)
    assert dense_crf(torch.zeros(1, 2, 2), torch.zeros(3, 2, 2)).tolist() == [[[1, 1], [1, 1]]]


def test_a_pixel_without_neighbours_keeps_its_unary() -> None:
    logits, image = torch.tensor([[[1.0]], [[0.0]]]), torch.zeros(3, 1, 1)
    for normalization in get_args(Normalization):
        got = dense_crf(logits, image, 3, None, (3.0, 3.0), None, normalization, include_self=False, method="exact")
        torch.testing.assert_close(got, torch.softmax(logits, dim=0))


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_gradients_flow_to_logits_weights_and_compatibility(method: Method) -> None:
    logits, image = random_case(3, 3, 4)
    costs = (1 - torch.eye(3, dtype=torch.float64)).requires_grad_()
    weights = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.8, 0.5)]

    def run(u: Tensor, w1: Tensor, w2: Tensor, mu: Tensor) -> Tensor:
        return dense_crf(u, image, 2, (w1, 3.0, 80.0), (w2, 1.5), mu, method=method)

    assert torch.autograd.gradcheck(run, (logits.requires_grad_(), *weights, costs))
    potts: Callable[[Tensor], Tensor] = lambda u: dense_crf(u, image, 2, (0.8, 3.0, 80.0), method=method)  # noqa: E731
    assert torch.autograd.gradcheck(potts, (logits,))


def test_compiled_without_a_break(unchecked: None) -> None:
    logits, image = random_case(3, 6, 7)
    compiled = torch.compile(lambda u, i: dense_crf(u, i, 2), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, image), dense_crf(logits, image, 2))


def blurred_scene() -> tuple[Tensor, Tensor, Tensor]:
    """Truth, a picture with noise whose colours follow it, and logits as coarse as a network's of stride 8."""
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    truth = torch.zeros(96, 128, dtype=torch.int64)
    truth[(x - 40) ** 2 + (y - 48) ** 2 < 26**2] = 1
    truth[(x > 78) & (x < 116) & (y > 20) & (y < 70)] = 2
    colours = torch.tensor([[60.0, 90, 40], [200, 60, 60], [70, 80, 190]])
    image = (colours[truth].permute(2, 0, 1) + 12 * torch.randn(3, 96, 128, generator=g)).clamp(0, 255).to(torch.uint8)
    coarse = F.avg_pool2d(F.one_hot(truth, 3).permute(2, 0, 1).float()[None], 8)
    coarse = 4 * coarse + torch.randn(coarse.shape, generator=g)
    return truth, image, F.interpolate(coarse, (96, 128), mode="bilinear")[0]


@pytest.mark.parametrize("settings", [(Appearance(10, 80, 13), Smoothness(3, 3)), DEEPLAB_LARGE_FOV, DEEPLAB_V2])
def test_borders_become_the_pictures(settings: tuple[Appearance, Smoothness]) -> None:
    truth, image, logits = blurred_scene()
    border = F.max_pool2d(truth[None].float(), 7, 1, 3) != -F.max_pool2d(-truth[None].float(), 7, 1, 3)
    before = (logits.argmax(0) == truth)[border[0]].float().mean()
    after = (dense_crf(logits, image, 10, *settings).argmax(0) == truth)[border[0]].float().mean()
    assert before < 0.85
    # The noise of 12 levels a channel is far beyond DeepLab's tight sigma_rgb: there half of the errors must go.
    assert 1 - after < (1 - before) * (0.2 if settings[0].sigma_rgb > 10 else 0.5)


REFERENCE: list[tuple[Normalization, list[list[float]], list[float]]] = [
    (
        "symmetric",
        [
            [0.24762, 0.27534, 0.00049, 0.96724],
            [0.01141, 0.69388, 0.9979, 0.02117],
            [0.74097, 0.03077, 0.00161, 0.0116],
        ],
        [0.35331, 0.37881, 0.26788],
    ),
    (
        "before",
        [
            [0.16939, 0.3158, 0.00043, 0.97196],
            [0.00915, 0.65877, 0.99814, 0.01709],
            [0.82146, 0.02543, 0.00143, 0.01095],
        ],
        [0.34273, 0.38062, 0.27664],
    ),
    (
        "after",
        [
            [0.35762, 0.2455, 0.00054, 0.96051],
            [0.01349, 0.71857, 0.99772, 0.02699],
            [0.62889, 0.03594, 0.00174, 0.0125],
        ],
        [0.36044, 0.3762, 0.26336],
    ),
]
"""Normalisation, probabilities [K, 4] at row 10 and columns 12, 18, 24, 30, and the mean probability of each label."""


def reference_case() -> tuple[Tensor, Tensor]:
    y, x = (a.astype(np.float32) for a in np.mgrid[:24, :32])
    image = np.stack([120 + 90 * np.sin(x / 5 + y / 9), 120 + 80 * np.cos(y / 4), 60 + 3 * x])
    logits = np.stack([2 * np.sin(x / 3) * np.cos(y / 5), 1.5 * np.cos(x / 4 + 1), np.sin(y / 2 + x / 6)])
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(image.astype(np.uint8))


@pytest.mark.parametrize(("normalization", "some", "means"), REFERENCE)
def test_the_reference_library_gives_the_same_numbers(
    normalization: Normalization, some: list[list[float]], means: list[float]
) -> None:
    # pydensecrf2 1.1: addPairwiseGaussian(sxy=3, compat=2), addPairwiseBilateral(sxy=20, srgb=13, compat=4), 5 times.
    logits, image = reference_case()
    got = dense_crf(logits, image, 5, (4.0, 20.0, 13.0), (2.0, 3.0), normalization=normalization)
    torch.testing.assert_close(got[:, 10, 12::6], torch.tensor(some), rtol=0, atol=2e-5)
    torch.testing.assert_close(got.flatten(1).mean(dim=1), torch.tensor(means), rtol=0, atol=2e-5)


def test_a_real_street_keeps_its_labels_and_loses_speckle(real_data: Path) -> None:
    (picture,) = (real_data / "camvid" / "images").rglob("0001TP_008550.*")
    (map_file,) = (real_data / "camvid" / "labels").rglob("0001TP_008550.png")
    image, truth = np.array(Image.open(picture)), np.array(Image.open(map_file))
    known, labels = torch.from_numpy(truth < 255), torch.from_numpy(truth.astype(np.int64)).clamp(max=12)
    g = torch.Generator().manual_seed(0)
    logits = F.one_hot(labels, 13).permute(2, 0, 1) + torch.randn(13, *labels.shape, generator=g)
    after = dense_crf(logits, torch.from_numpy(image).permute(2, 0, 1), 10, *DEEPLAB_LARGE_FOV).argmax(0)
    assert (logits.argmax(0) == labels)[known].float().mean() < 0.45
    assert (after == labels)[known].float().mean() > 0.8


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"logits": torch.zeros(4, 5)}, RecordError, "K, H, W"),
        ({"image": torch.zeros(3, 4, 6)}, RecordError, "'C', 4, 5"),
        ({"image": torch.zeros(3, 4, 5, dtype=torch.int64)}, RecordError, "uint8"),
        ({"compatibility": torch.zeros(3, 3)}, RecordError, r"\(2, 2\)"),
        ({"iterations": -1}, RecordError, "0 or more"),
        ({"appearance": (1.0, 0.0, 3.0)}, RecordError, "positive"),
        ({"smoothness": (1.0, math.nan)}, RecordError, "positive"),
        ({"normalization": "both"}, UsageError, "'both'"),
        ({"method": "fast"}, UsageError, "'fast'"),
        (
            {"logits": torch.zeros(2, 200, 200), "image": torch.zeros(3, 200, 200), "method": "exact"},
            RecordError,
            "4000",
        ),
    ],
)
def test_errors(change: dict[str, object], kind: type[Exception], words: str) -> None:
    arguments: dict[str, object] = {"logits": torch.zeros(2, 4, 5), "image": torch.zeros(3, 4, 5)}
    with pytest.raises(kind, match=words):
        inspect.unwrap(dense_crf)(**{**arguments, **change})
