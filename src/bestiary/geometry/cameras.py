"""Pinhole cameras: points to pixels and back, rigid motions, 3D boxes.

A camera frame has x to the right, y down and z forward, in metres; a pose is camera-to-world; depth is z, not the
length of the ray. Pixels are continuous, the centre of the top left one is (0.5, 0.5). All functions keep the dtype
and are differentiable. (Hartley and Zisserman, Multiple View Geometry in Computer Vision, 2004, chapter 6.)
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.rigid import rigid_motion, rotation_from_axis_angle


def intrinsics_from_fov(
    fov: float | int, size_hw: tuple[int, int], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "3 3"]:
    """Intrinsics with square pixels and the principal point in the middle.

    Args:
        fov: horizontal field of view, radians, between 0 and pi.
        size_hw: of the picture, pixels.
        dtype: float32 or float64.

    Raises:
        RecordError: a field of view that no pinhole has.
    """
    if not 0 < fov < math.pi:
        raise RecordError(f"got {fov}, wanted radians between 0 and pi", where="fov")
    height, width = size_hw
    focal = width / 2 / math.tan(fov / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]], dtype=dtype)


def scale_intrinsics(
    intrinsics: Float[Tensor, "*B 3 3"], scale_xy: tuple[float | int, float | int]
) -> Float[Tensor, "*B 3 3"]:
    """Intrinsics of the picture resized by these factors (exact, because pixels are continuous)."""
    return intrinsics * intrinsics.new_tensor([scale_xy[0], scale_xy[1], 1.0])[:, None]


def crop_intrinsics(
    intrinsics: Float[Tensor, "*B 3 3"], corner_xy: tuple[float | int, float | int]
) -> Float[Tensor, "*B 3 3"]:
    """Intrinsics of the part of the picture whose top left corner is `corner_xy`."""
    shift = torch.zeros_like(intrinsics)
    shift[..., 0, 2], shift[..., 1, 2] = corner_xy
    return intrinsics - shift


def flip_intrinsics(intrinsics: Float[Tensor, "*B 3 3"], width: float | int) -> Float[Tensor, "*B 3 3"]:
    """Intrinsics of the mirrored picture: the mirrored scene (x to -x) seen by a camera with its principal point
    mirrored."""
    mirrored = intrinsics.clone()
    mirrored[..., 0, 2] = width - intrinsics[..., 0, 2]
    return mirrored


def project(points_xyz: Float[Tensor, "*B N 3"], intrinsics: Float[Tensor, "*#B 3 3"]) -> Float[Tensor, "*B N 2"]:
    """Pixels of points in the camera frame. Those with z <= 0 lie behind the camera: their pixels mean nothing, look
    at z."""
    image = points_xyz @ intrinsics.transpose(-1, -2)
    return image[..., :2] / image[..., 2:]


def unproject(
    points_xy: Float[Tensor, "*B N 2"], depth: Float[Tensor, "*B N"], intrinsics: Float[Tensor, "*#B 3 3"]
) -> Float[Tensor, "*B N 3"]:
    """The points of the camera frame that are seen at these pixels and depths (z): the inverse of `project`."""
    pixels = torch.cat([points_xy, torch.ones_like(points_xy[..., :1])], dim=-1)
    return pixels @ torch.linalg.inv(intrinsics).transpose(-1, -2) * depth[..., None]


def pixel_centres(size_hw: tuple[int, int], like: Float[Tensor, "..."]) -> Float[Tensor, "H W 2"]:
    """x and y of every pixel's centre, with the dtype and device of `like`."""
    y, x = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5 for length in size_hw)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def unproject_depth(depth: Float[Tensor, "*B H W"], intrinsics: Float[Tensor, "*#B 3 3"]) -> Float[Tensor, "*B H W 3"]:
    """The point of the camera frame that every pixel's centre sees."""
    height, width = depth.shape[-2:]
    centres = pixel_centres((height, width), depth).reshape(-1, 2).expand(*depth.shape[:-2], -1, 2)
    return unproject(centres, depth.flatten(-2), intrinsics).unflatten(-2, (height, width))


