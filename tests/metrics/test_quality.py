"""PSNR, SSIM, MS-SSIM: by hand, by loops, by scikit-image."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from skimage import metrics as sk
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.quality import MS_SSIM_WEIGHTS, QualityScores, luma_bt601, ms_ssim, psnr, shave, ssim


def pictures(size: tuple[int, ...] = (2, 3, 40, 33), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth truths and noisy pictures of them, uint8."""
    rng = np.random.default_rng(seed)
    height, width = size[-2:]
    wave = np.sin(np.arange(height) / 5)[:, None] * np.cos(np.arange(width) / 7)
    truth = 128 + 90 * wave + rng.normal(0, 8, size)
    noisy = truth + rng.normal(0, 12, size)
    return tuple(torch.from_numpy(np.clip(x, 0, 255).astype(np.uint8)) for x in (noisy, truth))  # type: ignore[return-value]


def skimage_ssim(first: Tensor, second: Tensor, data_range: float) -> float:
    value: Any = sk.structural_similarity(
        first.double().numpy(),
        second.double().numpy(),
        channel_axis=0,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def naive_ssim(first: np.ndarray, second: np.ndarray, data_range: float) -> float:
    """Every window of one plane in turn."""
    weights = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    window = np.outer(weights, weights) / weights.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for y in range(first.shape[0] - 10):
        for x in range(first.shape[1] - 10):
            a, b = first[y : y + 11, x : x + 11], second[y : y + 11, x : x + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_psnr_by_hand_and_by_scikit_image() -> None:
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(grey + 1, grey).item() == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert 20 * math.log10(255) == pytest.approx(48.13, abs=5e-3)
    assert psnr(grey, grey).item() == math.inf
    noisy, truth = pictures()
    for got, a, b in zip(psnr(noisy, truth), noisy, truth, strict=True):
        assert got.item() == pytest.approx(sk.peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=255), abs=1e-4)
    torch.testing.assert_close(psnr(noisy / 255, truth / 255), psnr(noisy, truth), atol=1e-4, rtol=0)


def test_a_step_of_one_in_rgb_is_49_45_db_in_brightness() -> None:
    grey = torch.full((1, 3, 8, 8), 100.0, dtype=torch.float64)
    brighter = luma_bt601(grey + 1, 255)
    assert psnr(brighter, luma_bt601(grey, 255), 255).item() == pytest.approx(49.45, abs=5e-3)


def test_brightness_of_black_white_and_the_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    luma = luma_bt601(colours[:, :, None, None]).flatten() * 255
    assert luma.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-3)
    as_bytes = luma_bt601((colours[:, :, None, None] * 255).to(torch.uint8)).flatten()
    assert as_bytes.tolist() == pytest.approx(luma.tolist(), abs=1e-3)


def test_ssim_is_scikit_images_and_the_loops() -> None:
    noisy, truth = pictures()
    got = ssim(noisy.double(), truth.double(), 255)
    for value, a, b in zip(got, noisy, truth, strict=True):
        assert value.item() == pytest.approx(skimage_ssim(a, b, 255), abs=1e-10)
        planes = [naive_ssim(p.double().numpy(), q.double().numpy(), 255) for p, q in zip(a, b, strict=True)]
        assert value.item() == pytest.approx(np.mean(planes), abs=1e-10)
    assert 0.2 < got[0] < 0.95
    torch.testing.assert_close(ssim(noisy, truth).double(), got, atol=2e-5, rtol=0)
    torch.testing.assert_close(ssim(noisy / 255, truth / 255).double(), got, atol=2e-5, rtol=0)


def test_ssim_of_equal_and_opposite_pictures() -> None:
    _, truth = pictures()
    assert ssim(truth.double(), truth.double(), 255).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert ssim(255 - truth, truth).max() < 0.2
    smallest = pictures((1, 1, 11, 11))
    first, second = (p[0, 0].double().numpy() for p in smallest)
    assert ssim(*smallest).item() == pytest.approx(naive_ssim(first, second, 255), abs=1e-5)
    assert ssim(truth[:0], truth[:0]).shape == (0,)


