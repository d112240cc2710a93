"""Maps recovered among wrong pairs, the number of trials, and the same answer for the same seed."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.geometry.fitting import fit_affine, map_points
from bestiary.geometry.ransac import MODELS, Model, ransac, ransac_trials

TRUE = {
    "similarity": torch.tensor([[1.2, -0.7, 40.0], [0.7, 1.2, -10.0]], dtype=torch.float64),
    "affine": torch.tensor([[1.1, 0.3, 40.0], [-0.2, 0.8, -10.0]], dtype=torch.float64),
    "homography": torch.tensor([[1.1, 0.3, 40.0], [-0.2, 0.8, -10.0], [3e-4, 1e-4, 1.0]], dtype=torch.float64),
}


def pairs(name: str, count: int, wrong: float, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 600, (count, 2)))
    targets = map_points(points, TRUE[name]) + noise * torch.from_numpy(rng.normal(size=(count, 2)))
    bad = torch.zeros(count, dtype=torch.bool)
    bad[: int(wrong * count)] = True
    # at least 50 pixels off, so that no wrong pair is right by chance
    angle, far = rng.uniform(0, 2 * np.pi, count), rng.uniform(50, 300, count)
    off = torch.from_numpy(np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1))
    return points, torch.where(bad[:, None], targets + off, targets), ~bad


@pytest.mark.parametrize("name", list(MODELS))
def test_exact_recovery_with_two_fifths_wrong(name: str) -> None:
    points, targets, good = pairs(name, 100, 0.4)
    found = ransac(points, targets, name, threshold=0.01)
    assert torch.equal(found.inliers, good)
    assert torch.allclose(found.matrix, TRUE[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_noisy_pairs_are_refitted_to_all_inliers(name: str) -> None:
    points, targets, good = pairs(name, 300, 0.3, noise=0.5)
    found = ransac(points, targets, name, threshold=2.5)
    assert int((found.inliers & ~good).sum()) == 0
    assert int((found.inliers & good).sum()) >= 0.98 * int(good.sum())
    corners = torch.tensor([[0.0, 0.0], [600.0, 0.0], [600.0, 600.0], [0.0, 600.0]], dtype=torch.float64)
    error = (map_points(corners, found.matrix) - map_points(corners, TRUE[name])).norm(dim=1).max()
    assert error < 0.5
    sample = MODELS[name]
    assert torch.allclose(found.matrix, sample.fit(points[found.inliers], targets[found.inliers]))


def test_trials_are_the_formulas() -> None:
    assert ransac_trials(0.99, 0.5, 3) == 35
    assert ransac_trials(0.99, 0.5, 4) == 72
    assert ransac_trials(0.99, 1, 4) == 1
    assert ransac_trials(0.99, 0, 4) == math.inf
    with pytest.raises(RecordError, match="confidence"):
        ransac_trials(1.0, 0.5, 3)


def test_trials_adapt_to_the_share_of_inliers() -> None:
    few = ransac(*pairs("affine", 100, 0.1)[:2], "affine", threshold=0.01)
    many = ransac(*pairs("affine", 100, 0.8)[:2], "affine", threshold=0.01)
    assert few.trials == 64  # one block
    assert ransac_trials(0.99, 0.2, 3) <= many.trials < ransac_trials(0.99, 0.2, 3) + 64
    assert ransac(*pairs("affine", 100, 0.8)[:2], "affine", threshold=0.01, max_trials=70).trials == 70


def test_the_same_seed_gives_the_same_answer() -> None:
    points, targets, _ = pairs("homography", 60, 0.6, noise=1.0)
    first, again = (ransac(points, targets, threshold=2, seed=3) for _ in range(2))
    assert torch.equal(first.matrix, again.matrix)
    assert torch.equal(first.inliers, again.inliers)


def test_exactly_the_threshold_is_inside() -> None:
    shift = Model(
        1, lambda p, q: torch.cat([torch.eye(2).expand(*p.shape[:-2], 2, 2), (q - p).mean(-2)[..., None]], -1)
    )
    points = torch.zeros(3, 2)
    targets = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    assert ransac(points, targets, shift, threshold=3).inliers.tolist() == [True, True, True]
    assert ransac(points, targets, shift, threshold=2).inliers.tolist() == [True, True, False]


def test_as_many_pairs_as_a_map_needs() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = ransac(points, points + 2, "affine")
    assert torch.allclose(found.matrix, fit_affine(points, points + 2), atol=1e-5)
    with pytest.raises(RecordError, match="at least 3"):
        ransac(points[:2], points[:2], "affine")
    with pytest.raises(UsageError, match="similarity"):
        ransac(points, points, "projective")
