"""MPJPE and the alignment before it."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.pose_3d import Pose3dScores, joint_errors, mpjpe, pa_mpjpe


def poses(count: int = 4, joints: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truths = torch.randn(count, joints, 3, generator=generator, dtype=torch.float64)
    return truths + 0.2 * torch.randn(count, joints, 3, generator=generator, dtype=torch.float64), truths


def test_mpjpe_by_hand() -> None:
    truths = torch.zeros(1, 3, 3)
    points = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 100.0]]])
    annotated = torch.tensor([[True, True, False]])
    assert mpjpe(points, truths, annotated).item() == 3
    assert mpjpe(points, truths).item() == pytest.approx(106 / 3)
    rooted = mpjpe(points, truths, annotated, root=1)
    assert rooted.item() == pytest.approx(math.sqrt(9 + 16 + 1) / 2)
    assert mpjpe(points, truths, annotated, root=2).isnan().item(), "without a root there is no place to compare"
    with pytest.raises(UsageError, match="wanted a joint from 0 to 2"):
        joint_errors(points, truths, root=3)


def test_a_mirrored_pose_is_not_mirrored_back() -> None:
    _, truths = poses()
    mirrored = truths * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert pa_mpjpe(mirrored, truths).min() > 0.05


def test_joints_that_are_not_annotated_do_not_pull() -> None:
    points, truths = poses(2)
    annotated = torch.ones(2, 9, dtype=torch.bool)
    annotated[:, 4:6] = False
    keep = [0, 1, 2, 3, 6, 7, 8]
    wild = points.clone()
    wild[:, 4:6] += 100
    torch.testing.assert_close(pa_mpjpe(wild, truths, annotated), pa_mpjpe(points[:, keep], truths[:, keep]))


def test_a_moved_pose_is_moved_back() -> None:
    points, _ = poses()
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -1.2, 2.0]).as_matrix())
    moved = 2.5 * points @ rotation.T + torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    assert pa_mpjpe(points, moved).max() < 1e-12


def test_points_that_coincide_go_to_the_mean_and_nothing_is_nan() -> None:
    _, truths = poses(1)
    from_mean = (truths - truths.mean(1, keepdim=True)).norm(dim=-1).mean()
    torch.testing.assert_close(pa_mpjpe(torch.ones_like(truths), truths)[0], from_mean)
    assert pa_mpjpe(truths, truths, torch.zeros(1, 9, dtype=torch.bool)).isnan().all()


def test_gradients() -> None:
    points, truths = poses(2, joints=5)
    leaf = points.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pa_mpjpe(x, truths), (leaf,))
    annotated = torch.ones(2, 5, dtype=torch.bool)
    annotated[0, 2] = False
    assert torch.autograd.gradcheck(lambda x: mpjpe(x, truths, annotated, root=0), (leaf,))


def test_scores_are_means_over_poses_in_any_sharing() -> None:
    points, truths = poses(10, seed=7)
    points = truths + (points - truths) / 2
    scores = Pose3dScores(root=0)
    scores.update(points, truths)
    computed = scores.compute()
    errors = joint_errors(points, truths, root=0)
    assert computed.value == pytest.approx(float((errors <= 0.15).double().mean()))
    assert 0.2 < computed.value < 0.9
    thresholds = np.linspace(0, 0.15, 31)
    curve = [float((errors <= t).double().mean()) for t in thresholds]
    assert computed.values["PCK3D_AUC"] == pytest.approx(np.mean(curve), abs=1e-12)
    assert computed.values["MPJPE"] == pytest.approx(float(errors.mean()))
    assert computed.values["PA_MPJPE"] == pytest.approx(float(pa_mpjpe(points, truths).mean()))
    first, second = Pose3dScores(root=0), Pose3dScores(root=0)
    first.update(points[:3], truths[:3])
    second.update(points[3:], truths[3:])
    second.merge(copy.deepcopy(first))
    assert second.compute().to_dict() == computed.to_dict()
    assert math.isnan(Pose3dScores().compute().value)


def test_bad_input_is_named() -> None:
    with pytest.raises(UsageError, match="length above 0"):
        Pose3dScores(threshold=0)
    with pytest.raises(RecordError, match="NaN or infinity"):
        Pose3dScores().update(torch.full((1, 2, 3), math.nan), torch.zeros(1, 2, 3))
    with pytest.raises(UsageError, match="unit"):
        Pose3dScores().merge(Pose3dScores(unit="mm"))
