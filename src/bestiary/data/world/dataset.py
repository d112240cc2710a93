"""The world as a data set: each picture drawn when it is asked for, with everything that is true of it."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bestiary.data.world.captions import caption
from bestiary.data.world.relations import relations
from bestiary.data.world.rendering import Rendered, render
from bestiary.data.world.scene import Scene, Thing, draw_scene
from bestiary.data.world.vocabulary import (
    ATTRIBUTE_NAMES,
    BACKGROUND,
    CATEGORIES,
    COLOURS,
    JOINT_NAMES,
    JOINT_PAIRS,
    PREDICATES,
    SIZES,
    TEXTURES,
)
from bestiary.errors import UsageError
from bestiary.records import Camera, Objects, Sample, Target

SMALLEST_SIDE = 16
LEAST_VISIBLE = 0.25
"""Share of a thing's pixels that must be visible; of a still picture others are taken out of the scene."""


class World:
    """A small procedural world, seen by a pinhole camera: solids and creatures on textured ground, lit, shaded,
    occluding.

    A map-style data set without a file: picture `i` is a pure function of (seed, split, i) and the other arguments,
    so that any number of workers in any order see the same. Every picture comes with its class (the category of which
    most pixels are seen, None where there is no object), objects (boxes tight on visible pixels, masks, joints,
    areas, attributes, 3D boxes, ids), label map (0 is background), depth, normals, camera, relations and a caption.
    For teaching, demos and tests.

    Args:
        count: pictures.
        seed: another world for another number.
        size_hw: of the pictures; both sides at least 16.
        split: part of the seed: "train" and "val" share no picture.
        frames: pictures a clip. With more than one, pictures `k frames .. (k + 1) frames - 1` show one scene by a
            camera that moves smoothly, and creatures that walk; `Objects.ids` tell which object is which.
        objects: least and most objects a scene; fewer where no room is found.
        empty: share of scenes without any object.
        only: categories that appear; all if None. Labels always index `categories`.

    Attributes:
        categories: names in label order.
        label_map_categories: names of the label map's values: "background", then the categories.
        joint_names, joint_pairs: of the keypoints; all zero for categories without joints.
        attribute_names: columns of `Objects.attributes`.
        predicates: of the relations.
        split: as given.
        clips: number of clips; the last may be shorter.

    Raises:
        UsageError: an argument out of range.
    """

    categories: tuple[str, ...] = CATEGORIES
    label_map_categories: tuple[str, ...] = (BACKGROUND, *CATEGORIES)
    category_ids: None = None
    joint_names: tuple[str, ...] = JOINT_NAMES
    joint_pairs: tuple[tuple[int, int], ...] = JOINT_PAIRS
    attribute_names: tuple[str, ...] = ATTRIBUTE_NAMES
    predicates: tuple[str, ...] = PREDICATES

    def __init__(
        self,
        count: int,
        seed: int = 0,
        size_hw: tuple[int, int] = (128, 128),
        split: str = "train",
        frames: int = 1,
        objects: tuple[int, int] = (1, 6),
        empty: float = 0.04,
        only: Sequence[str] | None = None,
    ) -> None:
        _require(count >= 0, "count", count, "0 or more")
        _require(seed >= 0, "seed", seed, "0 or more")
        _require(min(size_hw) >= SMALLEST_SIDE, "size_hw", size_hw, f"both sides at least {SMALLEST_SIDE}")
        _require(frames >= 1, "frames", frames, "1 or more")
        _require(1 <= objects[0] <= objects[1], "objects", objects, "(least, most) with 1 <= least <= most")
        _require(0 <= empty <= 1, "empty", empty, "0..1")
        unknown = [name for name in only or () if name not in CATEGORIES]
        _require(not unknown and (only is None or len(only) > 0), "only", only, f"names out of {', '.join(CATEGORIES)}")
        self.count, self.seed, self.split, self.frames = count, seed, split, frames
        self.size_hw: tuple[int, int] = (size_hw[0], size_hw[1])
        self.objects, self.empty, self.only = objects, empty, CATEGORIES if only is None else tuple(only)
        self.clips = math.ceil(count / frames)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        """Draw picture `i`; negative ones count from the end."""
        if not -self.count <= i < self.count:
            raise IndexError(f"picture {i} of {self.count}")
        index = i % self.count
        number, frame = divmod(index, self.frames)
        scene = self._scene(number)
        time = frame - (self.frames - 1) / 2
        rendered = render(scene, time, self.size_hw, self._chance(number, 1 + frame))
        visible = _visible(rendered)
        if self.frames == 1:
            scene, rendered, visible = self._without_hidden(scene, rendered, visible, number)
        chosen = np.flatnonzero(visible >= self._least_pixels())
        target = _target(scene, rendered, visible, chosen)
        image = torch.from_numpy(rendered.image).permute(2, 0, 1).contiguous()
        return Sample(image, target, f"{self.split}/{index:06d}.png", self.size_hw)

    def clip(self, number: int) -> list[Sample]:
        """The pictures of one clip, in order.

        Raises:
            IndexError: no such clip.
        """
        if not 0 <= number < self.clips:
            raise IndexError(f"clip {number} of {self.clips}")
        return [self[i] for i in range(number * self.frames, min((number + 1) * self.frames, self.count))]

    def __repr__(self) -> str:
        height, width = self.size_hw
        clips = f" in {self.clips} clips" if self.frames > 1 else ""
        return f"World({self.split}, seed {self.seed}: {self.count} pictures of {height} x {width}{clips})"

    def _chance(self, number: int, purpose: int) -> np.random.Generator:
        """The generator of one clip for one purpose (0: the scene, then one a frame for the sensor)."""
        return np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), number, purpose])

    def _scene(self, number: int) -> Scene:
        return draw_scene(self._chance(number, 0), self.size_hw, self.objects, self.empty, self.only, self.frames)

    def _least_pixels(self) -> int:
        return max(6, round(0.0015 * self.size_hw[0] * self.size_hw[1]))

    def _without_hidden(
        self, scene: Scene, rendered: Rendered, visible: np.ndarray, number: int
    ) -> tuple[Scene, Rendered, np.ndarray]:
        """The scene without things that are hardly seen (and without what stands on them), rendered anew until all
        are seen."""
        while True:
            hidden = (visible < self._least_pixels()) | (visible < LEAST_VISIBLE * rendered.whole)
            if not hidden.any():
                return scene, rendered, visible
            scene = _without(scene, hidden)
            rendered = render(scene, 0.0, self.size_hw, self._chance(number, 1))
            visible = _visible(rendered)