def halved(plane: np.ndarray) -> np.ndarray:
    plane = np.pad(plane, [(0, n % 2) for n in plane.shape], mode="edge")
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def test_ms_ssim_is_the_product_of_scikit_images_scales() -> None:
    """Contrast and structure alone: SSIM of scikit-image's map divided by the luminance of Gaussian means."""
    from scipy.ndimage import gaussian_filter

    noisy, truth = (p[0, 0].double().numpy() for p in pictures((1, 1, 171, 180), 3))
    wanted, weights, c1 = 1.0, MS_SSIM_WEIGHTS, (0.01 * 255) ** 2
    for scale, weight in enumerate(weights):
        both: Any = sk.structural_similarity(
            noisy, truth, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        full = both[1]
        ma, mb = (gaussian_filter(p, 1.5, truncate=3.5) for p in (noisy, truth))
        luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        inside = (slice(5, -5), slice(5, -5))
        part = full[inside] if scale == len(weights) - 1 else full[inside] / luminance[inside]
        wanted *= part.mean() ** weight
        noisy, truth = halved(noisy), halved(truth)
    first, second = (p.double() for p in pictures((1, 1, 171, 180), 3))
    assert ms_ssim(first, second, 255).item() == pytest.approx(wanted, abs=1e-10)
    assert 0.3 < wanted < 0.99
    assert sum(MS_SSIM_WEIGHTS) == pytest.approx(1, abs=1e-3)


def test_ms_ssim_of_one_scale_is_ssim_and_of_equal_pictures_one() -> None:
    noisy, truth = (p.double() for p in pictures())
    torch.testing.assert_close(ms_ssim(noisy, truth, 255, weights=(1.0,)), ssim(noisy, truth, 255))
    large = pictures((1, 3, 161, 161))[1].double()
    assert ms_ssim(large, large, 255).item() == pytest.approx(1, abs=1e-9)
    with pytest.raises(RecordError, match="a side of 160 pixels, wanted at least 161"):
        ms_ssim(large[..., 1:], large[..., 1:])
    with pytest.raises(UsageError, match="no weight"):
        ms_ssim(large, large, weights=())


@pytest.mark.parametrize("score", [psnr, ssim, lambda a, b: ms_ssim(a, b, weights=(0.5, 0.5))])
def test_gradients(score: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 2, 22, 21, generator=generator, dtype=torch.float64)
    picture = truth + 0.2 * torch.rand(1, 2, 22, 21, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(score, (picture.requires_grad_(), truth), fast_mode=True)


def test_opposite_pictures_have_a_finite_gradient() -> None:
    truth = torch.rand(1, 1, 30, 30)
    picture = (1 - truth).requires_grad_()
    value = ms_ssim(picture, truth, weights=(0.5, 0.5))
    assert value.item() == 0
    (grad,) = torch.autograd.grad(value.sum(), picture)
    assert torch.isfinite(grad).all()


def test_ssim_as_a_loss_draws_a_picture_to_its_truth() -> None:
    _, truth = pictures((1, 1, 24, 24))
    truth = truth / 255
    picture = torch.full_like(truth, 0.5).requires_grad_()
    optimiser = torch.optim.Adam([picture], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (1 - ssim(picture, truth)).sum().backward()
        optimiser.step()
    assert ssim(picture.detach(), truth) > 0.9


def test_layouts_and_half_precision() -> None:
    noisy, truth = (p / 255 for p in pictures())
    wanted = ssim(noisy, truth)
    last = noisy.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ssim(last, truth), wanted)
    torch.testing.assert_close(ssim(noisy.transpose(2, 3), truth.transpose(2, 3)), wanted)
    for score in (psnr, ssim):
        got = score(noisy.bfloat16(), truth.bfloat16())
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, score(noisy.bfloat16().float(), truth.bfloat16().float()))


def test_compiled_and_exported(unchecked: None) -> None:
    noisy, truth = (p / 255 for p in pictures((1, 3, 44, 44)))

    class Loss(torch.nn.Module):
        def forward(self, picture: Tensor, truth: Tensor) -> Tensor:
            return psnr(picture, truth) + ssim(picture, truth) + ms_ssim(picture, truth, weights=(0.5, 0.5))

    wanted = Loss()(noisy, truth)
    compiled = torch.compile(Loss(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(noisy, truth), wanted)
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    pair = (noisy.repeat(2, 1, 1, 1), truth.repeat(2, 1, 1, 1))
    exported = torch.export.export(Loss(), pair, dynamic_shapes=(batch, batch)).module()
    torch.testing.assert_close(exported(noisy, truth), wanted)


def test_scores_are_means_over_pictures_in_any_sharing() -> None:
    noisy, truth = pictures((5, 3, 40, 33))
    whole, first, second = (QualityScores() for _ in range(3))
    whole.update(noisy, truth)
    first.update(noisy[3:], truth[3:])
    second.update(noisy[:3], truth[:3])
    first.merge(second)
    computed = whole.compute()
    assert first.compute().to_dict() == computed.to_dict()
    singles = [sk.peak_signal_noise_ratio(b.numpy(), a.numpy()) for a, b in zip(noisy, truth, strict=True)]
    assert computed.value == pytest.approx(np.mean(singles), abs=1e-10)
    similar = [skimage_ssim(a, b, 255) for a, b in zip(noisy, truth, strict=True)]
    assert computed.values["ssim"] == pytest.approx(np.mean(similar), abs=1e-10)
    pooled = sk.peak_signal_noise_ratio(truth.numpy(), noisy.numpy())
    assert computed.values["psnr_of_mean"] == pytest.approx(pooled, abs=1e-10)
    assert math.isnan(QualityScores().compute().value)


def test_the_conventions_of_super_resolution() -> None:
    noisy, truth = pictures((1, 3, 40, 33))
    scores = QualityScores("y", border=4, eight_bit=True)
    # off by less than half a grey level, and outside the range: both mended by the rounding
    scores.update((noisy + 0.4) / 255, truth / 255)
    planes = [luma_bt601(p.double(), 255)[0, 0, 4:-4, 4:-4].numpy() for p in (noisy, truth)]
    assert scores.compute().value == pytest.approx(
        sk.peak_signal_noise_ratio(planes[1], planes[0], data_range=255), abs=1e-5
    )
    wanted = skimage_ssim(torch.from_numpy(planes[0])[None], torch.from_numpy(planes[1])[None], 255)
    assert scores.compute().values["ssim"] == pytest.approx(wanted, abs=1e-6)
    assert "BT.601" in scores.compute().protocol
    assert "4 border pixels" in scores.compute().protocol
    bright = QualityScores(eight_bit=True)
    bright.update(torch.full((1, 1, 12, 12), 1.7), torch.ones(1, 1, 12, 12))
    assert bright.compute().value == math.inf
    assert bright.compute().values["psnr_of_mean"] == math.inf
    assert bright.compute().to_dict()["values"]["psnr"] is None


def test_multi_scale_scores() -> None:
    noisy, truth = pictures((2, 1, 161, 170))
    scores = QualityScores(multi_scale=True)
    scores.update(noisy, truth)
    wanted = ms_ssim(noisy.double(), truth.double(), 255).mean()
    assert scores.compute().values["ms_ssim"] == pytest.approx(float(wanted), abs=1e-12)


def test_shave() -> None:
    picture = torch.arange(20.0).view(1, 1, 4, 5)
    assert shave(picture, 1).tolist() == [[[[6, 7, 8], [11, 12, 13]]]]
    assert shave(picture, 0) is not None
    assert torch.equal(shave(picture, 0), picture)
    with pytest.raises(RecordError, match="2 of 4 x 5 pixels"):
        shave(picture, 2)


def test_bad_input_is_named(unchecked: None) -> None:
    noisy, truth = pictures()
    with pytest.raises(RecordError, match="a side of 10 pixels, wanted at least 11"):
        ssim(noisy[..., :10], truth[..., :10])
    with pytest.raises(RecordError, match="the truths' shape"):
        psnr(noisy, truth[:1])
    with pytest.raises(RecordError, match=r"wanted torch\.uint8, as the truths"):
        psnr(noisy.float(), truth)
    with pytest.raises(RecordError, match="uint8 or floats"):
        psnr(noisy.long(), truth.long())
    with pytest.raises(RecordError, match="at least a pixel"):
        psnr(noisy[..., :0], truth[..., :0])
    with pytest.raises(RecordError, match="data_range: got -1"):
        psnr(noisy, truth, -1)
    with pytest.raises(RecordError, match="NaN"):
        QualityScores().update(noisy * math.nan, truth / 1)
    with pytest.raises(RecordError, match="1 channels, wanted 3"):
        QualityScores("y").update(noisy[:, :1], truth[:, :1])
    with pytest.raises(UsageError, match="border"):
        QualityScores(border=-1)
    with pytest.raises(UsageError, match="channels"):
        QualityScores("y").merge(QualityScores())
