"""A sample under a map of its pixels: every field moves together, here and nowhere else.

image
    interpolated; fill outside
boxes
    bounds of their moved corners, cut to the picture; of a cut or turned object with a mask, the mask's bounds
masks, label map, depth, weights
    nearest; outside: False, `IGNORE_LABEL`, 0, 0. A zoom leaves depths in metres as they are
keypoints
    moved, left and right exchanged by a mirror; 0, 0 and visibility 0 (as COCO has it) outside the picture
areas
    scaled by the map; of cut objects: the mask's pixels, or the box's visible share
normals, camera
    turned, mirrored and re-centred as the camera that would take the new picture. The pose of a mirrored camera is
    improper, so that it still takes the world to the right pixels. Maps that are not affine drop the camera
3D boxes
    mirrored; dropped (None) by maps that turn the picture, as a box then leans, which its yaw cannot say
proposals
    moved and cut like boxes; those that the picture lost are dropped, by the same rule as objects
relations
    follow their objects and are dropped with them; a mirror exchanges the predicates that it is told
label, caption
    stay: a caption that says "left" is wrong in a mirror
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from bestiary.records import IGNORE_LABEL, Camera, Objects, Sample, Target
from bestiary.transforms.keep import Keep, visible_fraction
from bestiary.transforms.resampling import bounds_of_masks

Pairs = tuple[tuple[int, int], ...]


@runtime_checkable
class Motion(Protocol):
    """What a map says of itself: `Warp` if it is affine, `Field` if not."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Size of the new picture."""
        ...

    @property
    def keep(self) -> Keep:
        """Which objects stay."""
        ...

    @property
    def joint_swaps(self) -> Pairs:
        """Joints that change places."""
        ...

    @property
    def predicate_swaps(self) -> Pairs:
        """Predicates that change places."""
        ...

    @property
    def is_identity(self) -> bool:
        """Nothing changes."""
        ...

    @property
    def keeps_boxes_tight(self) -> bool:
        """Rectangles become rectangles."""
        ...

    @property
    def area_scale(self) -> float:
        """Factor by which areas grow."""
        ...

    def points(self, points_xy: Float64[np.ndarray, "*N 2"]) -> Float64[np.ndarray, "*N 2"]:
        """Where points go."""
        ...

    def boxes(self, boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
        """Bounds of where boxes go, uncut."""
        ...

    def image(self, image: Shaped[Tensor, "C _h _w"]) -> Shaped[Tensor, "C _h2 _w2"]:
        """The picture, interpolated."""
        ...

    def nearest(self, maps: Shaped[Tensor, "*C _h _w"], fill: float) -> Shaped[Tensor, "*C _h2 _w2"]:
        """Maps whose values may not be mixed."""
        ...

    def masks(self, masks: Bool[Tensor, "N _h _w"], bounds_xyxy: Int64[np.ndarray, "N 4"]) -> Bool[Tensor, "N _h2 _w2"]:
        """Masks that are empty outside their bounds."""
        ...

    def turn(
        self, intrinsics: Float64[np.ndarray, "3 3"] | None
    ) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "2 2"]] | None:
        """New intrinsics, and how the camera's x and y turn; None if no camera takes such a picture."""
        ...


def move(sample: Sample, motion: Motion) -> Sample:
    """`sample` under `motion`. Nothing is copied where nothing changes."""
    if motion.is_identity:
        return sample
    return replace(sample, image=motion.image(sample.image), target=move_target(sample.target, motion))


