"""Against scipy's rotations and matrix exponential, and the group's own laws."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from bestiary.geometry.rigid import (
    axis_angle_from_rotation,
    cross_matrix,
    interpolate_motion,
    motion_from_twist,
    quaternion_from_rotation,
    rigid_motion,
    rotation_angle,
    rotation_from_axis_angle,
    rotation_from_quaternion,
    twist_from_motion,
)

LENGTHS = [0.0, 1e-9, 1e-4, 9.9e-4, 1.1e-3, 0.1, 1.0, 3.0, math.pi - 1e-6]


def vectors(length: float, count: int = 8) -> torch.Tensor:
    directions = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return length * directions / directions.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("length", LENGTHS)
def test_exponential_and_logarithm_are_scipys(length: float) -> None:
    v = vectors(length)
    rotation = rotation_from_axis_angle(v)
    np.testing.assert_allclose(rotation, Rotation.from_rotvec(v.numpy()).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(axis_angle_from_rotation(rotation), v, atol=1e-9)


def test_a_half_turn_has_a_logarithm_up_to_its_sign() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        back = axis_angle_from_rotation(rotation_from_axis_angle(math.pi * axis))
        np.testing.assert_allclose(back.abs(), math.pi * axis, atol=1e-7)


def test_float32_near_zero_keeps_its_digits() -> None:
    v = vectors(2e-4).float()
    assert torch.allclose(axis_angle_from_rotation(rotation_from_axis_angle(v)), v, rtol=1e-3, atol=1e-9)


def test_quaternions_are_scipys_and_have_w_first_and_not_negative() -> None:
    expected = Rotation.random(200, rng=np.random.default_rng(0))
    got = quaternion_from_rotation(torch.from_numpy(expected.as_matrix()))
    want = expected.as_quat(canonical=True, scalar_first=True)
    assert bool((got[:, 0] >= 0).all())
    np.testing.assert_allclose(got, want * np.where(want[:, :1] < 0, -1, 1), atol=1e-12)
    np.testing.assert_allclose(rotation_from_quaternion(3 * got), expected.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_quaternions_of_half_turns_where_w_is_zero(axis: int) -> None:
    v = torch.zeros(3, dtype=torch.float64)
    v[axis] = math.pi
    quaternion = quaternion_from_rotation(rotation_from_axis_angle(v))
    np.testing.assert_allclose(quaternion.abs(), np.eye(4)[axis + 1], atol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
def test_motion_of_a_twist_is_the_matrix_exponential(length: float) -> None:
    twist = torch.cat([torch.tensor([[0.3, -2.0, 1.0]] * 8, dtype=torch.float64), vectors(length)], dim=1)
    motion = motion_from_twist(twist)
    for t, m in zip(twist, motion, strict=True):
        generator = np.zeros((4, 4))
        generator[:3, :3], generator[:3, 3] = cross_matrix(t[3:]), t[:3]
        np.testing.assert_allclose(m, expm(generator), atol=1e-12)
    np.testing.assert_allclose(twist_from_motion(motion), twist, atol=1e-6)


def test_the_cross_matrix_takes_cross_products() -> None:
    a, b = vectors(2.0), vectors(1.0).flip(0)
    assert torch.allclose((cross_matrix(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


def test_gradients_also_at_the_identity() -> None:
    for length in (0.0, 1e-4, 0.7):
        twist = torch.cat([torch.ones(2, 3, dtype=torch.float64), vectors(length, 2)], dim=1).requires_grad_()
        assert torch.autograd.gradcheck(motion_from_twist, twist, atol=1e-6)
        motion = motion_from_twist(twist).detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda m: axis_angle_from_rotation(m[..., :3, :3]), motion, atol=1e-5)


def test_angles_between_rotations() -> None:
    first = rotation_from_axis_angle(vectors(1.0))
    for angle in (0.0, 1e-8, 1.2, math.pi):
        turned = first @ rotation_from_axis_angle(vectors(angle))
        np.testing.assert_allclose(rotation_angle(first, turned), angle, atol=1e-7)


def test_half_the_way_twice_is_the_whole_way() -> None:
    first = rigid_motion(rotation_from_axis_angle(vectors(0.5)), vectors(2.0))
    second = rigid_motion(rotation_from_axis_angle(vectors(1.5).flip(0)), vectors(1.0))
    half = interpolate_motion(first, second, 0.5)
    assert torch.allclose(half @ torch.linalg.solve(first, half), second)
    assert torch.allclose(interpolate_motion(first, second, 0), first)
    assert torch.allclose(interpolate_motion(first, second, 1.0), second)
