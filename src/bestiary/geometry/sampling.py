"""Points chosen from surfaces and clouds."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.records import require


def farthest_points(points: Float[Tensor, "*B N D"], count: int, start: int = 0) -> Int64[Tensor, "*B count"]:
    """Indices of points spread far apart: each next one has the greatest distance to those already chosen.

    (Gonzalez 1985; PointNet++, Qi et al., NIPS 2017.) Ties go to the lower index; once every place is taken, places
    repeat.

    Args:
        points: N points of each cloud.
        count: how many to choose, up to N.
        start: the first.

    Raises:
        RecordError: more than there are, or no such start.
    """
    require(1 <= count <= points.shape[-2], "count", count, f"1 to {points.shape[-2]}, the points")
    require(0 <= start < points.shape[-2], "start", start, f"0 to {points.shape[-2] - 1}")
    chosen = torch.empty(*points.shape[:-2], count, dtype=torch.int64, device=points.device)
    nearest = torch.full_like(points[..., 0], torch.inf)
    last = torch.full_like(chosen[..., :1], start)
    for i in range(count):
        chosen[..., i : i + 1] = last
        place = torch.take_along_dim(points, last[..., None], dim=-2)
        nearest = torch.minimum(nearest, (points - place).square().sum(-1))
        last = nearest.argmax(-1, keepdim=True)
    return chosen


def sample_triangles(
    vertices: Float[Tensor, "V 3"], faces: Int64[Tensor, "F 3"], count: int, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "count 3"], Int64[Tensor, " count"]]:
    """Points spread evenly over a mesh's surface, and the face that each lies on (Osada et al., 2002, section 3.1).

    Differentiable with respect to the vertices.

    Raises:
        RecordError: a face names no vertex, or the surface has no area.
    """
    inside = not faces.numel() or bool((faces >= 0).all() and (faces < len(vertices)).all())
    require(inside, "faces", "a vertex that does not exist", f"0 to {len(vertices) - 1}")
    a, b, c = vertices[faces].unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1).detach()
    require(bool(areas.sum() > 0), "faces", "no area", "a surface")
    which = torch.multinomial(areas.double(), count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, 1, dtype=vertices.dtype, device=vertices.device, generator=generator)
    root = u.sqrt()
    return (1 - root) * a[which] + root * (1 - v) * b[which] + root * v * c[which], which
