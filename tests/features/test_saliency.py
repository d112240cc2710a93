"""Salient regions are where the paper's measure peaks; patches are means of cells."""

import numpy as np
import pytest
import torch

from bestiary.errors import UsageError
from bestiary.features.patches import region_patches
from bestiary.features.saliency import LEVELS, Regions, salient_regions


def noise(seed: int, height: int = 40, width: int = 36) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed))


def naive_peaks(grey: torch.Tensor, radii: tuple[int, int], step: int) -> set[tuple[float, float, float, float]]:
    pixels = grey.numpy()
    levels = np.clip((pixels * LEVELS).astype(int), 0, LEVELS - 1)
    ys, xs = np.mgrid[: grey.shape[0], : grey.shape[1]]
    found = set()
    for y in range(step // 2, grey.shape[0], step):
        for x in range(step // 2, grey.shape[1], step):
            reach = min(y, x, grey.shape[0] - 1 - y, grey.shape[1] - 1 - x, radii[1])
            entropy, change, shares = {}, {}, {}
            for s in range(radii[0] - 1, reach + 1):
                disc = levels[(ys - y) ** 2 + (xs - x) ** 2 <= s * s]
                p = np.bincount(disc, minlength=LEVELS) / len(disc)
                entropy[s] = -sum(v * np.log2(v) for v in p if v > 0)
                if s >= radii[0]:
                    change[s] = s * s / (2 * s - 1) * np.abs(p - shares[s - 1]).sum()
                shares[s] = p
            for s in range(radii[0] + 1, reach):
                if entropy[s] > entropy[s - 1] and entropy[s] >= entropy[s + 1]:
                    found.add((x + 0.5, y + 0.5, float(s), round(entropy[s] * change[s], 4)))
    return found


def test_every_region_is_a_peak_and_the_best_peak_is_the_first_region() -> None:
    grey = noise(0)
    wanted = naive_peaks(grey, (3, 9), 2)
    regions = salient_regions(grey, count=1000, radii=(3, 9), step=2)
    got = {
        (x, y, r, round(s, 4))
        for (x, y), r, s in zip(
            regions.centres_xy.tolist(), regions.radii.tolist(), regions.saliency.tolist(), strict=True
        )
    }
    near = {(x, y, r) for x, y, r, _ in wanted}
    assert {(x, y, r) for x, y, r, _ in got} <= near
    assert max(s for *_, s in got) == pytest.approx(max(s for *_, s in wanted), abs=2e-4)
    assert len(got) > 5


def test_a_disc_on_plain_ground_is_found_with_its_radius() -> None:
    grey = torch.full((80, 80), 0.2)
    y, x = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    grey[(x - 41.5) ** 2 + (y - 37.5) ** 2 <= 8**2] = 0.8
    first = salient_regions(grey, count=1, radii=(3, 20))
    assert (first.centres_xy[0] - torch.tensor([41.5, 37.5])).norm() <= 3
    # Black and white in equal parts have the most entropy: the region is larger than the disc by the root of two.
    assert 8 < float(first.radii[0]) < 14


def test_regions_move_with_the_picture() -> None:
    here, there = torch.full((2, 90, 90), 0.5)
    here[30:50, 20:40] = there[34:54, 44:64] = noise(1, 20, 20)
    found, moved = (salient_regions(grey, count=6, radii=(3, 12)) for grey in (here, there))
    assert torch.equal(found.centres_xy + torch.tensor([24.0, 4.0]), moved.centres_xy)
    assert torch.equal(found.radii, moved.radii)
    assert len(found) == 6


def test_regions_keep_apart_and_the_best_come_first() -> None:
    regions = salient_regions(noise(2), count=50, radii=(3, 9))
    assert (regions.saliency.diff() <= 0).all()
    for i in range(len(regions)):
        for j in range(i):
            near = (regions.centres_xy[i] - regions.centres_xy[j]).norm() < max(regions.radii[i], regions.radii[j])
            alike = max(regions.radii[i], regions.radii[j]) < 2 * min(regions.radii[i], regions.radii[j])
            assert not (near and alike)


@pytest.mark.parametrize(
    "grey", [torch.zeros(0, 5), torch.rand(6, 200), torch.full((50, 50), 0.4)], ids=["empty", "too low", "flat"]
)
def test_where_nothing_can_be_seen_nothing_is_found(grey: torch.Tensor) -> None:
    regions = salient_regions(grey)
    assert len(regions) == 0
    assert region_patches(grey, regions).shape == (0, 121)


def test_faint_noise_is_not_salient() -> None:
    grey = 0.5 + 0.001 * noise(3)  # across the border of two grey levels
    assert len(salient_regions(grey)) == 0
    assert len(salient_regions(grey, least_contrast=0.0)) > 0


def test_bad_radii_are_refused() -> None:
    with pytest.raises(UsageError, match="radii"):
        salient_regions(noise(0), radii=(3, 4))


def region(x: float, y: float, radius: float) -> Regions:
    return Regions(torch.tensor([[x, y]]).float(), torch.tensor([radius]).float(), torch.ones(1))


def test_patches_are_means_of_cells_free_of_brightness_and_contrast() -> None:
    grey = noise(4, 44, 44)
    patch = region_patches(grey, region(22, 22, 22), side=11).view(11, 11)
    means = grey.view(11, 4, 11, 4).mean((1, 3))
    centred = means - means.mean()
    torch.testing.assert_close(patch, centred / (centred.square().mean().sqrt() + 0.01), atol=1e-5, rtol=0)
    darker = region_patches(0.5 * grey + 0.1, region(22, 22, 22), side=11)
    assert torch.cosine_similarity(darker.flatten(), patch.flatten(), 0) > 0.9999


def test_a_region_smaller_than_its_patch_repeats_pixels() -> None:
    patch = region_patches(noise(5), region(20, 20, 3), side=11)
    assert torch.isfinite(patch).all()
