"""Pictures and features sampled at points, warped by affine maps and homographies, or along a flow.

Convention: continuous pixels, the outer corner of the top-left pixel at (0, 0) and its centre at (0.5, 0.5); a map
takes points of the input to points of the output. Outside the input lies zero, its border, or its mirror image.
Gradients flow to the input, the points and the map.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.cameras import pixel_centres
from bestiary.geometry.fitting import map_points
from bestiary.records import require

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Outside = Literal["zeros", "border", "reflection"]

_FAR = 1e4
"""In units of the picture's size: where points beyond the horizon are sent."""


def sample_at(
    input: Float[Tensor, "B C H W"],
    points_xy: Float[Tensor, "B *S 2"],
    mode: Interpolation = "bilinear",
    outside: Outside = "zeros",
) -> Float[Tensor, "B C *S"]:
    """Values at points between pixels.

    Args:
        input: pictures or features.
        points_xy: continuous pixels; at a pixel's centre its own value comes out. Any axes of points.
        mode: how values between centres are made; bicubic has a = -0.75, as OpenCV's.
        outside: "zeros" fades to zero over the half pixel around the picture; "reflection" mirrors at its edges.

    Raises:
        RecordError: shapes do not fit.
    """
    fits = input.ndim == 4 and points_xy.shape[-1] == 2 and len(points_xy) == len(input)
    got = f"shapes {tuple(input.shape)} and {tuple(points_xy.shape)}"
    require(fits, "sample_at(input, points_xy)", got, "(B, C, H, W) and (B, ..., 2)")
    size = torch.tensor([input.shape[3], input.shape[2]], dtype=points_xy.dtype, device=points_xy.device)
    grid = (2 * points_xy / size - 1).reshape(len(input), 1, -1, 2).to(input.dtype)
    values = F.grid_sample(input, grid, mode=mode, padding_mode=outside, align_corners=False)
    return values.reshape(*input.shape[:2], *points_xy.shape[1:-1])


def warp(
    input: Float[Tensor, "B C H W"],
    matrix: Float[Tensor, "... R 3"],
    size_hw: tuple[int, int] | None = None,
    mode: Interpolation = "bilinear",
    outside: Outside = "zeros",
) -> Float[Tensor, "B C H2 W2"]:
    """Pictures under an affine map (2 x 3) or a homography (3 x 3), resampled at the output's pixel centres.

    Args:
        input: pictures or features. Shrinking does not smooth first.
        matrix: takes points of the input to points of the output; one for all, or `[B, ...]`.
        size_hw: of the output; the input's if not given.
        mode: see `sample_at`.
        outside: see `sample_at`.

    Raises:
        RecordError: shapes do not fit, or the map cannot be undone.
    """
    shape = tuple(matrix.shape)
    fits = shape[-2:] in ((2, 3), (3, 3)) and len(shape) in (2, 3) and (len(shape) == 2 or shape[0] == len(input))
    require(fits, "warp(matrix)", f"shape {shape}", "(2, 3) or (3, 3), one or a batch")
    square = matrix.double()
    if shape[-2] == 2:
        bottom = square.new_tensor([0.0, 0.0, 1.0]).expand(*shape[:-2], 1, 3)
        square = torch.cat([square, bottom], dim=-2)
    inverse, info = torch.linalg.inv_ex(square)
    require(not bool(info.any()), "warp(matrix)", "a map without inverse", "one that can be undone")
    size_hw = (input.shape[2], input.shape[3]) if size_hw is None else size_hw
    centres = pixel_centres(size_hw, square).reshape(-1, 2)
    points = map_points(centres.expand(len(input), -1, -1), inverse)
    depth = centres @ inverse[..., 2:, :2].transpose(-1, -2) + inverse[..., 2:, 2:]
    # A homography's sign is free: in front of the horizon is where the input's middle is.
    middle = square.new_tensor([input.shape[3] / 2, input.shape[2] / 2, 1.0])
    ahead = depth * (square[..., 2, :] @ middle).sign()[..., None, None] > 0
    points = torch.where(ahead & torch.isfinite(points), points, _FAR * max(input.shape[2:]))
    return sample_at(input, points.unflatten(1, size_hw).to(input.dtype), mode, outside)


def warp_by_flow(
    input: Float[Tensor, "B C H W"],
    flow: Float[Tensor, "B 2 H2 W2"],
    mode: Interpolation = "bilinear",
    outside: Outside = "zeros",
) -> Float[Tensor, "B C H2 W2"]:
    """Each output pixel has the input's value at its own centre plus the flow (x, y in pixels) there.

    Raises:
        RecordError: shapes do not fit.
    """
    fits = flow.ndim == 4 and flow.shape[1] == 2
    require(fits, "warp_by_flow(flow)", f"shape {tuple(flow.shape)}", "(B, 2, H, W)")
    size_hw = (flow.shape[2], flow.shape[3])
    return sample_at(input, pixel_centres(size_hw, flow) + flow.permute(0, 2, 3, 1), mode, outside)
