"""Where a scene takes place: ground, wall or sky, light, haze, painted patches, and what the camera's sensor does."""

import math
from dataclasses import dataclass

import numpy as np

from bestiary.data.world._kernels import layout as at

SKY_DISTANCE = 60.0
"""Metres to the wall that the sky is painted on: the largest depth there is, about."""


@dataclass(frozen=True)
class Surroundings:
    """Everything but objects and camera, as the kernels take it.

    Attributes:
        place: `[PLACE_COLUMNS]`.
        patches: flat shapes painted on ground and wall, which are no objects `[M, PATCH_COLUMNS]`.
        noise: table `[64, 64]`, -1..1.
        sun: unit vector towards the sun, world frame.
        exposure: factor on all light.
        tone: exponent of the display curve.
        cast: factor on red, green and blue.
        grain: standard deviation of the sensor's noise, 0..255.
        blur: standard deviation of the lens's blur, pixels at a shorter side of 128.
        outdoors: whether there is a sky.
    """

    place: np.ndarray
    patches: np.ndarray
    noise: np.ndarray
    sun: tuple[float, float, float]
    exposure: float
    tone: float
    cast: np.ndarray
    grain: float
    blur: float
    outdoors: bool


def muted(rng: np.random.Generator, low: float, high: float, colourful: float) -> np.ndarray:
    """A linear colour of a brightness (display scale) between `low` and `high`, away from grey by up to `colourful`."""
    grey = low + (high - low) * rng.random()
    return np.clip(grey + colourful * (rng.random(3) - 0.5), 0.02, 1.0) ** 2


def surroundings(rng: np.random.Generator) -> Surroundings:
    """A place, drawn at random."""
    place = np.zeros(at.PLACE_COLUMNS)
    outdoors = rng.random() < 0.55
    angle, height = 2 * math.pi * rng.random(), math.radians(32 + 40 * rng.random())
    # The sun never stands behind the things: their near sides would be black.
    angle = -math.pi / 2 + 0.42 * (angle - math.pi)
    sun = (math.cos(height) * math.cos(angle), -math.sin(height), math.cos(height) * math.sin(angle))
    place[at.SUN_COLOUR : at.SUN_COLOUR + 3] = np.array([1.0, 0.93, 0.82]) * (0.75 + 0.35 * rng.random())
    place[at.AMBIENT : at.AMBIENT + 3] = np.array([0.36, 0.40, 0.47]) * (0.8 + 0.5 * rng.random())
    turn = 2 * math.pi * rng.random()
    place[at.GROUND_COS], place[at.GROUND_SIN] = math.cos(turn), math.sin(turn)
    if outdoors:
        _draw_outdoors(place, rng)
    else:
        _draw_indoors(place, rng)
    return Surroundings(
        place,
        _draw_patches(rng, outdoors, float(place[at.WALL_Z])),
        2 * rng.random((64, 64)) - 1,
        sun,
        0.85 + 0.35 * rng.random(),
        0.46 + 0.08 * rng.random(),
        0.94 + 0.12 * rng.random(3),
        5.0 * rng.random() ** 2,
        0.6 * rng.random() if rng.random() < 0.4 else 0.0,
        outdoors,
    )


