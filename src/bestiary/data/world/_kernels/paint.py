"""Colours of surfaces before light: patterns of objects, ground and wall, softened where a pixel is wider than the
pattern is fine."""

import math

import numba
import numpy as np

from bestiary.data.world._kernels.layout import (
    BRICKS,
    CHECKERED,
    CLOUDS,
    DIRECTION,
    DISC,
    DOTTED,
    GRASS,
    GROUND,
    GROUND_A,
    GROUND_B,
    GROUND_COS,
    GROUND_PERIOD,
    GROUND_SIN,
    HILL,
    HILL_COLOUR,
    MAIN,
    PATCH_COLOUR,
    PATCH_COS,
    PATCH_FORM,
    PATCH_MIDDLE,
    PATCH_RADIUS,
    PATCH_SIN,
    PATCH_SURFACE,
    PAVING,
    PERIOD,
    PHASE,
    PLAIN,
    PLANKS,
    PLASTER,
    SECOND,
    SKY,
    SQUARE,
    STRIPED,
    TEXTURE,
    TILES,
    WALL,
    WALL_A,
    WALL_B,
    WALL_PERIOD,
    WALLPAPER,
)

Colour = tuple[float, float, float]


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def lattice(noise: np.ndarray, x: float, y: float) -> float:
    """Value noise, -1..1: the periodic table `[64, 64]` between whose points a smooth step leads."""
    fx, fy = math.floor(x), math.floor(y)
    u, v = x - fx, y - fy
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    i, j = int(fx) & 63, int(fy) & 63
    k, m = (i + 1) & 63, (j + 1) & 63
    top = noise[j, i] + u * (noise[j, k] - noise[j, i])
    return top + v * (noise[m, i] + u * (noise[m, k] - noise[m, i]) - top)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _wave(u: float, width: float) -> float:
    """A square wave of period 1, -1..1, seen through a window of `width` periods."""
    tri = 1.0 - 4.0 * abs(u - math.floor(u) - 0.5)
    return min(max(tri / (2.0 * width + 0.02), -1.0), 1.0)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _clamp(x: float) -> float:
    return min(max(x, 0.0), 1.0)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _mix(row: np.ndarray, a: int, b: int, share: float) -> Colour:
    return (
        row[a] + share * (row[b] - row[a]),
        row[a + 1] + share * (row[b + 1] - row[a + 1]),
        row[a + 2] + share * (row[b + 2] - row[a + 2]),
    )


