"""Dense SIFT against a loop that follows its definition, and what it must not depend on."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.dense_sift import SMOOTHING, cell_weights, dense_sift, gray_of, grid_starts


def naive(gray: np.ndarray, side: int, step: int, contrast: float) -> np.ndarray:
    """One vote at a time."""
    import cv2

    cell = side / 4
    smooth = cv2.GaussianBlur(gray, (0, 0), SMOOTHING * cell, borderType=cv2.BORDER_REPLICATE).astype(np.float64)
    padded = np.pad(smooth, 1, mode="edge")
    dx, dy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    rows = []
    for top in grid_starts(gray.shape[0], side, step):
        for left in grid_starts(gray.shape[1], side, step):
            histogram = np.zeros((4, 4, 8))
            for y in range(top, top + side):
                for x in range(left, left + side):
                    length = math.hypot(dx[y, x], dy[y, x])
                    place = (math.atan2(dy[y, x], dx[y, x]) % (2 * math.pi)) * 8 / (2 * math.pi)
                    for j in range(4):
                        for i in range(4):
                            near_y = 1 - abs(y + 0.5 - top - (j + 0.5) * cell) / cell
                            near_x = 1 - abs(x + 0.5 - left - (i + 0.5) * cell) / cell
                            if near_x > 0 and near_y > 0:
                                low, share = int(place), place - int(place)
                                histogram[j, i, low % 8] += length * near_x * near_y * (1 - share)
                                histogram[j, i, (low + 1) % 8] += length * near_x * near_y * share
            row = histogram.ravel()
            row = np.minimum(row / np.linalg.norm(row), 0.2) if row.sum() > contrast * side**2 else 0 * row
            rows.append(row / (np.linalg.norm(row) or 1))
    return np.array(rows)


@pytest.mark.parametrize(("side", "step"), [(16, 8), (8, 3), (12, 7)])
def test_it_equals_the_loop(side: int, step: int) -> None:
    gray = torch.rand(29, 37, generator=torch.Generator().manual_seed(side))
    gray[:14, :20] = 0.5  # some patches are flat
    found = dense_sift(gray, (side,), step, contrast=0.02)
    wanted = naive(gray.numpy(), side, step, 0.02)
    assert (wanted == 0).all(1).any() == (side < 16)
    np.testing.assert_allclose(found.descriptors.numpy(), wanted, atol=2e-5)


def test_centres_lie_on_a_centred_grid_inside_the_picture() -> None:
    found = dense_sift(torch.rand(20, 45), (16,), 8)
    assert found.xy[:, 1].unique().tolist() == [10.0]
    assert found.xy[:, 0].unique().tolist() == [10.0, 18.0, 26.0, 34.0]
    assert len(dense_sift(torch.rand(200, 200), (16,), 8)) == 576


def test_several_sides_come_one_after_another() -> None:
    gray = torch.rand(40, 40)
    both = dense_sift(gray, (8, 16), 8)
    first, second = dense_sift(gray, (8,), 8), dense_sift(gray, (16,), 8)
    assert torch.equal(both.descriptors, torch.cat([first.descriptors, second.descriptors]))
    assert both.sides.tolist() == [8.0] * len(first) + [16.0] * len(second)


def test_descriptors_have_length_one_and_do_not_change_with_light() -> None:
    gray = torch.rand(48, 48) / 2
    plain, bright = dense_sift(gray).descriptors, dense_sift(1.7 * gray + 0.1).descriptors
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(len(plain)))
    torch.testing.assert_close(plain, bright, atol=1e-4, rtol=0)
    assert float(plain.max()) < 0.5  # clipped at 0.2 before the second scaling


def test_a_ramp_votes_for_one_orientation() -> None:
    ramp = torch.arange(32.0)[None].expand(32, 32) / 32
    right, down = (dense_sift(r.contiguous()).descriptors.view(-1, 16, 8).sum((0, 1)) for r in (ramp, ramp.T))
    assert int(right.argmax()) == 0
    assert float(right[1:].max()) < 1e-5
    assert int(down.argmax()) == 2


def test_a_flat_patch_is_zero_and_never_nan() -> None:
    found = dense_sift(torch.full((32, 32), 0.3)).descriptors
    assert torch.equal(found, torch.zeros_like(found))
    assert torch.isfinite(dense_sift(torch.full((32, 32), 0.3), contrast=0).descriptors).all()


def test_a_picture_smaller_than_a_patch_has_none() -> None:
    assert len(dense_sift(torch.rand(15, 40))) == 0


def test_shares_of_a_pixel_among_cells_sum_to_one_between_the_outer_centres() -> None:
    weights = cell_weights(16)
    np.testing.assert_allclose(weights[2:14].sum(1), 1)
    assert (weights[:2].sum(1) < 1).all()


@pytest.mark.parametrize("bad", [{"sides": (15,)}, {"sides": (0,)}, {"step": 0}, {"contrast": -1.0}])
def test_numbers_out_of_range(bad: dict) -> None:
    with pytest.raises(RecordError):
        dense_sift(torch.rand(32, 32), **bad)


def test_pictures_come_to_a_working_size() -> None:
    small, large = torch.randint(256, (3, 32, 40), dtype=torch.uint8), torch.rand(3, 300, 1200)
    assert gray_of(small, 64, 512).shape == (64, 80)
    assert gray_of(large, 64, 512).shape == (128, 512)
    same = gray_of(small, 16, 512)
    torch.testing.assert_close(same, (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * small / 255).sum(0))
    assert gray_of(torch.rand(3, 2, 4000), 64, 512).shape == (1, 512)  # the longer side wins


def test_it_agrees_with_opencvs_descriptor_on_a_photograph(real_data: Path) -> None:
    """Another definition (Gaussian window, other margins), so close but not equal; OpenCV's orientations turn the other
    way."""
    import cv2

    path = next(iter(sorted((real_data / "bsds").rglob("*.jpg"))))
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:160, :160]
    ours = dense_sift(torch.from_numpy(pixels).float() / 255, contrast=0)
    keypoints = [cv2.KeyPoint(x - 0.5, y - 0.5, 8 / 3, 0.0) for x, y in ours.xy.tolist()]
    _, theirs = cv2.SIFT_create().compute(cv2.GaussianBlur(pixels, (0, 0), 0.5), keypoints)
    theirs = torch.from_numpy(theirs).view(-1, 4, 4, 8)[..., (-torch.arange(8)) % 8].reshape(-1, 128)
    cosine = torch.nn.functional.cosine_similarity(ours.descriptors, theirs)
    # In weak patches the rounding of the 8-bit picture decides.
    strong = dense_sift(torch.from_numpy(pixels).float() / 255, contrast=0.02).descriptors.any(1)
    assert strong.sum() > 80
    assert float(cosine[strong].median()) > 0.94
    assert float(cosine[strong].quantile(0.05)) > 0.85
