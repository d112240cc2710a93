"""Parts of objects: how far they reach, and where they stand before a camera."""

import math

import numba
import numpy as np

from bestiary.data.world._kernels.layout import (
    BOX,
    CAPSULE,
    CENTRE,
    ELLIPSOID,
    FRAME,
    FRUSTUM,
    KIND,
    ORIGIN,
    OWNER,
    PAINT,
    PART_AXIS,
    PART_CENTRE,
    PART_KIND,
    PART_OWNER,
    PART_PAINT,
    PART_SIZE,
    PART_TINT,
    PYRAMID,
    REACH,
    SIZE,
    SOLID_COLUMNS,
    TINT,
    TORUS,
    TURN,
)


@numba.njit(cache=True, error_model="numpy")
def _axes(part: np.ndarray, axes: np.ndarray) -> None:
    """Rows of `axes`: the local x, y and z in the object's frame, by the smallest turn that takes y to the part's
    axis."""
    x, y, z = part[PART_AXIS], part[PART_AXIS + 1], part[PART_AXIS + 2]
    if y < -0.999999:
        axes[:] = 0.0
        axes[0, 0], axes[1, 1], axes[2, 2] = 1.0, -1.0, -1.0
        return
    k = 1.0 / (1.0 + y)
    axes[0, 0], axes[0, 1], axes[0, 2] = 1.0 - k * x * x, -x, -k * x * z
    axes[1, 0], axes[1, 1], axes[1, 2] = x, y, z
    axes[2, 0], axes[2, 1], axes[2, 2] = -k * x * z, -z, 1.0 - k * z * z


@numba.njit(cache=True, error_model="numpy")
def _support(kind: int, sizes: np.ndarray, x: float, y: float, z: float) -> float:
    """How far a solid reaches from its middle along the unit vector (x, y, z) of its local frame."""
    p, q, r = sizes
    if kind == ELLIPSOID:
        return math.sqrt(p * p * x * x + q * q * y * y + r * r * z * z)
    if kind == BOX:
        return p * abs(x) + q * abs(y) + r * abs(z)
    flat = math.sqrt(x * x + z * z)
    if kind == FRUSTUM:
        return max(q * y + p * flat, -q * y + r * flat)
    if kind == CAPSULE:
        return p + q * abs(y)
    if kind == TORUS:
        return q + p * flat
    return max(q * y + p * abs(x) + r * abs(z), -q * y)


@numba.njit(cache=True, error_model="numpy")
def extents(parts: np.ndarray) -> np.ndarray:
    """The smallest and largest x, y and z `[2, 3]` of all parts together, object frame: exact, not of bounding
    spheres."""
    bounds = np.empty((2, 3))
    bounds[0], bounds[1] = math.inf, -math.inf
    axes = np.empty((3, 3))
    for i in range(len(parts)):
        part = parts[i]
        _axes(part, axes)
        kind = int(part[PART_KIND])
        sizes = part[PART_SIZE : PART_SIZE + 3]
        for axis in range(3):
            x, y, z = axes[0, axis], axes[1, axis], axes[2, axis]
            middle = part[PART_CENTRE + axis]
            bounds[1, axis] = max(bounds[1, axis], middle + _support(kind, sizes, x, y, z))
            bounds[0, axis] = min(bounds[0, axis], middle - _support(kind, sizes, -x, -y, -z))
    return bounds


@numba.njit(cache=True, error_model="numpy")
def _reach(kind: int, sizes: np.ndarray) -> float:
    p, q, r = sizes
    if kind == ELLIPSOID:
        return max(p, max(q, r))
    if kind in (BOX, PYRAMID):
        return math.sqrt(p * p + q * q + r * r)
    if kind == FRUSTUM:
        return math.sqrt(max(p, r) ** 2 + q * q)
    return p + q


@numba.njit(cache=True, error_model="numpy")
def pose(parts: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """The solids `[M, SOLID_COLUMNS]` of all parts in the camera frame; `looks` gives each owner's frame and origin."""
    solids = np.zeros((len(parts), SOLID_COLUMNS))
    axes = np.empty((3, 3))
    for i in range(len(parts)):
        part, solid = parts[i], solids[i]
        look = looks[int(part[PART_OWNER])]
        solid[KIND], solid[OWNER] = part[PART_KIND], part[PART_OWNER]
        solid[TINT], solid[PAINT] = part[PART_TINT], part[PART_PAINT]
        solid[SIZE : SIZE + 3] = part[PART_SIZE : PART_SIZE + 3]
        solid[REACH] = _reach(int(part[PART_KIND]), part[PART_SIZE : PART_SIZE + 3])
        _axes(part, axes)
        for k in range(3):
            # FRAME has the object's axes as rows, in camera coordinates: its transpose leads out of the object.
            solid[CENTRE + k] = look[ORIGIN + k]
            for j in range(3):
                solid[CENTRE + k] += look[FRAME + 3 * j + k] * part[PART_CENTRE + j]
                total = 0.0
                for m in range(3):
                    total += axes[k, m] * look[FRAME + 3 * m + j]
                solid[TURN + 3 * k + j] = total
    return solids
