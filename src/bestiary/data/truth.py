"""From what an annotation file says of a picture to the `Target` of the decoded picture: mended, in the asked
fields."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, UInt8
from torch import Tensor

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.errors import DataError, RecordError
from bestiary.pictures.decode import read_depth, read_instance_map, read_label_map
from bestiary.records import IGNORE_LABEL, Camera, Objects, Target

FIELDS = ("label", "boxes", "masks", "keypoints", "label_map", "depth", "camera", "boxes_3d")
"""What a target can be asked to hold."""

_MIN_SIDE = 1e-3
"""Pixels below which a side of a clipped box counts as nothing."""


@dataclass(frozen=True)
class Layout:
    """What the pictures of a data set have, so that every sample of it has the same fields.

    Attributes:
        offered: fields that at least one picture has.
        joints: joints of an object.
        crowd: some object is a crowd, so all say whether they are.
        difficult: likewise for difficult objects.
        areas: objects carry the area they are judged by.
        label_maps: classes are those of pixels.
        categories: names as the reader numbered them.
        renumber: reader's number of a class -> number to serve, where the user asked for other categories.
    """

    offered: frozenset[str]
    joints: int = 0
    crowd: bool = False
    difficult: bool = False
    areas: bool = False
    label_maps: bool = False
    categories: tuple[str, ...] = ()
    renumber: Mapping[int, int] | None = field(default=None, hash=False)

    def annotated(self, picture: RawPicture) -> bool:
        """Whether somebody said what is in the picture."""
        truths = (picture.objects, picture.label, picture.label_map, picture.instance_map, picture.depth)
        return any(t is not None for t in truths)


def find_layout(index: Index) -> Layout:
    """Look at every picture of every split, so that all splits are served alike."""
    pictures = [p for split in index.splits.values() for p in split]
    objects = [o for p in pictures for o in p.objects or []]
    offered = {
        "label": any(p.label is not None for p in pictures),
        "boxes": any(p.objects is not None for p in pictures),
        "masks": any(o.polygons or o.rle or o.mask_id is not None for o in objects),
        "keypoints": any(o.keypoints for o in objects),
        "label_map": any(p.label_map is not None for p in pictures) or index.format == "coco-panoptic",
        "depth": any(p.depth is not None for p in pictures),
        "camera": any("intrinsics" in p.extra for p in pictures),
        "boxes_3d": any("box_3d" in o.extra for o in objects),
    }
    joints = len(index.joint_names or ()) or max((len(o.keypoints) // 3 for o in objects if o.keypoints), default=0)
    return Layout(
        frozenset(name for name, there in offered.items() if there),
        joints,
        any(o.crowd for o in objects),
        any(o.difficult for o in objects),
        any(o.area is not None for o in objects),
        offered["label_map"],
        tuple(index.categories),
    )


def judge_objects(
    picture: RawPicture,
    size_hw: tuple[int, int] | None,
    fields: Collection[str],
    categories: Collection[str],
    counts: Counter[str],
) -> list[RawObject]:
    """The objects that can be served; what was mended or dropped is added to `counts`.

    Nothing is decoded: a mask that turns out to have no pixel once it is drawn is not found here.

    Args:
        picture: whose objects.
        size_hw: of the picture; None if it is not known, and boxes are not clipped.
        fields: out of `FIELDS`; where masks are asked for, objects without one are dropped.
        categories: names that are served.
        counts: "singular|plural what" -> how often.
    """
    good = []
    for raw in picture.objects or []:
        if raw.category is None or raw.category not in categories:
            counts["object|objects of unknown category dropped"] += 1
            continue
        drawn = _is_drawn(raw, picture)
        box = mend_box(raw.box_xyxy, size_hw)
        if box is None and raw.box_xyxy is None:
            boxed = drawn or _box_around(raw, None, size_hw) is not None
        else:
            boxed = box is not None
        if not boxed:
            counts["box|boxes dropped: not finite, empty or outside the picture"] += 1
            continue
        if "masks" in fields and not drawn:
            counts["object|objects without a mask dropped, because masks are asked for"] += 1
            continue
        if raw.box_xyxy != box:
            counts["box|boxes mended: beyond the picture's border"] += 1
        good.append(raw)
    return good


def _is_drawn(found: RawObject, picture: RawPicture) -> bool:
    """Whether something says which pixels are the object's."""
    if found.mask_id is not None:
        return picture.instance_map is not None
    return found.rle is not None or bool(found.polygons)