def _draw_outdoors(place: np.ndarray, rng: np.random.Generator) -> None:
    place[at.WALL], place[at.WALL_Z] = at.SKY, SKY_DISTANCE
    dusk = rng.random() < 0.2
    horizon = np.array([0.98, 0.80, 0.62]) if dusk else np.array([0.84, 0.91, 0.97])
    zenith = np.array([0.48, 0.50, 0.72]) if dusk else np.array([0.32, 0.56, 0.88])
    place[at.WALL_A : at.WALL_A + 3] = np.clip(horizon + 0.06 * (rng.random(3) - 0.5), 0, 1) ** 2
    place[at.WALL_B : at.WALL_B + 3] = np.clip(zenith + 0.12 * (rng.random(3) - 0.5), 0, 1) ** 2
    place[at.WALL_PERIOD], place[at.CLOUDS] = 1.0, rng.random()
    place[at.HAZE_COLOUR : at.HAZE_COLOUR + 3] = place[at.WALL_A : at.WALL_A + 3]
    place[at.HAZE], place[at.HILL] = 0.003 + 0.012 * rng.random(), 4.5 * rng.random()
    green = np.array([0.40, 0.50, 0.36]) + 0.2 * (rng.random(3) - 0.5)
    hill = green**2
    place[at.HILL_COLOUR : at.HILL_COLOUR + 3] = hill + 0.45 * (place[at.WALL_A : at.WALL_A + 3] - hill)
    kind = int(rng.choice([at.GRASS, at.SOIL, at.PAVING, at.GRASS]))
    place[at.GROUND] = kind
    if kind == at.GRASS:
        base = np.array([0.42, 0.55, 0.28]) + 0.14 * (rng.random(3) - 0.5)
        place[at.GROUND_A : at.GROUND_A + 3], place[at.GROUND_B : at.GROUND_B + 3] = base**2, (base * 1.28) ** 2
        place[at.GROUND_PERIOD] = 0.8 + 0.8 * rng.random()
    elif kind == at.SOIL:
        base = np.array([0.68, 0.58, 0.46]) + 0.16 * (rng.random(3) - 0.5)
        place[at.GROUND_A : at.GROUND_A + 3], place[at.GROUND_B : at.GROUND_B + 3] = base**2, (base * 1.15) ** 2
        place[at.GROUND_PERIOD] = 0.6 + 0.8 * rng.random()
    else:
        stone = muted(rng, 0.5, 0.72, 0.12)
        place[at.GROUND_A : at.GROUND_A + 3], place[at.GROUND_B : at.GROUND_B + 3] = stone, 0.45 * stone
        place[at.GROUND_PERIOD] = 0.5 + 0.5 * rng.random()


def _draw_indoors(place: np.ndarray, rng: np.random.Generator) -> None:
    place[at.WALL] = int(rng.choice([at.PLASTER, at.WALLPAPER, at.BRICKS]))
    place[at.WALL_Z] = 8.0 + 5.0 * rng.random()
    wall = muted(rng, 0.55, 0.85, 0.22)
    other = np.clip(wall * (0.72 + 0.15 * rng.random()), 0, 1)
    if place[at.WALL] == at.BRICKS:
        wall = (np.array([0.70, 0.45, 0.36]) + 0.2 * (rng.random(3) - 0.5)) ** 2
        other = muted(rng, 0.65, 0.8, 0.05)
    place[at.WALL_A : at.WALL_A + 3], place[at.WALL_B : at.WALL_B + 3] = wall, other
    place[at.WALL_PERIOD] = 0.5 + 0.7 * rng.random()
    kind = int(rng.choice([at.TILES, at.PLANKS, at.PAVING, at.SOIL]))
    place[at.GROUND] = kind
    first = muted(rng, 0.45, 0.8, 0.18)
    second = first * (0.55 + 0.2 * rng.random())
    if kind == at.PLANKS:
        first = (np.array([0.72, 0.54, 0.36]) + 0.16 * (rng.random(3) - 0.5)) ** 2
        second = 0.5 * first
    place[at.GROUND_A : at.GROUND_A + 3], place[at.GROUND_B : at.GROUND_B + 3] = first, second
    place[at.GROUND_PERIOD] = 0.22 + 0.12 * rng.random() if kind == at.PLANKS else 0.5 + 0.6 * rng.random()


def _draw_patches(rng: np.random.Generator, outdoors: bool, wall_z: float) -> np.ndarray:
    """Flat discs, squares and triangles: distractors, which a detector must learn to leave alone."""
    number = int(rng.integers(0, 5))
    patches = np.zeros((number, at.PATCH_COLUMNS))
    for patch in patches:
        on_wall = not outdoors and rng.random() < 0.5
        patch[at.PATCH_SURFACE] = float(on_wall)
        patch[at.PATCH_FORM] = rng.integers(0, 3)
        turn = 0.0 if on_wall else 2 * math.pi * rng.random()
        patch[at.PATCH_COS], patch[at.PATCH_SIN] = math.cos(turn), math.sin(turn)
        if on_wall:
            middle, radius = (
                (wall_z * 0.45 * (2 * rng.random() - 1), -1.2 - 2.0 * rng.random()),
                0.3 + 0.5 * rng.random(),
            )
        else:
            depth = 2.5 + 5 * rng.random()
            middle, radius = (depth * 0.5 * (2 * rng.random() - 1), depth), 0.15 + 0.35 * rng.random()
        patch[at.PATCH_MIDDLE : at.PATCH_MIDDLE + 2], patch[at.PATCH_RADIUS] = middle, radius
        patch[at.PATCH_COLOUR : at.PATCH_COLOUR + 3] = muted(rng, 0.35, 0.8, 0.5)
    return patches
