"""Known maps come back from exact pairs; least squares against a solver; invariances; degenerate points."""

import inspect

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.fitting import fit_affine, fit_homography, fit_similarity, map_points, transfer_errors

HOMOGRAPHY = torch.tensor([[1.2, 0.1, 30.0], [-0.2, 0.9, 10.0], [4e-4, -2e-4, 1.0]], dtype=torch.float64)


def cloud(count: int, dims: int = 2, seed: int = 0) -> Tensor:
    return 400 * torch.rand(count, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turned(degrees: float, scale: float = 1.0) -> Tensor:
    c, s = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return torch.tensor([[c, -s, 5.0], [s, c, -7.0]], dtype=torch.float64)


def test_a_hand_worked_similarity() -> None:
    # a quarter turn, twice as large, moved by (1, 2)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    targets = torch.tensor([[1.0, 2.0], [1.0, 4.0]])
    expected = torch.tensor([[0.0, -2.0, 1.0], [2.0, 0.0, 2.0]])
    assert torch.allclose(fit_similarity(points, targets), expected, atol=1e-6)


@pytest.mark.parametrize(("fit", "matrix"), [(fit_similarity, turned(30, 1.5)), (fit_affine, HOMOGRAPHY[:2])])
def test_exact_pairs_give_the_map_back(fit, matrix: Tensor) -> None:
    points = cloud(6)
    assert torch.allclose(fit(points, map_points(points, matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize("count", [4, 5, 50])
def test_homographies_come_back(count: int) -> None:
    points = cloud(count)
    got = fit_homography(points, map_points(points, HOMOGRAPHY))
    assert torch.allclose(got, HOMOGRAPHY, rtol=1e-7, atol=1e-9)
    assert torch.allclose(
        fit_homography(points.float(), map_points(points, HOMOGRAPHY).float()).double(), got, rtol=1e-3
    )


def test_umeyamas_example_never_reflects() -> None:
    # Umeyama 1991, section IV: the best orthogonal matrix would be a reflection.
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    targets = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    got = fit_similarity(points, targets)
    rotation = torch.tensor([[0.832, 0.555], [-0.555, 0.832]], dtype=torch.float64)
    assert torch.allclose(got[:, :2], 0.721 * rotation, atol=1e-3)
    assert torch.allclose(got[:, 2], torch.tensor([-0.800, 0.400], dtype=torch.float64), atol=1e-3)


def test_in_space_and_without_scale() -> None:
    points = cloud(5, 3)
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    rotation = q * torch.linalg.det(q)
    targets = 2.5 * points @ rotation.T + 4
    assert torch.allclose(fit_similarity(points, targets)[:, :3], 2.5 * rotation)
    rigid = fit_similarity(points, targets, scaling=False)
    assert torch.allclose(rigid[:, :3], rotation)
    assert torch.allclose(map_points(points.mean(0, keepdim=True), rigid), targets.mean(0, keepdim=True))


def test_rotation_and_residual_in_space_are_scipys() -> None:
    points, targets = cloud(9, 3), cloud(9, 3, seed=1)
    moved = points - points.mean(0), targets - targets.mean(0)
    wanted = Rotation.align_vectors(moved[1].numpy(), moved[0].numpy())[0].as_matrix()
    np.testing.assert_allclose(fit_similarity(points, targets, scaling=False)[:, :3], wanted, atol=1e-12)
    turned_a_bit = map_points(
        points, torch.from_numpy(np.c_[Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix(), np.ones(3)])
    )
    noisy = turned_a_bit + targets / 50  # so near that the best orthogonal matrix is no reflection
    residual = (map_points(points, fit_similarity(points, noisy)) - noisy).square().sum()
    spread = (noisy - noisy.mean(0)).square().sum()
    assert float(residual / spread) == pytest.approx(procrustes(noisy.numpy(), points.numpy())[2], abs=1e-12)


def test_least_squares_are_a_solvers() -> None:
    points, targets = cloud(30), cloud(30, seed=1)
    design = np.concatenate([points.numpy(), np.ones((30, 1))], axis=1)
    expected = np.linalg.lstsq(design, targets.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(fit_affine(points, targets), expected, atol=1e-9)


def test_no_small_change_of_a_similarity_is_better() -> None:
    points, targets = cloud(30), cloud(30, seed=1)
    best = fit_similarity(points, targets)
    error = (map_points(points, best) - targets).square().sum()
    for nudge in (turned(0.1), turned(0, 1.001)):
        linear = nudge[:, :2] @ best[:, :2]
        for step in (-0.01, 0.01):
            other = torch.cat([linear, best[:, 2:] + step], dim=1)
            assert (map_points(points, other) - targets).square().sum() > error


@pytest.mark.parametrize("fit", [fit_similarity, fit_affine, fit_homography])
def test_a_weight_of_two_is_the_pair_twice_and_zero_is_none(fit) -> None:
    points, targets = cloud(8), map_points(cloud(8), HOMOGRAPHY) + cloud(8, seed=3) / 100
    weights = torch.tensor([2.0, 1, 1, 1, 1, 1, 1, 0], dtype=torch.float64)
    rows = [0, 0, 1, 2, 3, 4, 5, 6]
    assert torch.allclose(fit(points, targets, weights), fit(points[rows], targets[rows]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("fit", [fit_similarity, fit_affine, fit_homography])
def test_a_batch_equals_its_parts_and_has_gradients(fit) -> None:
    points = torch.stack([cloud(6, seed=s) for s in range(3)])
    targets = map_points(points, HOMOGRAPHY) + cloud(6, seed=9) / 50
    whole = fit(points, targets)
    for i in range(3):
        assert torch.allclose(whole[i], fit(points[i], targets[i]), rtol=1e-7)
    assert torch.autograd.gradcheck(fit, (points[:1].requires_grad_(), targets[:1].requires_grad_()), atol=1e-4)


def test_dlt_does_not_depend_on_unit_and_origin() -> None:
    points, targets = cloud(9), map_points(cloud(9), HOMOGRAPHY) + cloud(9, seed=4) / 100
    direct = fit_homography(points, targets)
    a, b = turned(40, 0.01), turned(-10, 100.0)
    moved = fit_homography(map_points(points, a), map_points(targets, b))
    there = map_points(map_points(points, a), moved)
    assert torch.allclose(there, map_points(map_points(points, direct), b), rtol=1e-7)


def test_degenerate_points_give_finite_maps() -> None:
    same, line = torch.full((5, 2), 3.0), torch.stack([torch.arange(5.0), torch.arange(5.0)], dim=1)
    for points in (same, line):
        for fit in (fit_similarity, fit_affine, fit_homography):
            assert torch.isfinite(fit(points, points)).all(), (points, fit)
    assert torch.allclose(map_points(line, fit_affine(line, line)), line, atol=1e-5)
    assert torch.allclose(map_points(same, fit_similarity(same, same)), same)


def test_errors_are_distances_and_infinite_beyond_the_horizon() -> None:
    shift = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]])
    assert transfer_errors(shift, torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [5.0]
    tilted = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [-0.01, 0, 1.0]])
    points = torch.tensor([[0.0, 0.0], [50.0, 0.0], [100.0, 0.0], [200.0, 0.0], [10.0, 0.0]])
    errors = transfer_errors(tilted, points, points)
    assert errors.tolist()[0] == 0
    assert torch.isinf(errors).tolist() == [False, False, True, True, False]
    assert torch.equal(transfer_errors(-tilted, points, points), errors)


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(RecordError, match="at least 4"):
        fit_homography(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(RecordError, match="as the points"):
        inspect.unwrap(fit_affine)(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(RecordError, match="weights"):
        fit_affine(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(RecordError, match="weights"):
        fit_affine(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([1.0, 2.0, -1.0]))
    with pytest.raises(RecordError, match=r"map_points\(matrix\)"):
        map_points(torch.zeros(3, 2), torch.zeros(4, 4))
