"""Maps of the plane or of space that take points to their partners best: similarity, affine map, homography.

Points are rows `[*B N D]`, batched over any leading axes; weights (0 for a pair that does not count) go with each pair.
An affine map or similarity is `[*B D D+1]`, `A p + t`; a homography `[*B 3 3]`. Arithmetic is float64 inside; answers
have the points' dtype. Differentiable.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.records import require

Points = Float[Tensor, "*B N D"]


def map_points(points: Points, matrix: Float[Tensor, "*#B R C"]) -> Points:
    """Points under an affine map `[D, D+1]` or a projective one `[D+1, D+1]`.

    Points on a homography's horizon become infinite; beyond it they come back from the other side.

    Raises:
        RecordError: the matrix has another shape.
    """
    dims = points.shape[-1]
    shape = tuple(matrix.shape[-2:])
    fits = shape in ((dims, dims + 1), (dims + 1, dims + 1))
    require(fits, "map_points(matrix)", f"{shape}", f"{(dims, dims + 1)} or {(dims + 1, dims + 1)}")
    mapped = points @ matrix[..., :dims].transpose(-1, -2) + matrix[..., None, :, dims]
    return mapped if shape[0] == dims else mapped[..., :dims] / mapped[..., dims:]


def fit_similarity(
    points: Points, targets: Points, weights: Float[Tensor, "*B N"] | None = None, scaling: bool = True
) -> Float[Tensor, "*B D E"]:
    """Rotation, scale and shift of least squares: `[s R | t]`, never a reflection (Umeyama, PAMI 1991).

    Args:
        points: at least two in the plane, three in space, for a unique answer; fewer give one of many.
        targets: where they should come to lie.
        weights: not negative.
        scaling: False fixes the scale at 1: a rigid motion.

    Raises:
        RecordError: shapes do not fit.
    """
    p, q, w = _prepared("fit_similarity", points, targets, weights, 1)
    mean_p, mean_q = (w * p).sum(-2, keepdim=True), (w * q).sum(-2, keepdim=True)
    p, q = p - mean_p, q - mean_q
    covariance = q.transpose(-1, -2) @ (w * p)
    left, values, right = torch.linalg.svd(covariance)
    sign = torch.ones_like(values)
    sign[..., -1] = torch.where(torch.linalg.det(left) * torch.linalg.det(right) < 0, -1.0, 1.0)
    rotation = (left * sign[..., None, :]) @ right
    spread = (w * p * p).sum((-1, -2))
    if scaling:
        # Points that all coincide say nothing of scale.
        one_place = spread <= 0
        scale = torch.where(one_place, 1.0, (values * sign).sum(-1) / torch.where(one_place, 1.0, spread))
        rotation = scale[..., None, None] * rotation
    shift = mean_q.transpose(-1, -2) - rotation @ mean_p.transpose(-1, -2)
    return torch.cat([rotation, shift], dim=-1).to(points.dtype)


def fit_affine(
    points: Points, targets: Points, weights: Float[Tensor, "*B N"] | None = None
) -> Float[Tensor, "*B D E"]:
    """The affine map of least squares, `[A | t]`: D + 1 pairs in general position give it exactly.

    Degenerate points (all on a line, say) give the map of smallest linear part about their mean.

    Raises:
        RecordError: shapes do not fit.
    """
    p, q, w = _prepared("fit_affine", points, targets, weights, 1)
    mean_p, mean_q = (w * p).sum(-2, keepdim=True), (w * q).sum(-2, keepdim=True)
    p, q = p - mean_p, q - mean_q
    root = w.sqrt()
    linear = (torch.linalg.pinv(root * p) @ (root * q)).transpose(-1, -2)
    shift = mean_q.transpose(-1, -2) - linear @ mean_p.transpose(-1, -2)
    return torch.cat([linear, shift], dim=-1).to(points.dtype)


def fit_homography(
    points: Float[Tensor, "*B N 2"], targets: Float[Tensor, "*B N 2"], weights: Float[Tensor, "*B N"] | None = None
) -> Float[Tensor, "*B 3 3"]:
    """The homography of smallest algebraic error: the normalised direct linear transform.

    Both point sets are first moved to mean 0 and mean distance sqrt(2) (Hartley, PAMI 1997), so the answer does not
    depend on the unit or the origin. Four pairs, no three on a line, give it exactly.

    Returns:
        Scaled so that the last entry is 1; where that would be 0, so that all entries' squares sum to 1.

    Raises:
        RecordError: shapes do not fit, or fewer than four pairs.
    """
    p, q, w = _prepared("fit_homography", points, targets, weights, 4)
    (p, to_p), (q, to_q) = _normalised(p, w), _normalised(q, w)
    one, zero = torch.ones_like(p[..., :1]), torch.zeros_like(p)
    source = torch.cat([p, one], dim=-1)
    nothing = torch.cat([zero, zero[..., :1]], dim=-1)
    across = torch.cat([source, nothing, -q[..., :1] * source], dim=-1)
    down = torch.cat([nothing, source, -q[..., 1:] * source], dim=-1)
    rows = torch.cat([w.sqrt() * across, w.sqrt() * down], dim=-2)
    # With a ninth row four pairs have their null vector too, without the large square factor that no one needs.
    rows = torch.cat([rows, torch.zeros_like(rows[..., :1, :])], dim=-2)
    null = torch.linalg.svd(rows, full_matrices=False).Vh[..., -1, :]
    matrix = torch.linalg.solve(to_q, null.unflatten(-1, (3, 3)) @ to_p)
    matrix = matrix / torch.linalg.matrix_norm(matrix, keepdim=True)
    last = matrix[..., 2:, 2:]
    at_infinity = last.abs() < 1e-12
    return (matrix / torch.where(at_infinity, 1.0, last)).to(points.dtype)


def transfer_errors(matrix: Float[Tensor, "*#B R C"], points: Points, targets: Points) -> Float[Tensor, "*B N"]:
    """Distance between each mapped point and its target; infinite where a homography parts it from most other points
    by the horizon.
    """
    errors = (map_points(points, matrix) - targets).norm(dim=-1)
    if matrix.shape[-2] != points.shape[-1]:
        depth = (points @ matrix[..., -1:, :-1].transpose(-1, -2) + matrix[..., -1:, -1:])[..., 0]
        # A homography's sign is free: in front is where most points are.
        front = depth.median(-1, keepdim=True).values.sign()
        errors = torch.where(depth * front > 0, errors, torch.inf)
    return torch.nan_to_num(errors, nan=torch.inf, posinf=torch.inf)


def _prepared(
    where: str, points: Tensor, targets: Tensor, weights: Tensor | None, least: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both in float64, and weights `[*B N 1]` that sum to one."""
    fits = points.shape == targets.shape and points.ndim >= 2
    require(fits, f"{where}(targets)", f"shape {tuple(targets.shape)}", f"{tuple(points.shape)}, as the points")
    require(points.shape[-2] >= least, f"{where}(points)", f"{points.shape[-2]} pairs", f"at least {least}")
    w = torch.ones_like(points[..., 0]) if weights is None else weights
    require(w.shape == points.shape[:-1], f"{where}(weights)", f"shape {tuple(w.shape)}", f"{tuple(points.shape[:-1])}")
    require(bool((w >= 0).all() and (w.sum(-1) > 0).all()), f"{where}(weights)", "negative or all 0", "0 or more")
    w = w.double()
    return points.double(), targets.double(), (w / w.sum(-1, keepdim=True))[..., None]


def _normalised(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Points of mean 0 and mean distance sqrt(2), and the matrix `[*B 3 3]` that makes them so."""
    mean = (weights * points).sum(-2, keepdim=True)
    distance = (weights * (points - mean).norm(dim=-1, keepdim=True)).sum((-1, -2))
    scale = 2**0.5 / torch.where(distance > 0, distance, 1.0)
    matrix = torch.diag_embed(torch.stack([scale, scale, torch.ones_like(scale)], dim=-1))
    matrix[..., :2, 2:] = -scale[..., None, None] * mean.transpose(-1, -2)
    return scale[..., None, None] * (points - mean), matrix
