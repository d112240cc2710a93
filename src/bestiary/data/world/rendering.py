"""From a scene and a moment to arrays: colours, depth, normals, and which thing each pixel sees."""

import math
from dataclasses import dataclass

import numpy as np

from bestiary.data.world._kernels import layout as at
from bestiary.data.world.scene import Scene, Thing
from bestiary.data.world.shapes import SHAPES
from bestiary.data.world.vocabulary import COLOURS

_MAIN = [tuple((c / 255) ** 2 for c in colour) for colour in COLOURS.values()]
_STRIDE = 0.55
"""Metres, in units of the extent, that one cycle of a gait covers."""


@dataclass(frozen=True)
class View:
    """Where the camera is: world-to-camera is a turn by -yaw about the downward axis after a shift."""

    x: float
    height: float
    z: float
    yaw: float

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points `[..., 3]` (y down, the ground at 0) in the camera frame."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = points[..., 0] - self.x, points[..., 1] + self.height, points[..., 2] - self.z
        return np.stack([cos * x - sin * z, y, sin * x + cos * z], axis=-1)


@dataclass(frozen=True)
class Posed:
    """The things of a scene before a camera.

    Attributes:
        solids: `[M, SOLID_COLUMNS]`, in the order of the things.
        looks: `[N, LOOK_COLUMNS]`.
        boxes_3d: `[N, 7]` as in `Objects`, exact around all solids.
        joints: of each thing `[J, 3]` in the camera frame, or None.
    """

    solids: np.ndarray
    looks: np.ndarray
    boxes_3d: np.ndarray
    joints: list[np.ndarray | None]


@dataclass(frozen=True)
class Rendered:
    """What the pixels see.

    Attributes:
        image: uint8 `[H, W, 3]`.
        depth: metres `[H, W]`.
        normals: `[3, H, W]`.
        owner: index of the thing `[H, W]`, -1 for none.
        whole: pixels of each thing if nothing stood before it `[N]`.
        posed: the things.
        view: the camera.
    """

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    owner: np.ndarray
    whole: np.ndarray
    posed: Posed
    view: View


def pose_things(scene: Scene, view: View, time: float) -> Posed:
    """Put the things of a scene before the camera at `time` frames."""
    from bestiary.data.world._kernels.posing import extents, pose

    count = len(scene.things)
    looks, boxes_3d = np.zeros((count, at.LOOK_COLUMNS)), np.zeros((count, 7))
    rows: list[np.ndarray] = []
    joints: list[np.ndarray | None] = []
    first = 0
    for k, thing in enumerate(scene.things):
        gait = thing.phase + 2 * math.pi * thing.speed * time / (_STRIDE * thing.scale)
        shape = SHAPES[thing.category](thing.build, gait)
        parts = np.array(shape.parts, dtype=np.float64)
        parts[:, at.PART_OWNER] = k
        parts[:, at.PART_CENTRE : at.PART_CENTRE + 3] *= thing.scale
        parts[:, at.PART_SIZE : at.PART_SIZE + 3] *= thing.scale
        low, high = extents(parts)
        middle = 0.5 * (low + high)
        # The middle of the parts becomes the object's origin, and the 3D box's.
        parts[:, at.PART_CENTRE : at.PART_CENTRE + 3] -= middle
        size = high - low
        ahead = thing.speed * time
        x, z = thing.x + ahead * math.cos(thing.yaw), thing.z - ahead * math.sin(thing.yaw)
        centre = view.to_camera(np.array([x, -thing.lift - 0.5 * size[1], z]))
        yaw = math.remainder(thing.yaw - view.yaw, 2 * math.pi)
        boxes_3d[k] = (*centre, *size, yaw)
        turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
        _fill_look(looks[k], thing, turn, centre, float(np.linalg.norm(size)) / 2)
        looks[k, at.FIRST], looks[k, at.LAST] = first, first + len(parts)
        first += len(parts)
        rows.append(parts)
        joints.append(None if shape.joints is None else (shape.joints * thing.scale - middle) @ turn.T + centre)
    parts = np.concatenate(rows) if rows else np.zeros((0, at.PART_COLUMNS))
    return Posed(pose(parts, looks), looks, boxes_3d, joints)