def _require(condition: bool, where: str, got: object, wanted: str) -> None:
    if not condition:
        raise UsageError(f"got {got!r}, wanted {wanted}", where=f"World({where})")


def _visible(rendered: Rendered) -> np.ndarray:
    """Visible pixels of each thing `[N]`."""
    return np.bincount(rendered.owner.ravel() + 1, minlength=len(rendered.whole) + 1)[1:]


def _without(scene: Scene, hidden: np.ndarray) -> Scene:
    gone = set(np.flatnonzero(hidden).tolist())
    gone |= {k for k, thing in enumerate(scene.things) if thing.support in gone}
    kept = [k for k in range(len(scene.things)) if k not in gone]
    moved = {old: new for new, old in enumerate(kept)}
    things = [scene.things[k] for k in kept]
    things = [replace(t, support=None if t.support is None else moved[t.support]) for t in things]
    return replace(scene, things=tuple(things))


def _target(scene: Scene, rendered: Rendered, visible: np.ndarray, chosen: np.ndarray) -> Target:
    """Everything that is true of the picture; `chosen` are the things that are seen."""
    things = [scene.things[k] for k in chosen]
    labels = np.array([CATEGORIES.index(t.category) for t in things], dtype=np.int64)
    masks = np.asarray(rendered.owner[None] == chosen[:, None, None].astype(np.int32))
    label_map = np.zeros(rendered.owner.shape, dtype=np.uint8)
    classes = np.zeros(len(scene.things) + 1, dtype=np.uint8)
    classes[chosen] = labels + 1
    label_map[:] = classes[rendered.owner]
    boxes_3d = rendered.posed.boxes_3d[chosen].astype(np.float32)
    renumbered = {int(old): new for new, old in enumerate(chosen)}
    supports = [None if t.support is None else renumbered.get(t.support) for t in things]
    facts = relations(boxes_3d, supports)
    areas = visible[chosen]
    objects = Objects(
        boxes_xyxy=_boxes_around(masks),
        labels=torch.from_numpy(labels),
        masks=torch.from_numpy(masks),
        keypoints=_keypoints(scene, rendered, chosen),
        areas=torch.from_numpy(areas.astype(np.float32)),
        ids=torch.from_numpy(chosen.astype(np.int64)),
        attributes=_attributes(things),
        boxes_3d=torch.from_numpy(boxes_3d),
    )
    per_class = np.bincount(labels, weights=areas, minlength=1)
    return Target(
        label=int(per_class.argmax()) if len(labels) else None,
        objects=objects,
        label_map=torch.from_numpy(label_map),
        depth=torch.from_numpy(rendered.depth),
        normals=torch.from_numpy(rendered.normals),
        camera=_camera(scene, rendered),
        relations=torch.from_numpy(facts),
        caption=caption(things, areas.tolist(), facts, scene.place.outdoors),
    )