def move_points(points_xyz: Float[Tensor, "*B N 3"], pose: Float[Tensor, "*#B 4 4"]) -> Float[Tensor, "*B N 3"]:
    """Points under a rigid motion: `R p + t`; with a camera's pose, from its frame to the world's."""
    return points_xyz @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]


def invert_pose(pose: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 4 4"]:
    """The inverse of a rigid motion, `[R' | -R' t]`: exact where a general inverse rounds."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    return rigid_motion(rotation, -(rotation @ pose[..., :3, 3:])[..., 0])


def relative_pose(source: Float[Tensor, "*B 4 4"], target: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 4 4"]:
    """The motion that takes points of the source camera's frame into the target camera's; both poses
    camera-to-world."""
    return invert_pose(target) @ source


def reproject(
    depth: Float[Tensor, "*B H W"],
    intrinsics: Float[Tensor, "*#B 3 3"],
    motion: Float[Tensor, "*#B 4 4"],
    other_intrinsics: Float[Tensor, "*#B 3 3"] | None = None,
) -> tuple[Float[Tensor, "*B H W 2"], Float[Tensor, "*B H W"]]:
    """Where another camera sees what each pixel sees, and how deep: sampling it there synthesises this view.

    Args:
        depth: of this camera.
        intrinsics: of this camera.
        motion: from this camera's frame to the other's (`relative_pose(this, other)`).
        other_intrinsics: of the other camera; the same if not given.

    Returns:
        The other camera's continuous pixels, and z in its frame (not positive: behind it).
    """
    points = move_points(unproject_depth(depth, intrinsics).flatten(-3, -2), motion)
    seen = project(points, intrinsics if other_intrinsics is None else other_intrinsics)
    size_hw = depth.shape[-2:]
    return seen.unflatten(-2, size_hw), points[..., 2].unflatten(-1, size_hw)


def look_at(
    eye: Float[Tensor, "3"], target: Float[Tensor, "3"], down: Sequence[float | int] = (0.0, 1.0, 0.0)
) -> Float[Tensor, "4 4"]:
    """Pose of a camera at `eye` that has `target` in its principal direction and `down` (world) downwards in the
    picture.

    Raises:
        RecordError: the target is the eye, or lies straight below or above it.
    """
    forward = target - eye
    right = torch.linalg.cross(eye.new_tensor(list(down)), forward)
    if float(right.norm()) <= 1e-9 * max(1.0, float(forward.norm())):
        got = f"got eye {eye.tolist()} and target {target.tolist()}, wanted two points not above each other"
        raise RecordError(got, where="look_at", mend="Choose another `down`")
    forward, right = forward / forward.norm(), right / right.norm()
    return rigid_motion(torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1), eye)


def pose_from_axis_angle(
    rotation: Float[Tensor, "*B 3"], translation: Float[Tensor, "*B 3"]
) -> Float[Tensor, "*B 4 4"]:
    """The rigid motion that turns by `|rotation|` radians about `rotation`, then moves: Rodrigues' formula, smooth at
    zero."""
    return rigid_motion(rotation_from_axis_angle(rotation), translation)


def yaw_rotation(yaw: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation about the downward y axis, right-handed: a quarter turn takes x (right) to -z (towards the camera)."""
    cos, sin, zero, one = torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=-1).unflatten(-1, (3, 3))


def boxes_3d_corners(boxes_3d: Float[Tensor, "N 7"]) -> Float[Tensor, "N 8 3"]:
    """The corners of 3D boxes (centre x, y, z; length, height, width; yaw).

    At yaw 0 the length lies along x, the height along y and the width along z. Corner `4 a + 2 b + c` is at the end
    of the length where a is 1, at the bottom where b is 1 (y points down), and at the far end of the width where c is
    1.
    """
    halves = (-0.5, 0.5)
    signs = torch.tensor([[a, b, c] for a in halves for b in halves for c in halves], dtype=boxes_3d.dtype)
    local = signs.to(boxes_3d.device) * boxes_3d[:, None, 3:6]
    return local @ yaw_rotation(boxes_3d[:, 6]).transpose(-1, -2) + boxes_3d[:, None, :3]