def mend_box(
    box_xyxy: tuple[float, float, float, float] | None, size_hw: tuple[int, int] | None
) -> tuple[float, float, float, float] | None:
    """The box clipped to the picture (if its size is known); None if nothing is left of it."""
    if box_xyxy is None or not all(math.isfinite(v) for v in box_xyxy):
        return None
    x1, y1, x2, y2 = box_xyxy
    if size_hw is not None:
        height, width = float(size_hw[0]), float(size_hw[1])
        x1, x2 = min(max(x1, 0.0), width), min(max(x2, 0.0), width)
        y1, y2 = min(max(y1, 0.0), height), min(max(y2, 0.0), height)
    if x2 - x1 < _MIN_SIDE or y2 - y1 < _MIN_SIDE:
        return None
    return (x1, y1, x2, y2)


def make_target(
    raw: RawPicture, size_hw: tuple[int, int], fields: Collection[str], layout: Layout, categories: Sequence[str]
) -> Target:
    """The target of one decoded picture.

    Args:
        raw: what its annotations say.
        size_hw: size of the decoded picture.
        fields: out of `FIELDS`.
        layout: of its data set.
        categories: names in the order that labels count.

    Raises:
        DataError: a mask, map or camera that cannot be read, naming it.
        PictureError: a map that cannot be decoded.
    """
    label = objects = label_map = depth = camera = None
    ids = None
    unboxed = any(o.box_xyxy is None and o.mask_id is not None for o in raw.objects or [])
    from_ids = "masks" in fields or unboxed or ("label_map" in fields and raw.label_map is None)
    if raw.instance_map is not None and from_ids:
        ids = read_instance_map(raw.instance_map)
    if "label" in fields and raw.label is not None:
        label = list(categories).index(raw.label) if raw.label in categories else None
    if set(fields) & {"boxes", "masks", "keypoints", "boxes_3d"} and raw.objects is not None:
        objects = _objects(raw, size_hw, fields, layout, categories, ids)
    if "label_map" in fields:
        label_map = _label_map(raw, layout, categories, ids)
    if "depth" in fields and raw.depth is not None:
        depth = read_depth(raw.depth, float(raw.extra.get("depth_scale", 1)), tuple(raw.extra.get("depth_invalid", ())))
    if "camera" in fields and "intrinsics" in raw.extra:
        camera = Camera(
            torch.tensor(raw.extra["intrinsics"], dtype=torch.float32),
            torch.tensor(raw.extra["pose"], dtype=torch.float32) if "pose" in raw.extra else torch.eye(4),
        )
    return Target(label=label, objects=objects, label_map=label_map, depth=depth, camera=camera)


def _objects(
    raw: RawPicture,
    size_hw: tuple[int, int],
    fields: Collection[str],
    layout: Layout,
    categories: Sequence[str],
    ids: Int32[Tensor, "H W"] | None,
) -> Objects:
    label_of = {name: i for i, name in enumerate(categories)}
    rows: list[tuple[RawObject, tuple[float, float, float, float]]] = []
    masks: list[Tensor] = []
    for found in judge_objects(raw, size_hw, fields, label_of.keys(), Counter()):
        mask = _mask(found, size_hw, ids) if "masks" in fields or found.box_xyxy is None else None
        box = mend_box(found.box_xyxy, size_hw) or _box_around(found, mask, size_hw)
        if box is None or ("masks" in fields and (mask is None or not mask.any())):
            continue
        rows.append((found, box))
        if mask is not None:
            masks.append(mask)
    n, found = len(rows), [r for r, _ in rows]
    boxes = torch.tensor([b for _, b in rows], dtype=torch.float32).reshape(n, 4)
    return Objects(
        boxes_xyxy=boxes,
        labels=torch.tensor([label_of[r.category or ""] for r in found], dtype=torch.int64),
        masks=(torch.stack(masks) if masks else torch.zeros(0, *size_hw, dtype=torch.bool))
        if "masks" in fields
        else None,
        keypoints=_keypoints(found, layout.joints) if "keypoints" in fields else None,
        crowd=torch.tensor([r.crowd for r in found], dtype=torch.bool) if layout.crowd else None,
        difficult=torch.tensor([r.difficult for r in found], dtype=torch.bool) if layout.difficult else None,
        areas=_areas(found, boxes) if layout.areas else None,
        ids=torch.tensor([_id(r.id, i) for i, r in enumerate(found)], dtype=torch.int64),
        boxes_3d=_boxes_3d(found) if "boxes_3d" in fields else None,
    )


