"""The ray caster's solids against membership functions written apart, marched along the ray."""

import numpy as np
import pytest

from bestiary.data.world._kernels import layout as at
from bestiary.data.world._kernels.posing import extents, pose
from bestiary.data.world._kernels.solids import MISS, enter, face
from bestiary.data.world.shapes import SHAPES
from bestiary.data.world.vocabulary import CATEGORIES

SIZES = {
    at.ELLIPSOID: (0.5, 0.3, 0.4),
    at.BOX: (0.3, 0.5, 0.2),
    at.FRUSTUM: (0.5, 0.4, 0.2),
    at.CAPSULE: (0.2, 0.4, 0.0),
    at.TORUS: (0.4, 0.15, 0.0),
    at.PYRAMID: (0.5, 0.4, 0.3),
}
KINDS = list(SIZES)


def inside(kind: int, points: np.ndarray) -> np.ndarray:
    """Membership of local points `[..., 3]`, from the definition of each solid."""
    p, q, r = SIZES[kind]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if kind == at.ELLIPSOID:
        return (x / p) ** 2 + (y / q) ** 2 + (z / r) ** 2 <= 1
    if kind == at.BOX:
        return (abs(x) <= p) & (abs(y) <= q) & (abs(z) <= r)
    share = (y + q) / (2 * q)  # 0 at the top, 1 at the bottom
    if kind == at.FRUSTUM:
        return (abs(y) <= q) & (np.hypot(x, z) <= r + (p - r) * share)
    if kind == at.CAPSULE:
        return np.sqrt(x**2 + (y - np.clip(y, -q, q)) ** 2 + z**2) <= p
    if kind == at.TORUS:
        return np.hypot(np.hypot(x, z) - p, y) <= q
    return (abs(y) <= q) & (abs(x) <= p * share) & (abs(z) <= r * share)


def part_of(kind: int, axis: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> np.ndarray:
    part = np.zeros((1, at.PART_COLUMNS))
    part[0, at.PART_KIND], part[0, at.PART_AXIS : at.PART_AXIS + 3] = kind, np.array(axis) / np.linalg.norm(axis)
    part[0, at.PART_SIZE : at.PART_SIZE + 3], part[0, at.PART_TINT] = SIZES[kind], 1.0
    part[0, at.PART_CENTRE : at.PART_CENTRE + 3] = (0.1, -0.2, 0.3)
    return part


def solid_of(part: np.ndarray) -> np.ndarray:
    look = np.zeros((1, at.LOOK_COLUMNS))
    look[0, at.FRAME : at.FRAME + 9] = np.eye(3).ravel()
    return pose(part, look)


def to_local(solids: np.ndarray, points: np.ndarray) -> np.ndarray:
    return (points - solids[0, at.CENTRE : at.CENTRE + 3]) @ solids[0, at.TURN : at.TURN + 9].reshape(3, 3).T


@pytest.mark.parametrize("kind", KINDS)
def test_rays_enter_where_marching_finds_the_inside(kind: int) -> None:
    rng = np.random.default_rng(kind)
    solids = solid_of(part_of(kind, (0.3, 0.8, -0.5)))
    steps = np.arange(0, 6, 1e-3)
    hits = 0
    for _ in range(150):
        origin = rng.normal(size=3)
        origin *= 2.5 / np.linalg.norm(origin)
        direction = rng.uniform(-0.45, 0.45, 3) + solids[0, at.CENTRE : at.CENTRE + 3] - origin
        direction /= np.linalg.norm(direction)
        marched = inside(kind, to_local(solids, origin + steps[:, None] * direction))
        t = enter(solids, 0, (*origin, *direction), 0.0)
        chord = int(marched.sum())
        if chord > 3:
            hits += 1
            assert t == pytest.approx(steps[marched.argmax()], abs=2e-3)
        elif chord == 0 and t < MISS:
            # A grazing hit may lie between two steps.
            assert (
                inside(kind, to_local(solids, origin + (t + np.linspace(0, 2e-3, 50))[:, None] * direction)).mean() < 1
            )
    assert hits > 50


@pytest.mark.parametrize("kind", KINDS)
def test_normals_point_out_of_the_solid_and_across_its_surface(kind: int) -> None:
    rng = np.random.default_rng(10 + kind)
    solids = solid_of(part_of(kind, (-0.4, 0.5, 0.7)))
    checked = 0
    while checked < 60:
        origin = rng.normal(size=3) * 2.5
        direction = rng.uniform(-0.3, 0.3, 3) + solids[0, at.CENTRE : at.CENTRE + 3] - origin
        t = enter(solids, 0, (*origin, *direction), 0.0)
        if t >= MISS or inside(kind, to_local(solids, origin)):
            continue
        point = origin + t * direction
        normal = np.array(face(solids, 0, *point))
        assert np.linalg.norm(normal) == pytest.approx(1)
        assert normal @ direction < 1e-9
        assert inside(kind, to_local(solids, point - 2e-3 * normal))
        assert not inside(kind, to_local(solids, point + 2e-3 * normal))
        # A small step along the surface stays within a second-order distance of it, away from edges.
        tangent = np.cross(normal, rng.normal(size=3))
        near = point + 1e-3 * tangent / np.linalg.norm(tangent)
        on_edge = not inside(kind, to_local(solids, near - 1e-4 * normal)) or inside(
            kind, to_local(solids, near + 1e-4 * normal)
        )
        checked += not on_edge


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [(0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.3, 0.8, -0.5), (1.0, 0.0, 0.0)])
def test_extents_are_those_of_points_inside(kind: int, axis: tuple[float, float, float]) -> None:
    part = part_of(kind, axis)
    solids = solid_of(part)
    bounds = extents(part)
    step = 0.02
    line = np.arange(-1.2, 1.2, step)
    points = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    within = points[inside(kind, to_local(solids, points))]
    assert (within >= bounds[0] - 1e-9).all()
    assert (within <= bounds[1] + 1e-9).all()
    # Tips of cones and pyramids hold few grid points.
    assert np.abs(np.stack([within.min(0), within.max(0)]) - bounds).max() < 4 * step


def test_a_ray_from_inside_and_one_that_looks_away_miss() -> None:
    for kind in KINDS:
        solids = solid_of(part_of(kind))
        assert enter(solids, 0, (0.1, -0.2, 9.0, 0.0, 0.0, 1.0), 0.0) == MISS
        assert enter(solids, 0, (5.0, 5.0, -3.0, 0.0, 0.0, 1.0), 0.0) == MISS
    head_on = enter(solid_of(part_of(at.BOX)), 0, (0.1, -0.2, -3.0, 0.0, 0.0, 2.0), 0.0)
    assert head_on == pytest.approx((3.3 - 0.2) / 2)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_is_about_a_metre_and_uses_all_its_numbers_safely(category: str) -> None:
    rng = np.random.default_rng(0)
    for build in [np.zeros(6), np.ones(6), *rng.random((20, 6))]:
        shape = SHAPES[category](build.tolist(), float(rng.uniform(0, 7)))
        parts = np.array(shape.parts)
        assert parts.shape[1] == at.PART_COLUMNS
        assert np.isfinite(parts).all()
        axes = parts[:, at.PART_AXIS : at.PART_AXIS + 3]
        assert np.linalg.norm(axes, axis=1) == pytest.approx(np.ones(len(parts)))
        assert (parts[:, at.PART_SIZE] > 0).all()
        size = np.diff(extents(parts), axis=0)[0]
        assert 0.6 <= size.max() <= 1.3
        assert (shape.joints is not None) == (category == "walker")
