"""Points and joints in the plane: mirrored, moved by an affine map, dropped where they leave the picture.

Points are continuous pixels: the centre of the top left pixel is (0.5, 0.5), so a mirror sends x to width - x.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.errors import RecordError


def flip_points(points_xy: Float[Tensor, "*B 2"], width: float | int) -> Float[Tensor, "*B 2"]:
    """Mirror left and right in a picture `width` pixels wide."""
    return torch.stack([width - points_xy[..., 0], points_xy[..., 1]], dim=-1)


def joint_order(pairs: Sequence[tuple[int, int]], num_joints: int) -> list[int]:
    """Where each joint of a mirrored body is found in the original: the identity with every pair swapped.

    Raises:
        RecordError: a pair names a joint that does not exist, or a joint is in two pairs.
    """
    order, paired = list(range(num_joints)), set()
    for a, b in pairs:
        if not (0 <= a < num_joints and 0 <= b < num_joints):
            raise RecordError(f"got pair ({a}, {b}), wanted joints below {num_joints}", where="joint_pairs")
        if a in paired or b in paired or a == b:
            raise RecordError(f"got pair ({a}, {b}), wanted each joint in at most one pair", where="joint_pairs")
        paired |= {a, b}
        order[a], order[b] = b, a
    return order


def flip_keypoints(
    keypoints: Float[Tensor, "*B J 3"], width: float | int, pairs: Sequence[tuple[int, int]]
) -> Float[Tensor, "*B J 3"]:
    """Mirror bodies left and right: positions mirror, and left joints become right ones.

    Args:
        keypoints: x, y and visibility or score; joints whose third number is 0 (not annotated) keep their x and y,
            which COCO sets to 0.
        width: of the picture, pixels.
        pairs: joints that change places (left eye, right eye ...).

    Raises:
        RecordError: as `joint_order`.
    """
    swapped = keypoints[..., joint_order(pairs, keypoints.shape[-2]), :]
    x = torch.where(swapped[..., 2] > 0, width - swapped[..., 0], swapped[..., 0])
    return torch.stack([x, swapped[..., 1], swapped[..., 2]], dim=-1)


def transform_points(points_xy: Float[Tensor, "*B 2"], matrix: Float[Tensor, "2 3"]) -> Float[Tensor, "*B 2"]:
    """Points under the affine map `[A | t]`: `A p + t`, in continuous pixels."""
    return points_xy @ matrix[:, :2].T + matrix[:, 2]


def transform_keypoints(keypoints: Float[Tensor, "*B J 3"], matrix: Float[Tensor, "2 3"]) -> Float[Tensor, "*B J 3"]:
    """Joints under an affine map; those not annotated (third number 0) stay as they are. Left and right are not
    swapped."""
    moved = torch.cat([transform_points(keypoints[..., :2], matrix), keypoints[..., 2:]], dim=-1)
    return torch.where(keypoints[..., 2:] > 0, moved, keypoints)


def shift_map(matrix: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    """The same map for coordinates whose origin is the centre of the top left pixel, as OpenCV's warpAffine wants
    it."""
    half = matrix.new_full((2,), 0.5)
    return torch.cat([matrix[:, :2], (matrix[:, :2] @ half + matrix[:, 2] - half)[:, None]], dim=1)


def clip_keypoints(keypoints: Float[Tensor, "*B J 3"], size_hw: tuple[int, int]) -> Float[Tensor, "*B J 3"]:
    """Joints that left the picture become not annotated: x, y and visibility 0, as COCO has it.

    A joint is inside where 0 <= x <= width and 0 <= y <= height.
    """
    height, width = size_hw
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (keypoints[..., 2] > 0)
    return torch.where(inside[..., None], keypoints, torch.zeros_like(keypoints))
