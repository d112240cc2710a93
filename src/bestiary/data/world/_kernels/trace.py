"""The ray caster: what each pixel sees, how it is lit, and a second, finer look where neighbouring pixels differ."""

import math

import numba
import numpy as np

from bestiary.data.world._kernels.layout import (
    AMBIENT,
    CENTRE,
    COS_YAW,
    FIRST,
    FOCAL,
    FRAME,
    HAZE,
    HAZE_COLOUR,
    HEIGHT,
    LAST,
    ORIGIN,
    OWNER,
    PAINT,
    PAINT_DARK,
    PAINT_PALE,
    PLACE_X,
    PLACE_Z,
    PRINCIPAL_X,
    PRINCIPAL_Y,
    REACH,
    SEES_GROUND,
    SEES_WALL,
    SHINE,
    SIN_YAW,
    SKY,
    SPHERE,
    SUN,
    SUN_COLOUR,
    TINT,
    WALL,
    WALL_Z,
)
from bestiary.data.world._kernels.paint import Colour, ground_colour, object_colour, wall_colour
from bestiary.data.world._kernels.solids import MISS, enter, face

NEAREST = 0.05
"""Metres: nothing nearer to the camera is seen."""


@numba.njit(cache=True, error_model="numpy")
def frame_solids(solids: np.ndarray, view: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels `[M, 4]` (x1, y1, x2, y2; the last two excluded) outside of which each solid surely is not seen."""
    frames = np.zeros((len(solids), 4), dtype=np.int32)
    focal = view[FOCAL]
    for i in range(len(solids)):
        reach, z = solids[i, REACH], solids[i, CENTRE + 2]
        if z + reach <= NEAREST:
            continue
        if z - reach <= NEAREST:
            frames[i, 2], frames[i, 3] = width, height
            continue
        for axis in range(2):
            middle = solids[i, CENTRE + axis]
            principal, size = (view[PRINCIPAL_X], width) if axis == 0 else (view[PRINCIPAL_Y], height)
            low, high = middle - reach, middle + reach
            low /= z - reach if low < 0.0 else z + reach
            high /= z - reach if high > 0.0 else z + reach
            frames[i, axis] = int(min(max(math.floor(principal + focal * low - 0.5), 0.0), size))
            frames[i, axis + 2] = int(min(max(math.ceil(principal + focal * high + 0.5), 0.0), size))
    return frames


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _backdrop(view: np.ndarray, wall_z: float, dx: float, dy: float) -> tuple[float, int]:
    """Depth of ground or wall along a ray, whichever comes first."""
    ground = view[HEIGHT] / dy if dy > 0.0 else MISS
    towards = view[COS_YAW] - view[SIN_YAW] * dx
    wall = (wall_z - view[PLACE_Z]) / towards if towards > 1e-9 else MISS
    return (ground, SEES_GROUND) if ground <= wall else (wall, SEES_WALL)


@numba.njit(cache=True, error_model="numpy")
def cover(
    solids: np.ndarray,
    frames: np.ndarray,
    view: np.ndarray,
    wall_z: float,
    depth: np.ndarray,
    seen: np.ndarray,
    whole: np.ndarray,
) -> None:
    """Fill depth and the index of the solid that each pixel's centre sees, and count each object's pixels as if
    nothing hid it.

    Args:
        solids: sorted by owner.
        frames: of `frame_solids`.
        view, wall_z: camera and wall.
        depth: filled `[H, W]`, metres.
        seen: filled `[H, W]`: row of the solid, or SEES_GROUND or SEES_WALL.
        whole: filled `[N]`: pixels of each object before occlusion.
    """
    height, width = depth.shape
    focal, cx, cy = view[FOCAL], view[PRINCIPAL_X], view[PRINCIPAL_Y]
    for y in range(height):
        for x in range(width):
            depth[y, x], seen[y, x] = _backdrop(view, wall_z, (x + 0.5 - cx) / focal, (y + 0.5 - cy) / focal)
    stamp = np.full((height, width), -1, dtype=np.int32)
    for i in range(len(solids)):
        owner = int(solids[i, OWNER])
        for y in range(frames[i, 1], frames[i, 3]):
            dy = (y + 0.5 - cy) / focal
            for x in range(frames[i, 0], frames[i, 2]):
                t = enter(solids, i, (0.0, 0.0, 0.0, (x + 0.5 - cx) / focal, dy, 1.0), NEAREST)
                if t >= MISS:
                    continue
                if stamp[y, x] != owner:
                    stamp[y, x] = owner
                    whole[owner] += 1
                if t < depth[y, x]:
                    depth[y, x], seen[y, x] = t, i


@numba.njit(cache=True, error_model="numpy")
def _in_shadow(solids: np.ndarray, looks: np.ndarray, ray: tuple[float, float, float, float, float, float]) -> bool:
    for k in range(len(looks)):
        x, y, z = looks[k, SPHERE] - ray[0], looks[k, SPHERE + 1] - ray[1], looks[k, SPHERE + 2] - ray[2]
        along = x * ray[3] + y * ray[4] + z * ray[5]
        radius = looks[k, SPHERE + 3]
        apart = x * x + y * y + z * z - along * along
        if apart > radius * radius or along < -radius:
            continue
        for i in range(int(looks[k, FIRST]), int(looks[k, LAST])):
            x, y, z = solids[i, CENTRE] - ray[0], solids[i, CENTRE + 1] - ray[1], solids[i, CENTRE + 2] - ray[2]
            along = x * ray[3] + y * ray[4] + z * ray[5]
            reach = solids[i, REACH]
            if (
                x * x + y * y + z * z - along * along <= reach * reach
                and along > -reach
                and enter(solids, i, ray, 2e-3) < MISS
            ):
                return True
    return False


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _contact(looks: np.ndarray, px: float, py: float, pz: float) -> float:
    """How much of the sky's light reaches a point of the ground among the objects, 0..1."""
    light = 1.0
    for k in range(len(looks)):
        x, y, z = px - looks[k, SPHERE], py - looks[k, SPHERE + 1], pz - looks[k, SPHERE + 2]
        radius = looks[k, SPHERE + 3]
        near = (x * x + y * y + z * z) / (radius * radius)
        light *= 1.0 - 0.6 / (1.0 + near * near)
    return light


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _normal(seen: int, solids: np.ndarray, view: np.ndarray, px: float, py: float, pz: float) -> Colour:
    if seen == SEES_GROUND:
        return 0.0, -1.0, 0.0
    if seen == SEES_WALL:
        return view[SIN_YAW], 0.0, -view[COS_YAW]
    return face(solids, seen, px, py, pz)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _surface(
    seen: int, t: float, point: Colour, solids: np.ndarray, looks: np.ndarray, view: np.ndarray, place: np.ndarray,
    patches: np.ndarray, noise: np.ndarray,
) -> Colour:  # fmt: skip
    """The colour, before light, of what is seen at a point of the camera frame."""
    px, py, pz = point
    pixel = t / view[FOCAL]
    if seen < 0:
        x = view[COS_YAW] * px + view[SIN_YAW] * pz + view[PLACE_X]
        if seen == SEES_WALL:
            return wall_colour(place, patches, noise, x, py - view[HEIGHT], pixel)
        z = view[COS_YAW] * pz - view[SIN_YAW] * px + view[PLACE_Z]
        # A pixel covers more of the ground along the line of sight: the geometric mean of both widths.
        return ground_colour(place, patches, noise, x, z, pixel * math.sqrt(max(t / view[HEIGHT], 1.0)))
    paint, tint = int(solids[seen, PAINT]), solids[seen, TINT]
    if paint == PAINT_DARK:
        return 0.012, 0.012, 0.015
    if paint == PAINT_PALE:
        return 0.80 * tint, 0.74 * tint, 0.62 * tint
    k = int(solids[seen, OWNER])
    x, y, z = px - looks[k, ORIGIN], py - looks[k, ORIGIN + 1], pz - looks[k, ORIGIN + 2]
    m = FRAME
    red, green, blue = object_colour(
        looks, k, noise,
        looks[k, m] * x + looks[k, m + 1] * y + looks[k, m + 2] * z,
        looks[k, m + 3] * x + looks[k, m + 4] * y + looks[k, m + 5] * z,
        looks[k, m + 6] * x + looks[k, m + 7] * y + looks[k, m + 8] * z,
        pixel,
    )  # fmt: skip
    return red * tint, green * tint, blue * tint


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _shade(
    seen: int, t: float, ray_xy: tuple[float, float], solids: np.ndarray, looks: np.ndarray, view: np.ndarray,
    place: np.ndarray, patches: np.ndarray, noise: np.ndarray,
) -> Colour:  # fmt: skip
    """Linear light from what is seen at depth `t`: Lambert under sun and sky, shadows, Blinn's highlight, haze."""
    px, py, pz = t * ray_xy[0], t * ray_xy[1], t
    red, green, blue = _surface(seen, t, (px, py, pz), solids, looks, view, place, patches, noise)
    if seen == SEES_WALL and int(place[WALL]) == SKY:
        return red, green, blue
    nx, ny, nz = _normal(seen, solids, view, px, py, pz)
    sx, sy, sz = view[SUN], view[SUN + 1], view[SUN + 2]
    facing, shine = nx * sx + ny * sy + nz * sz, 0.0
    if seen == SEES_WALL:
        facing = 0.55
    elif facing <= 0.0 or _in_shadow(solids, looks, (px + 1e-3 * nx, py + 1e-3 * ny, pz + 1e-3 * nz, sx, sy, sz)):
        facing = 0.0
    elif seen >= 0:
        length = math.sqrt(ray_xy[0] * ray_xy[0] + ray_xy[1] * ray_xy[1] + 1.0)
        hx, hy, hz = sx - ray_xy[0] / length, sy - ray_xy[1] / length, sz - 1.0 / length
        half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
        # The 32nd power.
        half = max(half, 0.0) ** 2
        half *= half
        half *= half
        half *= half
        shine = looks[int(solids[seen, OWNER]), SHINE] * half * half
    sky = 0.68 - 0.32 * ny
    if seen == SEES_GROUND:
        sky *= _contact(looks, px, py, pz)
    red *= place[SUN_COLOUR] * facing + place[AMBIENT] * sky
    green *= place[SUN_COLOUR + 1] * facing + place[AMBIENT + 1] * sky
    blue *= place[SUN_COLOUR + 2] * facing + place[AMBIENT + 2] * sky
    red, green, blue = red + shine, green + shine, blue + shine
    haze = 1.0 - 1.0 / (1.0 + place[HAZE] * t)
    return (
        red + haze * (place[HAZE_COLOUR] - red),
        green + haze * (place[HAZE_COLOUR + 1] - green),
        blue + haze * (place[HAZE_COLOUR + 2] - blue),
    )


@numba.njit(cache=True, error_model="numpy")
def light(
    depth: np.ndarray, seen: np.ndarray, solids: np.ndarray, looks: np.ndarray, view: np.ndarray, place: np.ndarray,
    patches: np.ndarray, noise: np.ndarray, colours: np.ndarray, normals: np.ndarray,
) -> None:  # fmt: skip
    """Fill the linear colours `[H, W, 3]` and the unit normals `[3, H, W]` of what `cover` found."""
    height, width = depth.shape
    focal, cx, cy = view[FOCAL], view[PRINCIPAL_X], view[PRINCIPAL_Y]
    for y in range(height):
        for x in range(width):
            t, what = depth[y, x], seen[y, x]
            ray_xy = ((x + 0.5 - cx) / focal, (y + 0.5 - cy) / focal)
            red, green, blue = _shade(what, t, ray_xy, solids, looks, view, place, patches, noise)
            colours[y, x, 0], colours[y, x, 1], colours[y, x, 2] = red, green, blue
            nx, ny, nz = _normal(what, solids, view, t * ray_xy[0], t * ray_xy[1], t)
            normals[0, y, x], normals[1, y, x], normals[2, y, x] = nx, ny, nz


@numba.njit(cache=True, error_model="numpy")
def _uneven(colours: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels that differ from a neighbour by more than `threshold` in the square root of any channel (about what is
    displayed)."""
    height, width = colours.shape[:2]
    marked = np.zeros((height, width), dtype=np.bool_)
    roots = np.sqrt(np.maximum(colours, 0.0))
    for y in range(height):
        for x in range(width):
            for c in range(3):
                here = roots[y, x, c]
                if x + 1 < width and abs(here - roots[y, x + 1, c]) > threshold:
                    marked[y, x], marked[y, x + 1] = True, True
                if y + 1 < height and abs(here - roots[y + 1, x, c]) > threshold:
                    marked[y, x], marked[y + 1, x] = True, True
    return marked


@numba.njit(cache=True, error_model="numpy")
def smooth_edges(
    solids: np.ndarray, frames: np.ndarray, looks: np.ndarray, view: np.ndarray, place: np.ndarray, patches: np.ndarray,
    noise: np.ndarray, colours: np.ndarray,
) -> None:  # fmt: skip
    """Where neighbouring pixels differ, replace the colour by the mean of four rays on a rotated grid
    (antialiasing)."""
    marked = _uneven(colours, 0.07)
    height, width = marked.shape
    focal, cx, cy = view[FOCAL], view[PRINCIPAL_X], view[PRINCIPAL_Y]
    for y in range(height):
        for x in range(width):
            if not marked[y, x]:
                continue
            red, green, blue = 0.0, 0.0, 0.0
            for offset_x, offset_y in ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875)):
                dx, dy = (x + offset_x - cx) / focal, (y + offset_y - cy) / focal
                t, what = _backdrop(view, place[WALL_Z], dx, dy)
                for i in range(len(solids)):
                    if frames[i, 0] <= x < frames[i, 2] and frames[i, 1] <= y < frames[i, 3]:
                        near = enter(solids, i, (0.0, 0.0, 0.0, dx, dy, 1.0), NEAREST)
                        if near < t:
                            t, what = near, i
                r, g, b = _shade(what, t, (dx, dy), solids, looks, view, place, patches, noise)
                red, green, blue = red + r, green + g, blue + b
            colours[y, x, 0], colours[y, x, 1], colours[y, x, 2] = 0.25 * red, 0.25 * green, 0.25 * blue
