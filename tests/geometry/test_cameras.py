import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry import cameras


def random_pose(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return cameras.pose_from_axis_angle(numbers[0], numbers[1] * 3)


def test_fov_of_ninety_degrees_has_a_focal_length_of_half_the_width() -> None:
    intrinsics = cameras.intrinsics_from_fov(math.pi / 2, (100, 200))
    assert torch.allclose(intrinsics, torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]))
    for fov in (0.0, math.pi, -1.0):
        with pytest.raises(RecordError, match="fov"):
            cameras.intrinsics_from_fov(fov, (4, 4))


def test_projection_of_hand_worked_points() -> None:
    intrinsics = torch.tensor([[100.0, 0, 64], [0, 200, 32], [0, 0, 1]])
    points = torch.tensor([[0.0, 0, 5], [1, 0, 2], [0, -1, 4]])
    assert cameras.project(points, intrinsics).tolist() == [[64, 32], [114, 32], [64, -18]]
    assert cameras.project(torch.zeros(0, 3), intrinsics).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unproject_inverts_project(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(2, 7, 3, generator=generator, dtype=dtype) + torch.tensor([-0.5, -0.5, 1.0], dtype=dtype)
    intrinsics = torch.stack([cameras.intrinsics_from_fov(f, (60, 80), dtype) for f in (0.7, 1.4)])
    back = cameras.unproject(cameras.project(points, intrinsics), points[..., 2], intrinsics)
    assert back.dtype == dtype
    assert torch.allclose(back, points, atol=1e-6 if dtype == torch.float32 else 1e-14)


def test_unproject_depth_is_unproject_of_every_pixel_centre() -> None:
    depth = torch.arange(1.0, 13.0).reshape(3, 4)
    intrinsics = cameras.intrinsics_from_fov(1.0, (3, 4))
    points = cameras.unproject_depth(depth, intrinsics)
    for y in range(3):
        for x in range(4):
            expected = cameras.unproject(torch.tensor([[x + 0.5, y + 0.5]]), depth[y, x][None], intrinsics)[0]
            assert torch.allclose(points[y, x], expected)
    assert torch.equal(points[..., 2], depth)


def test_resized_and_cropped_pictures_have_these_intrinsics() -> None:
    intrinsics = cameras.intrinsics_from_fov(0.9, (90, 120), torch.float64)
    points = torch.tensor([[0.3, -0.2, 2.0], [-0.5, 0.4, 3.0]], dtype=torch.float64)
    pixels = cameras.project(points, intrinsics)
    halved = cameras.project(points, cameras.scale_intrinsics(intrinsics, (0.5, 0.25)))
    assert torch.allclose(halved, pixels * torch.tensor([0.5, 0.25], dtype=torch.float64))
    cropped = cameras.project(points, cameras.crop_intrinsics(intrinsics, (10.0, 7.0)))
    assert torch.allclose(cropped, pixels - torch.tensor([10.0, 7.0], dtype=torch.float64))
    mirror = torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    flipped = cameras.project(
        points * mirror, cameras.flip_intrinsics(cameras.crop_intrinsics(intrinsics, (10.0, 0.0)), 110)
    )
    assert torch.allclose(flipped[:, 0], 110 - (pixels[:, 0] - 10))


def test_inverse_and_relative_poses_take_points_there_and_back() -> None:
    a, b = random_pose(1), random_pose(2)
    points = torch.rand(5, 3, dtype=torch.float64)
    assert torch.allclose(cameras.move_points(cameras.move_points(points, a), cameras.invert_pose(a)), points)
    assert torch.allclose(cameras.invert_pose(a), torch.linalg.inv(a))
    world = cameras.move_points(points, a)
    through = cameras.move_points(cameras.move_points(points, cameras.relative_pose(a, b)), b)
    assert torch.allclose(world, through)
    assert torch.allclose(cameras.relative_pose(a, a), torch.eye(4, dtype=torch.float64), atol=1e-12)


def test_reprojection_without_motion_is_the_identity_and_a_step_aside_is_the_disparity() -> None:
    depth = torch.full((4, 6), 2.0)
    intrinsics = torch.tensor([[10.0, 0, 3], [0, 10, 2], [0, 0, 1]])
    still, z = cameras.reproject(depth, intrinsics, torch.eye(4))
    assert torch.allclose(still, cameras.pixel_centres((4, 6), depth), atol=1e-5)
    assert torch.allclose(z, depth)
    step = torch.eye(4)
    step[0, 3] = -0.4  # the other camera stands 0.4 m to the right: things move left by f b / z = 2 pixels
    moved, _ = cameras.reproject(depth, intrinsics, step)
    assert torch.allclose(moved, still - torch.tensor([2.0, 0.0]), atol=1e-5)


def test_look_at_puts_the_target_in_the_principal_point() -> None:
    eye, target = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([4.0, 0.0, 5.0])
    pose = cameras.look_at(eye, target)
    seen = cameras.move_points(target[None], cameras.invert_pose(pose))[0]
    assert torch.allclose(seen, torch.tensor([0.0, 0.0, float((target - eye).norm())]), atol=1e-5)
    assert torch.allclose(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3), atol=1e-6)
    assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[1, 1] > 0  # the picture's downwards is the world's
    assert pose[1, 0] == pytest.approx(0)  # and its horizon is level
    assert torch.allclose(cameras.look_at(torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])), torch.eye(4))
    with pytest.raises(RecordError, match="look_at"):
        cameras.look_at(eye, eye + torch.tensor([0.0, 1.0, 0.0]))


def test_axis_angle_equals_the_matrix_exponential_and_has_gradients_at_zero() -> None:
    for vector in ([0.3, -1.2, 2.0], [1e-4, 0.0, -2e-4], [0.0, 0.0, 0.0], [0.0, math.pi, 0.0]):
        x, y, z = vector
        skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        pose = cameras.pose_from_axis_angle(
            torch.tensor(vector, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        )
        assert torch.allclose(pose[:3, :3], torch.linalg.matrix_exp(skew), atol=1e-12)
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cameras.pose_from_axis_angle, (zero, zero.detach().clone().requires_grad_()))


def test_yaw_turns_right_towards_the_camera() -> None:
    turned = cameras.yaw_rotation(torch.tensor(math.pi / 2)) @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([0.0, 0.0, -1.0]), atol=1e-6)
    rotation = cameras.pose_from_axis_angle(torch.tensor([0.0, 0.7, 0.0]), torch.zeros(3))[:3, :3]
    assert torch.allclose(cameras.yaw_rotation(torch.tensor(0.7)), rotation, atol=1e-6)


def test_corners_of_a_hand_worked_box() -> None:
    corners = cameras.boxes_3d_corners(torch.tensor([[1.0, 2, 10, 4, 2, 6, 0.0], [0.0, 0, 5, 4, 2, 6, math.pi / 2]]))
    assert corners[0, 0].tolist() == [-1, 1, 7]
    assert corners[0, 7].tolist() == [3, 3, 13]
    assert corners[0, 4].tolist() == [3, 1, 7]
    low, high = corners[1].amin(0), corners[1].amax(0)
    assert torch.allclose(high - low, torch.tensor([6.0, 2.0, 4.0]), atol=1e-5)
    assert torch.allclose(
        corners[1, 4], torch.tensor([-3.0, -1.0, 3.0]), atol=1e-5
    )  # the front end came towards the camera
    assert cameras.boxes_3d_corners(torch.zeros(0, 7)).shape == (0, 8, 3)