def move_target(target: Target, motion: Motion) -> Target:
    """All that is known of a picture, after `motion`."""
    changed: dict[str, object] = {}
    for name, fill in (("label_map", float(IGNORE_LABEL)), ("weight_map", 0.0), ("depth", 0.0), ("normals", 0.0)):
        value = getattr(target, name)
        if value is not None:
            changed[name] = motion.nearest(value, fill)
    wants_turn = target.camera is not None or target.normals is not None or _has_boxes_3d(target)
    intrinsics = None if target.camera is None else target.camera.intrinsics.double().numpy()
    turn = motion.turn(intrinsics) if wants_turn else None
    if target.camera is not None:
        changed["camera"] = None if turn is None else _turned_camera(target.camera, *turn)
    if target.normals is not None and turn is not None:
        changed["normals"] = _turned_normals(changed["normals"], turn[1])  # type: ignore[arg-type]
    if target.proposals_xyxy is not None:
        changed["proposals_xyxy"] = move_proposals(target.proposals_xyxy, motion)
    if target.objects is not None:
        objects = target.objects
        if objects.boxes_3d is not None:
            objects = replace(objects, boxes_3d=None if turn is None else _turned_boxes_3d(objects.boxes_3d, turn[1]))
        changed["objects"], kept = move_objects(objects, motion)
        if target.relations is not None:
            changed["relations"] = remap_relations(target.relations, kept, motion.predicate_swaps)
    elif target.relations is not None and motion.predicate_swaps:
        changed["relations"] = remap_relations(target.relations, None, motion.predicate_swaps)
    return replace(target, **changed) if changed else target  # type: ignore[arg-type]


def move_proposals(boxes_xyxy: Float32[Tensor, "N 4"], motion: Motion) -> Float32[Tensor, "M 4"]:
    """The proposals that stay, moved and cut, in their order."""
    moved, cut = _moved_boxes(boxes_xyxy, motion)
    stays = motion.keep.judge(moved, cut, motion.size_hw)
    return torch.from_numpy(cut[stays].astype(np.float32))


def _moved_boxes(
    boxes_xyxy: Float32[Tensor, "N 4"], motion: Motion
) -> tuple[Float64[np.ndarray, "N 4"], Float64[np.ndarray, "N 4"]]:
    """Where boxes go, and what of that is inside the picture."""
    height, width = motion.size_hw
    moved = motion.boxes(boxes_xyxy.numpy().astype(np.float64))
    return moved, np.clip(moved, 0, np.array([width, height, width, height], dtype=np.float64))


def move_objects(objects: Objects, motion: Motion) -> tuple[Objects, Bool[Tensor, " N"]]:
    """The objects that stay, moved, and which of the given ones they are."""
    if not len(objects):
        empty = None if objects.masks is None else torch.zeros((0, *motion.size_hw), dtype=torch.bool)
        return replace(objects, masks=empty), torch.zeros(0, dtype=torch.bool)
    moved, cut = _moved_boxes(objects.boxes_xyxy, motion)
    is_cut = (cut != moved).any(1)
    stays = motion.keep.judge(moved, cut, motion.size_hw)
    share = visible_fraction(moved, cut, motion.size_hw)
    changed: dict[str, Tensor] = {}
    counts = None
    if objects.masks is not None:
        masks, bounds, had_pixels = _moved_masks(objects.masks, motion)
        has_pixels = bounds[:, 2] > bounds[:, 0]
        stays &= has_pixels | ~had_pixels | ~is_cut
        fit = (is_cut | (not motion.keeps_boxes_tight)) & has_pixels
        cut = np.where(fit[:, None], bounds, cut)
        changed["masks"] = masks
        counts = masks.sum((1, 2)).numpy() if objects.areas is not None else None
    changed["boxes_xyxy"] = torch.from_numpy(cut.astype(np.float32))
    if objects.keypoints is not None:
        changed["keypoints"] = move_keypoints(objects.keypoints, motion)
    if objects.areas is not None:
        scaled = objects.areas.numpy() * motion.area_scale
        left = scaled * share if counts is None else counts
        changed["areas"] = torch.from_numpy(np.where(is_cut, left, scaled).astype(np.float32))
    kept = torch.from_numpy(stays)
    everything = replace(objects, **changed)
    return everything if stays.all() else everything[kept], kept


