"""Rays and the six kinds of solids, each in its local frame: where a ray enters, and which way the surface faces
there."""

import math

import numba
import numpy as np

from bestiary.data.world._kernels.layout import (
    BOX,
    CAPSULE,
    CENTRE,
    ELLIPSOID,
    FRUSTUM,
    KIND,
    SIZE,
    TORUS,
    TURN,
)

Ray = tuple[float, float, float, float, float, float]
"""Origin and direction; the direction need not be of unit length."""

MISS = 1e30


@numba.njit(cache=True, error_model="numpy")
def _enter_slab(origin: float, direction: float, half: float, low: float, high: float) -> tuple[float, float]:
    """The part of `low..high` in which one coordinate stays within plus and minus `half`; low > high if none."""
    if abs(direction) < 1e-12:
        return (low, high) if abs(origin) <= half else (1.0, 0.0)
    a, b = (-half - origin) / direction, (half - origin) / direction
    return max(low, min(a, b)), min(high, max(a, b))


@numba.njit(cache=True, error_model="numpy")
def _ellipsoid(ray: Ray, p: float, q: float, r: float, low: float) -> float:
    ox, oy, oz, dx, dy, dz = ray[0] / p, ray[1] / q, ray[2] / r, ray[3] / p, ray[4] / q, ray[5] / r
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1.0
    root = b * b - a * c
    if root < 0.0:
        return MISS
    t = (-b - math.sqrt(root)) / a
    return t if t > low else MISS


@numba.njit(cache=True, error_model="numpy")
def _box(ray: Ray, p: float, q: float, r: float, low: float) -> float:
    near, far = _enter_slab(ray[0], ray[3], p, -MISS, MISS)
    near, far = _enter_slab(ray[1], ray[4], q, near, far)
    near, far = _enter_slab(ray[2], ray[5], r, near, far)
    return near if low < near <= far else MISS


@numba.njit(cache=True, error_model="numpy")
def _frustum(ray: Ray, p: float, q: float, r: float, low: float) -> float:
    ox, oy, oz, dx, dy, dz = ray
    best = MISS
    slope, middle = (p - r) / (2.0 * q), 0.5 * (p + r)
    here = middle + slope * oy
    a = dx * dx + dz * dz - slope * slope * dy * dy
    b = ox * dx + oz * dz - here * slope * dy
    c = ox * ox + oz * oz - here * here
    root = b * b - a * c
    if root >= 0.0 and abs(a) > 1e-12:
        root = math.sqrt(root)
        for t in ((-b - root) / a, (-b + root) / a):
            y = oy + t * dy
            if low < t < best and abs(y) <= q and middle + slope * y >= 0.0:
                best = t
    if abs(dy) > 1e-12:
        for y, radius in ((q, p), (-q, r)):
            t = (y - oy) / dy
            x, z = ox + t * dx, oz + t * dz
            if low < t < best and x * x + z * z <= radius * radius:
                best = t
    return best


@numba.njit(cache=True, error_model="numpy")
def _capsule(ray: Ray, radius: float, half: float, low: float) -> float:
    ox, oy, oz, dx, dy, dz = ray
    a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - radius * radius
    root = b * b - a * c
    if root < 0.0:
        return MISS
    if a > 1e-12:
        t = (-b - math.sqrt(root)) / a
        if abs(oy + t * dy) <= half:
            return t if t > low else MISS
    best = MISS
    for end in (-half, half):
        y = oy - end
        along = dx * ox + dy * y + dz * oz
        length = dx * dx + dy * dy + dz * dz
        root = along * along - length * (ox * ox + y * y + oz * oz - radius * radius)
        if root >= 0.0:
            t = (-along - math.sqrt(root)) / length
            if low < t < best:
                best = t
    return best


@numba.njit(cache=True, error_model="numpy")
def _torus_distance(ray: Ray, ring: float, tube: float, t: float) -> float:
    x, y, z = ray[0] + t * ray[3], ray[1] + t * ray[4], ray[2] + t * ray[5]
    flat = math.sqrt(x * x + z * z) - ring
    return math.sqrt(flat * flat + y * y) - tube


@numba.njit(cache=True, error_model="numpy")
def _torus(ray: Ray, ring: float, tube: float, low: float) -> float:
    """Sphere tracing (Hart 1996): steps of the distance to the surface, then bisection.

    Steps are of at least a millimetre, since along a surface those of the distance alone would shrink for ever; a ray
    that cuts off less than that may miss. One that starts inside misses.
    """
    ox, oy, oz, dx, dy, dz = ray
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    bound = ring + tube
    b, c = (ox * dx + oy * dy + oz * dz) / length, ox * ox + oy * oy + oz * oz - bound * bound
    root = b * b - c
    if root < 0.0:
        return MISS
    root = math.sqrt(root)
    s, end = max(-b - root, low * length), -b + root
    before, outside = s, False
    while s <= end:
        distance = _torus_distance(ray, ring, tube, s / length)
        if distance <= 0.0:
            if not outside:
                return MISS
            after = s
            for _ in range(20):
                s = 0.5 * (before + after)
                if _torus_distance(ray, ring, tube, s / length) > 0.0:
                    before = s
                else:
                    after = s
            return before / length
        before, outside = s, True
        s += max(distance, 1e-3)
    return MISS


