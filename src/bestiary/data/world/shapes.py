"""The shapes of the categories: solids in the object's own frame, about one metre in their largest extent.

The frame has x along the heading (the length of the 3D box), y down and z to the left of the heading, since x ahead
and y down leave z on the left. The ground is made to be at the lowest point, and the origin under the middle, by
`scene.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bestiary.data.world._kernels.layout import (
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    PAINT_DARK,
    PAINT_LOOK,
    PAINT_PALE,
    PYRAMID,
    TORUS,
)
from bestiary.data.world.vocabulary import JOINT_NAMES

Point = tuple[float, float, float]
Part = tuple[float, ...]
"""A row of parts, see `_kernels/layout.py`; the owner is filled in later."""

DOWN: Point = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """A shape at one moment.

    Attributes:
        parts: rows.
        joints: `[J, 3]` in the object's frame, or None.
        top: radius of the flat top that something may stand on; 0 if there is none.
    """

    parts: list[Part]
    joints: np.ndarray | None = None
    top: float = 0.0


def solid(
    kind: int, centre: Point, size: Point, axis: Point = DOWN, tint: float = 1.0, paint: int = PAINT_LOOK
) -> Part:
    """One part: its kind, middle, sizes, axis (unit), shade and paint."""
    return (float(kind), 0.0, *centre, *axis, *size, tint, float(paint))


def capsule(a: Point, b: Point, radius: float, tint: float = 1.0, paint: int = PAINT_LOOK) -> Part:
    """A rod with round ends from `a` to `b`."""
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    length = math.sqrt(x * x + y * y + z * z)
    axis = (x / length, y / length, z / length) if length > 1e-9 else DOWN
    middle = (0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1]), 0.5 * (a[2] + b[2]))
    return solid(CAPSULE, middle, (radius, 0.5 * length, 0.0), axis, tint, paint)


def ball(build: Sequence[float], phase: float) -> Shape:
    """A sphere."""
    return Shape([solid(ELLIPSOID, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))])


def box(build: Sequence[float], phase: float) -> Shape:
    """A cuboid of any proportions that is not a plate."""
    x, y, z = (0.3 + 0.2 * b for b in build[:3])
    return Shape([solid(BOX, (0.0, 0.0, 0.0), (x, y, z))], top=min(x, z))


def can(build: Sequence[float], phase: float) -> Shape:
    """An upright cylinder."""
    radius = 0.27 + 0.13 * build[0]
    return Shape([solid(FRUSTUM, (0.0, 0.0, 0.0), (radius, 0.5, radius))], top=radius)


def cone(build: Sequence[float], phase: float) -> Shape:
    """An upright cone."""
    radius = 0.33 + 0.14 * build[0]
    return Shape([solid(FRUSTUM, (0.0, 0.0, 0.0), (radius, 0.5, 0.0))])


def ring(build: Sequence[float], phase: float) -> Shape:
    """A torus standing on its rim; its hole looks across the heading."""
    tube = 0.10 + 0.05 * build[0]
    return Shape([solid(TORUS, (0.0, 0.0, 0.0), (0.5 - tube, tube, 0.0), (0.0, 0.0, 1.0))])


def pyramid(build: Sequence[float], phase: float) -> Shape:
    """A pyramid on a square base."""
    return Shape([solid(PYRAMID, (0.0, 0.0, 0.0), (0.5, 0.36 + 0.12 * build[0], 0.5))])


def mushroom(build: Sequence[float], phase: float) -> Shape:
    """A pale stem under a wide cap."""
    stem, cap = 0.11 + 0.05 * build[0], 0.40 + 0.10 * build[1]
    return Shape(
        [
            solid(FRUSTUM, (0.0, -0.31, 0.0), (1.25 * stem, 0.31, stem), tint=0.95, paint=PAINT_PALE),
            solid(ELLIPSOID, (0.0, -0.66, 0.0), (cap, 0.24 + 0.08 * build[2], cap)),
        ]
    )


def beast(build: Sequence[float], phase: float) -> Shape:
    """A four-legged animal: body, neck, head with snout, ears and eyes, tail. It swings its legs with the phase
    (radians)."""
    stout, long = 0.13 + 0.05 * build[0], 0.27 + 0.06 * build[1]
    hip, head_x, head_y = -0.36, long + 0.10, -0.66 - 0.08 * build[2]
    parts = [
        solid(ELLIPSOID, (0.0, hip - 0.06, 0.0), (long + 0.06, stout + 0.02, stout)),
        capsule((long - 0.06, hip - 0.10, 0.0), (head_x - 0.03, head_y + 0.04, 0.0), 0.075),
        solid(ELLIPSOID, (head_x, head_y, 0.0), (0.13, 0.12, 0.12)),
        solid(ELLIPSOID, (head_x + 0.13, head_y + 0.035, 0.0), (0.085, 0.06, 0.07), tint=0.8),
        solid(ELLIPSOID, (head_x + 0.205, head_y + 0.02, 0.0), (0.025, 0.025, 0.03), paint=PAINT_DARK),
        capsule((-long, hip - 0.10, 0.0), (-long - 0.12, hip - 0.22, 0.0), 0.032, tint=0.9),
        capsule((-long - 0.12, hip - 0.22, 0.0), (-long - 0.15, hip - 0.38, 0.0), 0.032, tint=0.9),
    ]
    for side in (-1.0, 1.0):
        parts.append(
            solid(ELLIPSOID, (head_x + 0.085, head_y - 0.05, 0.075 * side), (0.026, 0.03, 0.026), paint=PAINT_DARK)
        )
        parts.append(solid(FRUSTUM, (head_x - 0.03, head_y - 0.13, 0.075 * side), (0.05, 0.07, 0.0), tint=0.8))
        for end in (-1.0, 1.0):
            swing = 0.10 * math.sin(phase + (0.0 if side == end else math.pi))
            x, z = 0.78 * long * end, 0.72 * stout * side
            parts.append(capsule((x, hip, z), (x + swing, -0.05, z), 0.05, tint=0.88))
    return Shape(parts)


def _swung(start: Point, length: float, ahead: float, aside: float) -> Point:
    """The end of a limb that hangs down, swung by `ahead` radians about z and spread by `aside` along z."""
    flat = length * math.cos(aside)
    return start[0] + flat * math.sin(ahead), start[1] + flat * math.cos(ahead), start[2] + length * math.sin(aside)


def walker(build: Sequence[float], phase: float) -> Shape:
    """A two-legged creature with a large head; it walks with the phase (radians), its arms held as `build` says."""
    neck, top = (0.0, -0.72, 0.0), (0.0, -1.0, 0.0)
    parts = [
        solid(ELLIPSOID, (0.0, -0.86, 0.0), (0.125, 0.14, 0.125)),
        solid(ELLIPSOID, (0.135, -0.85, 0.0), (0.035, 0.025, 0.025), tint=0.75),
        solid(ELLIPSOID, (0.0, -0.56, 0.0), (0.10, 0.19, 0.14)),
        solid(ELLIPSOID, (0.0, -0.42, 0.0), (0.09, 0.09, 0.12), tint=0.9),
    ]
    joints: dict[str, Point] = {"neck": neck, "head top": top}
    for name, side in (("right", -1.0), ("left", 1.0)):
        first = 0 if side < 0 else 3
        parts.append(solid(ELLIPSOID, (0.105, -0.89, 0.05 * side), (0.03, 0.034, 0.026), paint=PAINT_DARK))
        swing = math.sin(phase) * side
        hip, shoulder = (0.0, -0.41, 0.075 * side), (0.0, -0.68, 0.15 * side)
        knee = _swung(hip, 0.19, 0.55 * swing, 0.05 * side)
        bent = 0.55 * swing - 0.15 - 0.5 * max(0.0, -swing)
        ankle = _swung(knee, 0.19, bent, 0.0)
        lifted, spread, fold = (
            2.0 * build[first] - 0.5,
            side * (0.15 + 1.1 * build[first + 1] ** 2),
            1.7 * build[first + 2],
        )
        elbow = _swung(shoulder, 0.17, lifted - 0.3 * swing, spread)
        wrist = _swung(elbow, 0.16, lifted - 0.3 * swing + fold, 0.5 * spread)
        toe = (ankle[0] + 0.09, ankle[1] + 0.01, ankle[2])
        parts += [
            capsule(hip, knee, 0.056, tint=0.88),
            capsule(knee, ankle, 0.047, tint=0.82),
            capsule(ankle, toe, 0.045, paint=PAINT_PALE),
            capsule(shoulder, elbow, 0.044, tint=0.88),
            capsule(elbow, wrist, 0.040, tint=0.82),
            solid(ELLIPSOID, wrist, (0.05, 0.05, 0.05), paint=PAINT_PALE),
        ]
        for joint, point in (("ankle", ankle), ("knee", knee), ("hip", hip), ("wrist", wrist), ("elbow", elbow)):
            joints[f"{name} {joint}"] = point
        joints[f"{name} shoulder"] = shoulder
    return Shape(parts, np.array([joints[name] for name in JOINT_NAMES]))


Build = Callable[[Sequence[float], float], Shape]

SHAPES: dict[str, Build] = {
    "ball": ball,
    "box": box,
    "can": can,
    "cone": cone,
    "ring": ring,
    "pyramid": pyramid,
    "mushroom": mushroom,
    "beast": beast,
    "walker": walker,
}
"""Each takes six numbers 0..1 that say how it is built, and the phase of its gait in radians."""