def _fill_look(look: np.ndarray, thing: Thing, turn: np.ndarray, centre: np.ndarray, radius: float) -> None:
    look[at.FRAME : at.FRAME + 9] = turn.T.ravel()
    look[at.ORIGIN : at.ORIGIN + 3] = centre
    look[at.MAIN : at.MAIN + 3], look[at.SECOND : at.SECOND + 3] = _MAIN[thing.colour], thing.second
    look[at.TEXTURE], look[at.PERIOD] = thing.texture, thing.pattern[0]
    look[at.PHASE : at.PHASE + 3], look[at.DIRECTION : at.DIRECTION + 3] = thing.pattern[1:4], thing.pattern[4:7]
    look[at.SHINE] = 0.55 if thing.finish == 1 else 0.0
    look[at.SPHERE : at.SPHERE + 3], look[at.SPHERE + 3] = centre, radius


def view_of(scene: Scene, time: float) -> View:
    """The camera at `time` frames."""
    return View(*scene.path.at(time))


def render(scene: Scene, time: float, size_hw: tuple[int, int], rng: np.random.Generator) -> Rendered:
    """Cast the rays of one picture.

    Args:
        scene: as drawn.
        time: frames from the scene's reference moment.
        size_hw: of the picture.
        rng: of the sensor's noise.
    """
    from bestiary.data.world._kernels import trace

    view = view_of(scene, time)
    camera = np.zeros(at.VIEW_COLUMNS)
    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    camera[: at.SUN] = (
        scene.lens.focal, scene.lens.principal_x, scene.lens.principal_y, view.height, cos, sin, view.x, view.z,
    )  # fmt: skip
    sun = scene.place.sun
    camera[at.SUN :] = (cos * sun[0] - sin * sun[2], sun[1], sin * sun[0] + cos * sun[2])
    posed = pose_things(scene, view, time)
    place, patches, noise = scene.place.place, scene.place.patches, scene.place.noise
    frames = trace.frame_solids(posed.solids, camera, *size_hw)
    depth, seen = np.empty(size_hw), np.empty(size_hw, dtype=np.int32)
    whole = np.zeros(len(scene.things), dtype=np.int64)
    trace.cover(posed.solids, frames, camera, place[at.WALL_Z], depth, seen, whole)
    colours, normals = np.empty((*size_hw, 3)), np.empty((3, *size_hw), dtype=np.float32)
    trace.light(depth, seen, posed.solids, posed.looks, camera, place, patches, noise, colours, normals)
    trace.smooth_edges(posed.solids, frames, posed.looks, camera, place, patches, noise, colours)
    owners = np.append(posed.solids[:, at.OWNER], [-1.0, -1.0]).astype(np.int32)
    # Rows -1 and -2, ground and wall, fall on the two entries at the end.
    owner = owners[seen]
    return Rendered(expose(colours, scene, rng), depth.astype(np.float32), normals, owner, whole, posed, view)


def expose(colours: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of linear light `[H, W, 3]`: exposure, colour cast, blur, tone curve, noise; uint8."""
    import cv2

    place = scene.place
    light = (colours * (place.exposure * place.cast)).astype(np.float32)
    if place.blur:
        sigma = place.blur * min(light.shape[:2]) / 128
        light = cv2.GaussianBlur(light, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    # A soft shoulder above 0.7 instead of a hard limit.
    over = np.maximum(light - 0.7, 0)
    light = np.minimum(light, 0.7) + over / (1 + over / 0.3)
    picture = cv2.pow(np.maximum(light, 0), place.tone) * np.float32(255)
    if place.grain:
        # One field serves the three channels, shifted so far that neighbours know nothing of each other.
        field = np.float32(place.grain) * rng.standard_normal(picture.shape[:2], dtype=np.float32)
        for channel in range(3):
            picture[..., channel] += np.roll(field, channel * (field.size // 3))
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