@numba.njit(cache=True, error_model="numpy")
def _pyramid(ray: Ray, p: float, q: float, r: float, low: float) -> float:
    ox, oy, oz, dx, dy, dz = ray
    near, far = -MISS, MISS
    for face in range(5):
        # Inside is n . x <= d.
        if face == 0:
            nx, ny, nz, d = 0.0, 1.0, 0.0, q
        elif face < 3:
            nx, ny, nz, d = (2.0 * q if face == 1 else -2.0 * q), -p, 0.0, p * q
        else:
            nx, ny, nz, d = 0.0, -r, (2.0 * q if face == 3 else -2.0 * q), r * q
        speed, gap = nx * dx + ny * dy + nz * dz, d - (nx * ox + ny * oy + nz * oz)
        if abs(speed) < 1e-12:
            if gap < 0.0:
                return MISS
        elif speed < 0.0:
            near = max(near, gap / speed)
        else:
            far = min(far, gap / speed)
    return near if low < near <= far else MISS


@numba.njit(cache=True, error_model="numpy")
def enter(solids: np.ndarray, i: int, ray: Ray, low: float) -> float:
    """How far along the ray (in lengths of its direction, above `low`) it enters the solid from outside; MISS if it
    does not.

    Args:
        solids, i: all solids, and the row of the one asked, camera frame.
        ray: origin and direction in the camera frame.
        low: hits nearer than this do not count.
    """
    x, y, z = ray[0] - solids[i, CENTRE], ray[1] - solids[i, CENTRE + 1], ray[2] - solids[i, CENTRE + 2]
    u, v, w = ray[3], ray[4], ray[5]
    m = TURN
    local = (
        solids[i, m] * x + solids[i, m + 1] * y + solids[i, m + 2] * z,
        solids[i, m + 3] * x + solids[i, m + 4] * y + solids[i, m + 5] * z,
        solids[i, m + 6] * x + solids[i, m + 7] * y + solids[i, m + 8] * z,
        solids[i, m] * u + solids[i, m + 1] * v + solids[i, m + 2] * w,
        solids[i, m + 3] * u + solids[i, m + 4] * v + solids[i, m + 5] * w,
        solids[i, m + 6] * u + solids[i, m + 7] * v + solids[i, m + 8] * w,
    )
    kind, p, q, r = int(solids[i, KIND]), solids[i, SIZE], solids[i, SIZE + 1], solids[i, SIZE + 2]
    if kind == ELLIPSOID:
        return _ellipsoid(local, p, q, r, low)
    if kind == CAPSULE:
        return _capsule(local, p, q, low)
    if kind == BOX:
        return _box(local, p, q, r, low)
    if kind == FRUSTUM:
        return _frustum(local, p, q, r, low)
    if kind == TORUS:
        return _torus(local, p, q, low)
    return _pyramid(local, p, q, r, low)


@numba.njit(cache=True, error_model="numpy")
def _local_normal(kind: int, p: float, q: float, r: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward direction, of any length, at a point of the surface."""
    if kind == ELLIPSOID:
        return x / (p * p), y / (q * q), z / (r * r)
    if kind == CAPSULE:
        return x, y - min(max(y, -q), q), z
    if kind == BOX:
        a, b, c = abs(x) - p, abs(y) - q, abs(z) - r
        if a >= b and a >= c:
            return math.copysign(1.0, x), 0.0, 0.0
        return (0.0, math.copysign(1.0, y), 0.0) if b >= c else (0.0, 0.0, math.copysign(1.0, z))
    flat = math.sqrt(x * x + z * z)
    if kind == FRUSTUM:
        slope = (p - r) / (2.0 * q)
        side = (flat - 0.5 * (p + r) - slope * y) / math.sqrt(1.0 + slope * slope)
        if abs(y) - q >= side or flat == 0.0:
            return 0.0, math.copysign(1.0, y), 0.0
        return x, -slope * flat, z
    if kind == TORUS:
        return (x * (1.0 - p / flat), y, z * (1.0 - p / flat)) if flat > 0.0 else (0.0, 1.0, 0.0)
    along_x = (2.0 * q * abs(x) - p * y - p * q) / math.sqrt(4.0 * q * q + p * p)
    along_z = (2.0 * q * abs(z) - r * y - r * q) / math.sqrt(4.0 * q * q + r * r)
    if y - q >= max(along_x, along_z):
        return 0.0, 1.0, 0.0
    if along_x >= along_z:
        return math.copysign(2.0 * q, x), -p, 0.0
    return 0.0, -r, math.copysign(2.0 * q, z)


@numba.njit(cache=True, error_model="numpy")
def face(solids: np.ndarray, i: int, px: float, py: float, pz: float) -> tuple[float, float, float]:
    """The outward unit normal, camera frame, at a point of the solid's surface."""
    x, y, z = px - solids[i, CENTRE], py - solids[i, CENTRE + 1], pz - solids[i, CENTRE + 2]
    m = TURN
    nx, ny, nz = _local_normal(
        int(solids[i, KIND]),
        solids[i, SIZE],
        solids[i, SIZE + 1],
        solids[i, SIZE + 2],
        solids[i, m] * x + solids[i, m + 1] * y + solids[i, m + 2] * z,
        solids[i, m + 3] * x + solids[i, m + 4] * y + solids[i, m + 5] * z,
        solids[i, m + 6] * x + solids[i, m + 7] * y + solids[i, m + 8] * z,
    )
    scale = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
    return (
        scale * (solids[i, m] * nx + solids[i, m + 3] * ny + solids[i, m + 6] * nz),
        scale * (solids[i, m + 1] * nx + solids[i, m + 4] * ny + solids[i, m + 7] * nz),
        scale * (solids[i, m + 2] * nx + solids[i, m + 5] * ny + solids[i, m + 8] * nz),
    )
