"""Rotations and rigid motions of space: exponential and logarithm, quaternions, the way between two poses.

Rotations are right-handed matrices that act on columns; a rigid motion is `[R | t; 0 1]`, `R p + t`. Angles are
radians. All functions keep the dtype and are differentiable, also at the identity. (Barfoot, State Estimation for
Robotics, 2017, chapter 7.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-6
"""Square of the angle below which a series stands for the quotient: its first two terms are exact to 1e-13."""


def rigid_motion(rotation: Float[Tensor, "*B 3 3"], translation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4 4"]:
    """`[R | t; 0 1]`."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 0, 3] = 1
    return torch.cat([top, bottom], dim=-2)


def cross_matrix(vectors: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The matrix whose product with p is the cross product `v x p`."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_from_axis_angle(rotation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The turn by `|rotation|` radians about `rotation`: Rodrigues' formula, the exponential map of SO(3)."""
    first, second, _ = _series(rotation)
    cross = cross_matrix(rotation)
    return _identity(rotation) + first * cross + second * (cross @ cross)


def axis_angle_from_rotation(rotation: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """The logarithm map of SO(3): axis times angle, 0..pi. At a half turn either axis is right and one is given."""
    quaternion = quaternion_from_rotation(rotation)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    square = (v * v).sum(-1, keepdim=True)
    small = square < _SMALL
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    # 2 atan(s / w) / s, whose series at s = 0 is 2 / w (1 - s^2 / (3 w^2)); there w is near 1.
    near_one = torch.where(small, w, torch.ones_like(w))
    factor = torch.where(small, 2 / near_one * (1 - square / (3 * near_one**2)), 2 * torch.atan2(sine, w) / sine)
    return factor * v


def motion_from_twist(twist: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 4 4"]:
    """The exponential map of SE(3).

    Args:
        twist: velocity v (3), then rotation axis times angle w (3): the motion after unit time.
    """
    velocity, rotation = twist[..., :3], twist[..., 3:]
    translation = (_left_jacobian(rotation) @ velocity[..., None])[..., 0]
    return rigid_motion(rotation_from_axis_angle(rotation), translation)


def twist_from_motion(motion: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 6"]:
    """The logarithm map of SE(3), the inverse of `motion_from_twist` for turns below pi."""
    rotation = axis_angle_from_rotation(motion[..., :3, :3])
    velocity = torch.linalg.solve(_left_jacobian(rotation), motion[..., :3, 3:])[..., 0]
    return torch.cat([velocity, rotation], dim=-1)


def quaternion_from_rotation(rotation: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """Unit quaternion (w, x, y, z) with w >= 0.

    The products of a quaternion's parts are sums of the matrix's entries; the row of products with the largest part is
    taken, so that nothing small is divided by.
    """
    r = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    ww, xx = 1 + r[0][0] + r[1][1] + r[2][2], 1 + r[0][0] - r[1][1] - r[2][2]
    yy, zz = 1 - r[0][0] + r[1][1] - r[2][2], 1 - r[0][0] - r[1][1] + r[2][2]
    wx, wy, wz = r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]
    xy, xz, yz = r[1][0] + r[0][1], r[0][2] + r[2][0], r[2][1] + r[1][2]
    products = torch.stack([ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], dim=-1)
    products = products.unflatten(-1, (4, 4))
    largest = torch.diagonal(products, dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(products, largest[..., None, None], dim=-2)[..., 0, :]
    unit = row / row.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def rotation_from_quaternion(quaternion: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation of a quaternion (w, x, y, z) of any length but zero."""
    unit = quaternion / quaternion.norm(dim=-1, keepdim=True)
    cross = cross_matrix(unit[..., 1:])
    return _identity(unit) + 2 * (unit[..., :1, None] * cross + cross @ cross)


def rotation_angle(first: Float[Tensor, "*B 3 3"], second: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B"]:
    """Radians, 0..pi, between two rotations: how far one must turn to become the other."""
    quaternion = quaternion_from_rotation(first.transpose(-1, -2) @ second)
    return 2 * torch.atan2(quaternion[..., 1:].norm(dim=-1), quaternion[..., 0])


def interpolate_motion(
    first: Float[Tensor, "*B 4 4"], second: Float[Tensor, "*B 4 4"], share: float | int
) -> Float[Tensor, "*B 4 4"]:
    """The motion on the screw from `first` (share 0) to `second` (share 1), at constant speed; beyond 0..1 it goes
    on."""
    step = twist_from_motion(torch.linalg.solve(first, second))
    return first @ motion_from_twist(share * step)


def _left_jacobian(rotation: Tensor) -> Tensor:
    """What a steady turn makes of a velocity: the mean of the rotations on the way."""
    _, second, third = _series(rotation)
    cross = cross_matrix(rotation)
    return _identity(rotation) + second * cross + third * (cross @ cross)


def _series(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin a / a, (1 - cos a) / a^2 and (a - sin a) / a^3 of the angle a, `[*B 1 1]`."""
    square = (rotation * rotation).sum(-1)[..., None, None]
    small = square < _SMALL
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    first = torch.where(small, 1 - square / 6, torch.sin(angle) / angle)
    # 2 sin^2(a/2) keeps the digits that 1 - cos a would lose
    second = torch.where(small, 0.5 - square / 24, 2 * torch.sin(angle / 2).square() / angle.square())
    third = torch.where(small, 1 / 6 - square / 120, (angle - torch.sin(angle)) / angle**3)
    return first, second, third


def _identity(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)
