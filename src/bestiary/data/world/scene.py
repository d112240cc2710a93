"""A scene: things on the ground, what moves, the camera's path. Drawn at random, then frozen; nothing is kept between
scenes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bestiary.data.world._kernels import layout as at
from bestiary.data.world.shapes import SHAPES
from bestiary.data.world.surroundings import Surroundings, surroundings
from bestiary.data.world.vocabulary import COLOURS, FINISHES, SIZE_LIMITS, TEXTURES

SMALLEST_SHARE, LARGEST_SHARE = 0.13, 0.62
"""Extent of a thing in the picture, as a share of its shorter side."""
HIDDEN_SHARE = 0.5
"""Largest share of a thing's frame in the picture that may lie on another's when it is placed."""
MOVERS = ("beast", "walker")


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in the world frame (y down, the ground at 0).

    Attributes:
        category: name.
        scale: largest extent, metres.
        build: six numbers 0..1 that say how its shape is built.
        x, z: of its middle, at time 0.
        lift: height of what it stands on.
        support: index of the thing it stands on, or None.
        yaw: of its heading, radians about the downward axis.
        speed: metres a frame along its heading.
        phase: of its gait at time 0, radians.
        colour, texture, finish: indices into the vocabulary.
        second: other colour of its pattern, linear.
        pattern: period (metres), phase (3), direction (3, unit).
    """

    category: str
    scale: float
    build: tuple[float, ...]
    x: float
    z: float
    lift: float
    support: int | None
    yaw: float
    speed: float
    phase: float
    colour: int
    texture: int
    finish: int
    second: tuple[float, ...]
    pattern: tuple[float, ...]

    @property
    def size(self) -> int:
        """Index of its size word."""
        return sum(self.scale >= limit for limit in SIZE_LIMITS)


@dataclass(frozen=True)
class Lens:
    """Focal length and principal point, pixels. The camera stays level: the horizon is moved by shifting the lens."""

    focal: float
    principal_x: float
    principal_y: float


@dataclass(frozen=True)
class Path:
    """The camera's way: place (x, height above ground, z) at time 0, metres a frame, yaw, radians a frame, and a slow
    sway."""

    x: float
    height: float
    z: float
    speed_x: float
    speed_z: float
    rise: float
    yaw: float
    turn: float
    sway: float

    def at(self, time: float) -> tuple[float, float, float, float]:
        """x, height, z and yaw at `time` frames."""
        swing = self.sway * math.sin(0.35 * time)
        rise = self.rise * math.sin(0.22 * time)
        return (
            self.x + self.speed_x * time + swing,
            self.height + rise,
            self.z + self.speed_z * time,
            self.yaw + self.turn * time,
        )


@dataclass(frozen=True)
class Scene:
    """Things, camera and surroundings of a picture or a clip."""

    things: tuple[Thing, ...]
    lens: Lens
    path: Path
    place: Surroundings


def draw_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    numbers: tuple[int, int],
    empty: float,
    categories: Sequence[str],
    frames: int,
) -> Scene:
    """A scene drawn at random.

    Args:
        rng: the only source of chance.
        size_hw: of the picture.
        numbers: least and most things; fewer stand there where no room is found.
        empty: share of scenes without any.
        categories: names out of the vocabulary's to choose from.
        frames: of the clip; a camera moves only where there are more than one.
    """
    height, width = size_hw
    side = min(size_hw)
    place = surroundings(rng)
    focal = side * (0.95 + 0.35 * rng.random())
    lens = Lens(focal, width / 2, height * (0.20 + 0.22 * rng.random()))
    path = _draw_path(rng, frames)
    wanted = 0 if rng.random() < empty else int(rng.integers(numbers[0], numbers[1] + 1))
    placer = _Placer(rng, lens, path, size_hw, float(place.place[at.WALL_Z]), wanted)
    for _ in range(wanted):
        thing = _draw_thing(rng, categories[int(rng.integers(len(categories)))], frames)
        if placer.things and rng.random() < 0.22 and placer.put_on_top(thing):
            continue
        placer.put_on_ground(thing)
    return Scene(tuple(placer.things), lens, path, place)


def _draw_path(rng: np.random.Generator, frames: int) -> Path:
    height, yaw = 0.75 + 1.0 * rng.random(), 0.24 * (2 * rng.random() - 1)
    x, z = 1.5 * (2 * rng.random() - 1), 0.5 * (2 * rng.random() - 1)
    if frames == 1:
        return Path(x, height, z, 0.0, 0.0, 0.0, yaw, 0.0, 0.0)
    # A clip of any length covers at most about a metre of ground and a fifth of a turn.
    most = 1.0 / max(frames - 1, 8)
    aside, ahead, turn = (2 * rng.random(3) - 1).tolist()
    return Path(
        x,
        height,
        z,
        most * aside,
        most * (0.7 * ahead + 0.3),
        0.08 * rng.random(),
        yaw,
        0.35 * most * turn,
        0.05 * rng.random(),
    )