def _moved_masks(
    masks: Bool[Tensor, "N _h _w"], motion: Motion
) -> tuple[Bool[Tensor, "N _h2 _w2"], Int64[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """Masks, their new bounds, and which had any pixel before."""
    masks = masks.contiguous()
    before = bounds_of_masks(masks)
    moved = motion.masks(masks, before)
    return moved, bounds_of_masks(moved), before[:, 2] > before[:, 0]


def move_keypoints(keypoints: Float32[Tensor, "N J 3"], motion: Motion) -> Float32[Tensor, "N J 3"]:
    """Keypoints moved, exchanged, and gone (0, 0, 0) where they were not annotated or lie outside."""
    points = keypoints.numpy().astype(np.float64)
    moved = np.empty_like(points)
    moved[..., :2], moved[..., 2] = motion.points(points[..., :2]), points[..., 2]
    height, width = motion.size_hw
    inside = ((moved[..., :2] >= 0) & (moved[..., :2] < (width, height))).all(-1)
    moved[~inside | (moved[..., 2] == 0)] = 0
    order = swapped(moved.shape[1], motion.joint_swaps)
    return torch.from_numpy(moved[:, order].astype(np.float32))


def remap_relations(
    relations: Int64[Tensor, "R 3"], kept: Bool[Tensor, " N"] | None, predicate_swaps: Pairs = ()
) -> Int64[Tensor, "_r 3"]:
    """Relations between kept objects, by their new places, with exchanged predicates."""
    subject, predicate, other = relations.unbind(1)
    if predicate_swaps and len(relations):
        top = max(int(predicate.max()), *(max(pair) for pair in predicate_swaps))
        predicate = torch.as_tensor(swapped(top + 1, predicate_swaps))[predicate]
    if kept is None:
        return torch.stack([subject, predicate, other], 1)
    new_place = torch.cumsum(kept.long(), 0) - 1
    stays = kept[subject] & kept[other]
    return torch.stack([new_place[subject], predicate, new_place[other]], 1)[stays]


def swapped(count: int, swaps: Pairs) -> Int64[np.ndarray, " count"]:
    """0 ... count - 1 with pairs exchanged, one after the other."""
    order = np.arange(count)
    for a, b in swaps:
        if max(a, b) < count:
            order[[a, b]] = order[[b, a]]
    return order


def _has_boxes_3d(target: Target) -> bool:
    return target.objects is not None and target.objects.boxes_3d is not None


def _turned_camera(camera: Camera, intrinsics: Float64[np.ndarray, "3 3"], turn: Float64[np.ndarray, "2 2"]) -> Camera:
    back = np.eye(4)
    back[:2, :2] = turn.T
    pose = camera.pose.double().numpy() @ back
    return Camera(torch.from_numpy(intrinsics.astype(np.float32)), torch.from_numpy(pose.astype(np.float32)))


def _turned_normals(normals: Float32[Tensor, "3 H W"], turn: Float64[np.ndarray, "2 2"]) -> Float32[Tensor, "3 H W"]:
    if np.array_equal(turn, np.eye(2)):
        return normals
    rotation = torch.from_numpy(turn.astype(np.float32))
    return torch.cat([torch.einsum("ij,jhw->ihw", rotation, normals[:2]), normals[2:]])


def _turned_boxes_3d(
    boxes_3d: Float32[Tensor, "N 7"], turn: Float64[np.ndarray, "2 2"]
) -> Float32[Tensor, "N 7"] | None:
    """Mirrored boxes: x negated and yaw to pi - yaw, y negated; None for other turns."""
    signs = np.diag(turn)
    if not np.array_equal(np.diag(np.sign(signs)), turn):
        return None
    out = boxes_3d.clone()
    out[:, :2] *= torch.tensor(signs.tolist())
    if signs[0] < 0:
        out[:, 6] = torch.remainder(2 * torch.pi - out[:, 6], 2 * torch.pi) - torch.pi  # pi - yaw, within -pi..pi
    return out