def _boxes_around(masks: np.ndarray) -> Tensor:
    """Boxes `[N, 4]`, tight on the pixels of masks `[N, H, W]`, none of them empty."""
    rows, columns = np.any(masks, axis=2), np.any(masks, axis=1)
    height, width = masks.shape[1:]
    edges = [columns.argmax(1), rows.argmax(1), width - columns[:, ::-1].argmax(1), height - rows[:, ::-1].argmax(1)]
    return torch.from_numpy(np.stack(edges, axis=1).astype(np.float32))


def _keypoints(scene: Scene, rendered: Rendered, chosen: np.ndarray) -> Tensor:
    """`[N, J, 3]`: a joint lies inside its limb, so it is visible where the surface before it belongs to the limb
    around it."""
    height, width = rendered.depth.shape
    lens = scene.lens
    points = np.zeros((len(chosen), len(JOINT_NAMES), 3), dtype=np.float32)
    for row, k in enumerate(chosen):
        joints = rendered.posed.joints[k]
        if joints is None:
            continue
        reach = 0.15 * scene.things[k].scale
        for j, (x, y, z) in enumerate(joints):
            if z <= 0:
                continue
            u, v = lens.focal * x / z + lens.principal_x, lens.focal * y / z + lens.principal_y
            if not (0 <= u < width and 0 <= v < height):
                continue
            column, line = int(u), int(v)
            seen = rendered.owner[line, column] == k and rendered.depth[line, column] >= z - reach
            points[row, j] = (u, v, 2.0 if seen else 1.0)
    return torch.from_numpy(points)


def _attributes(things: Sequence[Thing]) -> Tensor:
    """`[N, T]` of 0 and 1: one colour, texture, size and finish each."""
    marks = torch.zeros(len(things), len(ATTRIBUTE_NAMES))
    textures = len(COLOURS)
    sizes = textures + len(TEXTURES)
    finishes = sizes + len(SIZES)
    for row, thing in zip(marks, things, strict=True):
        row[[thing.colour, textures + thing.texture, sizes + thing.size, finishes + thing.finish]] = 1.0
    return marks


def _camera(scene: Scene, rendered: Rendered) -> Camera:
    lens, view = scene.lens, rendered.view
    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    intrinsics = [[lens.focal, 0.0, lens.principal_x], [0.0, lens.focal, lens.principal_y], [0.0, 0.0, 1.0]]
    pose = [[cos, 0.0, sin, view.x], [0.0, 1.0, 0.0, -view.height], [-sin, 0.0, cos, view.z], [0.0, 0.0, 0.0, 1.0]]
    return Camera(torch.tensor(intrinsics, dtype=torch.float32), torch.tensor(pose, dtype=torch.float32))