def _id(given: int | None, position: int) -> int:
    """The object's id in its file; its place among the picture's objects, from 1, if it has none that int64 holds."""
    return given if given is not None and -(2**63) <= given < 2**63 else position + 1


def _mask(found: RawObject, size_hw: tuple[int, int], ids: Int32[Tensor, "H W"] | None) -> Bool[Tensor, "H W"] | None:
    from bestiary.geometry.masks import Rle, polygons_to_mask

    if found.mask_id is not None:
        return None if ids is None else ids == found.mask_id
    try:
        if found.rle is not None:
            mask = Rle.from_coco(found.rle).decode()
        elif found.polygons:
            mask = polygons_to_mask(found.polygons, size_hw)
        else:
            return None
    except (RecordError, ValueError) as error:
        raise DataError(
            f"the mask cannot be read ({error})", where=str(found.where), mend="Correct or delete it"
        ) from error
    if tuple(mask.shape) != size_hw:
        got, wanted = tuple(mask.shape), f"the picture's, {size_hw}"
        raise DataError(f"got a mask of size {got}, wanted {wanted}", where=str(found.where), mend="Draw it again")
    return mask


def _box_around(
    found: RawObject, mask: Bool[Tensor, "H W"] | None, size_hw: tuple[int, int] | None
) -> tuple[float, float, float, float] | None:
    """The box of an object that came without one: around its mask, else around its visible joints."""
    if mask is not None and mask.any():
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1
    points = [(x, y) for x, y, v in zip(*[iter(found.keypoints or [])] * 3, strict=True) if v > 0]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return mend_box((min(xs), min(ys), max(xs), max(ys)), size_hw)


def _keypoints(found: Sequence[RawObject], joints: int) -> Float32[Tensor, "N J 3"]:
    """x, y, visibility; a joint that is not annotated, or not finite, is all zeros."""
    points = np.zeros((len(found), joints, 3), np.float32)
    for row, raw in zip(points, found, strict=True):
        values = np.asarray(raw.keypoints or [], np.float32).reshape(-1, 3)[:joints]
        row[: len(values)] = np.where((values[:, 2:] > 0) & np.isfinite(values).all(1, keepdims=True), values, 0)
    return torch.from_numpy(points)


def _areas(found: Sequence[RawObject], boxes_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, " N"]:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    given = torch.tensor([math.nan if r.area is None else r.area for r in found], dtype=torch.float32)
    return torch.where(given.isnan(), sides[:, 0] * sides[:, 1], given)


def _boxes_3d(found: Sequence[RawObject]) -> Float32[Tensor, "N 7"]:
    """NaN where an object has none (KITTI's DontCare)."""
    rows: list[Any] = [r.extra.get("box_3d") or [math.nan] * 7 for r in found]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(found), 7)


def _label_map(
    raw: RawPicture, layout: Layout, categories: Sequence[str], ids: Int32[Tensor, "H W"] | None
) -> UInt8[Tensor, "H W"] | None:
    if raw.label_map is None:
        return None if ids is None else _from_segments(raw, categories, ids)
    colors = raw.extra.get("label_colors")
    stored = read_label_map(raw.label_map, colors)
    values = raw.extra.get("label_values")
    if values is None:
        values = {i: i for i in range(len(layout.categories))}
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for value, number in values.items():
        served = number if layout.renumber is None else layout.renumber.get(number, IGNORE_LABEL)
        table[value] = served
    return torch.from_numpy(table[stored.numpy()])


def _from_segments(raw: RawPicture, categories: Sequence[str], ids: Int32[Tensor, "H W"]) -> UInt8[Tensor, "H W"]:
    """Class of each pixel from segments (panoptic data); `IGNORE_LABEL` where there is none."""
    label_of = {name: i for i, name in enumerate(categories)}
    label_map = torch.full(ids.shape, IGNORE_LABEL, dtype=torch.uint8)
    for found in raw.objects or []:
        if found.mask_id is not None and found.category in label_of:
            label_map[ids == found.mask_id] = label_of[found.category]
    return label_map