@numba.njit(cache=True, error_model="numpy")
def object_colour(looks: np.ndarray, k: int, noise: np.ndarray, x: float, y: float, z: float, pixel: float) -> Colour:
    """The pattern of an object at a point of its own frame.

    Args:
        looks, k: all looks, and the object's row.
        noise: table `[64, 64]`.
        x, y, z: metres from the object's origin.
        pixel: width of a pixel there, metres.
    """
    kind = int(looks[k, TEXTURE])
    share = 0.0
    if kind != PLAIN:
        period = looks[k, PERIOD]
        u, v, w = x / period + looks[k, PHASE], y / period + looks[k, PHASE + 1], z / period + looks[k, PHASE + 2]
        width = pixel / period
        if kind == STRIPED:
            along = u * looks[k, DIRECTION] + v * looks[k, DIRECTION + 1] + w * looks[k, DIRECTION + 2]
            share = 0.5 - 0.5 * _wave(along, width)
        elif kind == CHECKERED:
            share = 0.5 - 0.5 * _wave(0.5 * u, width) * _wave(0.5 * v, width) * _wave(0.5 * w, width)
        elif kind == DOTTED:
            a, b, c = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5, w - math.floor(w) - 0.5
            share = _clamp(0.5 + (0.38 - math.sqrt(a * a + b * b + c * c)) / (width + 0.05))
        else:
            grain = lattice(noise, 2.0 * u + 7.3 * w, 2.0 * v - 5.1 * w)
            share = _clamp(0.5 + (grain - 0.25) / (0.4 + width))
    return (
        looks[k, MAIN] + share * (looks[k, SECOND] - looks[k, MAIN]),
        looks[k, MAIN + 1] + share * (looks[k, SECOND + 1] - looks[k, MAIN + 1]),
        looks[k, MAIN + 2] + share * (looks[k, SECOND + 2] - looks[k, MAIN + 2]),
    )


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _patch(colour: Colour, patches: np.ndarray, surface: int, x: float, y: float) -> Colour:
    for i in range(len(patches)):
        u, v = x - patches[i, PATCH_MIDDLE], y - patches[i, PATCH_MIDDLE + 1]
        radius = patches[i, PATCH_RADIUS]
        if patches[i, PATCH_SURFACE] != surface or u * u + v * v > 2.0 * radius * radius:
            continue
        cos, sin = patches[i, PATCH_COS], patches[i, PATCH_SIN]
        u, v = cos * u + sin * v, cos * v - sin * u
        form = int(patches[i, PATCH_FORM])
        if form == DISC:
            inside = u * u + v * v <= radius * radius
        elif form == SQUARE:
            inside = abs(u) <= 0.8 * radius and abs(v) <= 0.8 * radius
        else:
            inside = v <= 0.5 * radius and 1.732 * abs(u) <= v + radius
        if inside:
            colour = patches[i, PATCH_COLOUR], patches[i, PATCH_COLOUR + 1], patches[i, PATCH_COLOUR + 2]
    return colour


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def ground_colour(
    place: np.ndarray, patches: np.ndarray, noise: np.ndarray, x: float, z: float, pixel: float
) -> Colour:
    """The ground at a point of the world; `pixel` is the width of a pixel there, metres."""
    period = place[GROUND_PERIOD]
    u = (place[GROUND_COS] * x + place[GROUND_SIN] * z) / period
    v = (place[GROUND_COS] * z - place[GROUND_SIN] * x) / period
    width = pixel / period
    kind = int(place[GROUND])
    coarse = lattice(noise, 1.3 * u + 11.0, 1.3 * v)
    fine = lattice(noise, 5.0 * u, 5.0 * v + 7.0) * _clamp(1.2 - 5.0 * width)
    if kind == TILES:
        share = 0.5 + 0.45 * _wave(0.5 * u, width) * _wave(0.5 * v, width) + 0.08 * fine
    elif kind == PLANKS:
        grain = lattice(noise, 9.0 * u, 0.7 * v) * _clamp(1.2 - 9.0 * width)
        joint = _clamp(1.0 - abs(u - math.floor(u) - 0.5) / (0.04 + width)) * 0.5 * _clamp(1.5 - 2.0 * width)
        share = 0.35 + 0.3 * float(noise[5, math.floor(u + 0.5) & 63]) + 0.2 * grain + joint
    elif kind == GRASS:
        blades = lattice(noise, 17.0 * u, 13.0 * v) * _clamp(1.2 - 15.0 * width)
        share = 0.5 + 0.25 * coarse + 0.2 * fine + 0.35 * blades
    elif kind == PAVING:
        row = math.floor(v)
        shifted = u + 0.5 * (row & 1)
        a, b = abs(shifted - math.floor(shifted) - 0.5), abs(v - row - 0.5)
        joint = _clamp((max(a, b) - 0.5 + 0.05) / (0.03 + width)) * _clamp(1.6 - 2.0 * width)
        stone = float(noise[row & 63, math.floor(shifted) & 63])
        share = 0.25 + 0.18 * stone * _clamp(1.5 - 2.0 * width) + 0.1 * fine + 0.7 * joint
    else:
        share = 0.5 + 0.35 * coarse + 0.25 * fine
    return _patch(_mix(place, GROUND_A, GROUND_B, _clamp(share)), patches, 0, x, z)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def wall_colour(place: np.ndarray, patches: np.ndarray, noise: np.ndarray, x: float, y: float, pixel: float) -> Colour:
    """The wall, or the sky painted on it, at a point of the world (y down, 0 at the ground)."""
    kind = int(place[WALL])
    up = -y
    period = place[WALL_PERIOD]
    if kind == SKY:
        hill = place[HILL]
        if up < 1.8 * hill:
            hill *= 1.0 + 0.55 * lattice(noise, 0.045 * x + 3.0, 2.0) + 0.25 * lattice(noise, 0.16 * x, 9.0)
            if up < hill:
                shade = 0.85 + 0.3 * _clamp(up / max(hill, 1e-6))
                return place[HILL_COLOUR] * shade, place[HILL_COLOUR + 1] * shade, place[HILL_COLOUR + 2] * shade
        red, green, blue = _mix(place, WALL_A, WALL_B, _clamp(up / 32.0))
        puff = lattice(noise, x / 9.0, up / 4.0) + 0.5 * lattice(noise, x / 4.0 + 5.0, up / 1.8)
        cloud = _clamp((puff - 0.15) * 1.4) * place[CLOUDS] * _clamp((up - place[HILL]) / 3.0)
        return red + cloud * (0.95 - red), green + cloud * (0.96 - green), blue + cloud * (0.98 - blue)
    width = pixel / period
    if up < 0.14:
        return 0.5 * place[WALL_B], 0.5 * place[WALL_B + 1], 0.5 * place[WALL_B + 2]
    if kind == WALLPAPER:
        share = 0.5 - 0.5 * _wave(x / period, width)
    elif kind == BRICKS:
        row = math.floor(2.0 * up / period)
        shifted = x / period + 0.5 * (row & 1)
        a = abs(shifted - math.floor(shifted) - 0.5)
        b = 0.5 * abs(2.0 * up / period - row - 0.5) + 0.25
        joint = _clamp((max(a, b) - 0.5 + 0.035) / (0.02 + width)) * _clamp(1.6 - 2.0 * width)
        share = 0.2 + 0.2 * float(noise[row & 63, math.floor(shifted) & 63]) + 0.8 * joint
    else:
        share = 0.5 + 0.4 * lattice(noise, x / period, up / period) if kind == PLASTER else 0.0
    return _patch(_mix(place, WALL_A, WALL_B, _clamp(share)), patches, 1, x, y)