def _draw_thing(rng: np.random.Generator, category: str, frames: int) -> Thing:
    """A thing that has no place yet."""
    numbers = rng.random(24).tolist()
    colour, texture, finish = (int(rng.integers(len(words))) for words in (COLOURS, TEXTURES, FINISHES))
    main = np.array(list(COLOURS.values())[colour]) / 255
    # The second colour is the main one much darker or much paler, so that the main colour's name stays true.
    dark = bool(main.mean() > 0.45) if numbers[0] < 0.7 else bool(main.mean() > 0.7)
    second = (0.42 * main if dark else 0.35 * main + 0.62) ** 2
    direction = np.array(numbers[1:4]) * 2 - 1
    direction[1] += math.copysign(0.8, direction[1])
    direction /= np.linalg.norm(direction)
    scale = 0.42 + 0.88 * numbers[4]
    period = scale * (0.20 + 0.16 * numbers[5])
    moving = frames > 1 and category in MOVERS and numbers[6] < 0.75
    speed = (0.02 + 0.03 * numbers[7]) * scale if moving else 0.0
    return Thing(
        category, scale, tuple(numbers[8:14]), 0.0, 0.0, 0.0, None, 2 * math.pi * numbers[14] - math.pi, speed,
        2 * math.pi * numbers[15], colour, texture, finish, tuple(second.tolist()),
        (period, *numbers[16:19], *direction.tolist()),
    )  # fmt: skip


class _Placer:
    """Finds room for things: on the ground before the camera, not inside one another, not quite hidden."""

    def __init__(
        self, rng: np.random.Generator, lens: Lens, path: Path, size_hw: tuple[int, int], wall_z: float, wanted: int
    ) -> None:
        self.rng, self.lens, self.path, self.size_hw, self.wanted = rng, lens, path, size_hw, wanted
        self.side = min(size_hw)
        self.wall_z = wall_z
        self.things: list[Thing] = []
        self.frames: list[tuple[float, float, float, float]] = []

    def put_on_ground(self, thing: Thing) -> bool:
        """Place a thing in front of the camera; its extent may be changed so that it fits. False if no room was
        found."""
        lens, path, rng = self.lens, self.path, self.rng
        nearest = 1.02 * lens.focal * path.height / (self.size_hw[0] - lens.principal_y)
        farthest = min(11.0 if self.wanted <= 8 else 16.0, self.wall_z - path.z - 1.5)
        cos, sin = math.cos(path.yaw), math.sin(path.yaw)
        for _ in range(30):
            a, b, c = rng.random(3).tolist()
            # Uniform in 1 / z: even over the picture rather than over the ground.
            depth = 1 / (1 / nearest + a * (1 / farthest - 1 / nearest))
            share = lens.focal * thing.scale / (depth * self.side)
            if not SMALLEST_SHARE <= share <= LARGEST_SHARE:
                thing = replace(thing, scale=0.42 + 0.88 * c)
                continue
            x = (2 * b - 1) * 0.94 * self.size_hw[1] / 2 / lens.focal * depth
            moved = replace(thing, x=path.x + cos * x + sin * depth, z=path.z - sin * x + cos * depth)
            frame = self._frame(x, depth, thing.scale, 0.0)
            if self._is_free(moved) and self._is_seen(frame):
                self.things.append(_with_pattern(moved))
                self.frames.append(frame)
                return True
        return False

    def put_on_top(self, thing: Thing) -> bool:
        """Place a thing on the flat top of another that carries nothing yet. False if there is none."""
        for k, under in enumerate(self.things):
            shape = SHAPES[under.category](under.build, 0.0)
            if not shape.top or under.lift or any(other.support == k for other in self.things):
                continue
            scale = min(thing.scale, 2.1 * shape.top * under.scale)
            depth = math.cos(self.path.yaw) * (under.z - self.path.z) + math.sin(self.path.yaw) * (
                under.x - self.path.x
            )
            if self.lens.focal * scale / (depth * self.side) < 0.8 * SMALLEST_SHARE or scale < 0.3:
                continue
            lift = under.scale * _height(under)
            placed = replace(thing, x=under.x, z=under.z, lift=lift, support=k, scale=scale, speed=0.0)
            x = math.cos(self.path.yaw) * (under.x - self.path.x) - math.sin(self.path.yaw) * (under.z - self.path.z)
            frame = self._frame(x, depth, scale, lift)
            if frame[1] > 0 and self._is_seen(frame, k):
                self.things.append(_with_pattern(placed))
                self.frames.append(frame)
                return True
        return False

    def _frame(self, x: float, depth: float, scale: float, lift: float) -> tuple[float, float, float, float]:
        """About where a thing lies in the picture: x1, y1, x2, y2, depth left out."""
        zoom = self.lens.focal / depth
        middle, bottom = self.lens.principal_x + zoom * x, self.lens.principal_y + zoom * (self.path.height - lift)
        return middle - 0.42 * zoom * scale, bottom - zoom * scale, middle + 0.42 * zoom * scale, bottom

    def _is_free(self, thing: Thing) -> bool:
        room = 0.58 if self.wanted <= 8 else 0.45
        return all(
            math.hypot(thing.x - other.x, thing.z - other.z) > room * (thing.scale + other.scale)
            for other in self.things
            if other.support is None
        )

    def _is_seen(self, frame: tuple[float, float, float, float], beside: int = -1) -> bool:
        """Whether the frame and those already there overlap little; `beside` is not asked."""
        most = HIDDEN_SHARE if self.wanted <= 8 else 0.7
        for k, other in enumerate(self.frames):
            width = min(frame[2], other[2]) - max(frame[0], other[0])
            height = min(frame[3], other[3]) - max(frame[1], other[1])
            area = min((f[2] - f[0]) * (f[3] - f[1]) for f in (frame, other))
            if k != beside and width > 0 and height > 0 and width * height > most * area:
                return False
        return True


def _height(thing: Thing) -> float:
    """Height of a thing of extent 1 that something may stand on."""
    return 2 * (0.3 + 0.2 * thing.build[1]) if thing.category == "box" else 1.0


def _with_pattern(thing: Thing) -> Thing:
    """The pattern's period is a share of the thing's extent, whatever that became."""
    share = 0.20 + 0.16 * thing.build[5]
    return replace(thing, pattern=(share * thing.scale, *thing.pattern[1:]))
