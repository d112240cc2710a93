"""Mending boxes, masks and joints of an index in place; each change is one line."""

import math
from collections.abc import Callable

from bestiary.data.check.objects import (
    Box,
    box_text,
    boxes_in_fractions,
    joints_of,
    judge_box,
    judge_keypoints,
    judge_mask,
    twins,
)
from bestiary.data.index import Index, RawObject, RawPicture

Size = tuple[int, int]


def mend_objects(index: Index, size_of: Callable[[RawPicture], Size | None], lines: list[str]) -> None:
    """Mend every object of `index`: boxes clipped, turned or dropped, bad masks and joints taken off, doubles dropped.

    Args:
        index: changed in place.
        size_of: real size of a picture.
        lines: gets one line for each change.
    """
    fractions, joints = boxes_in_fractions(index, size_of) > 0, joints_of(index)
    for picture in (p for pictures in index.splits.values() for p in pictures):
        size = size_of(picture)
        if picture.objects is None:
            continue
        kept = []
        for found in picture.objects:
            if found.category is None or found.category not in index.categories:
                lines.append(f"{found.where}: unknown category: left out")
                continue
            if fractions and size is not None and found.box_xyxy is not None:
                x1, y1, x2, y2 = found.box_xyxy
                found.box_xyxy = (x1 * size[1], y1 * size[0], x2 * size[1], y2 * size[0])
                lines.append(f"{found.where}: box in fractions multiplied by the picture's size")
            _mend_mask(found, size, lines)
            _mend_joints(found, joints, size, lines)
            if _mend_box(found, size, lines):
                kept.append(found)
        picture.objects = kept
        _drop_twins(picture, lines)


def mended_box(box_xyxy: Box, size_hw: Size | None) -> Box | None:
    """The box with its corners in order and clipped to the picture; None if nothing worth keeping is left."""
    x1, y1, x2, y2 = box_xyxy
    rule = judge_box(box_xyxy, size_hw)
    if rule == "box-inverted":
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        rule = judge_box((x1, y1, x2, y2), size_hw)
    if rule in ("box-mostly-outside", "box-beyond-edge") and size_hw is not None:
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(size_hw[1])), min(y2, float(size_hw[0]))
        rule = judge_box((x1, y1, x2, y2), size_hw)
    return (x1, y1, x2, y2) if rule in (None, "box-tiny") else None


def _mend_box(found: RawObject, size_hw: Size | None, lines: list[str]) -> bool:
    """Whether the object is kept."""
    if found.box_xyxy is None:
        there = bool(found.polygons) or found.rle is not None or found.mask_id is not None or bool(found.keypoints)
        if not there:
            lines.append(f"{found.where}: neither box nor mask: left out")
        return there
    old, new = found.box_xyxy, mended_box(found.box_xyxy, size_hw)
    if new is None and found.polygons:
        xs, ys = [v for ring in found.polygons for v in ring[::2]], [v for ring in found.polygons for v in ring[1::2]]
        new = mended_box((min(xs), min(ys), max(xs), max(ys)), size_hw)
    rule = judge_box(old, size_hw)
    if new is None:
        lines.append(f"{found.where}: box {box_text(old)} left out ({rule})")
        return False
    if new != old:
        lines.append(f"{found.where}: box {box_text(old)} became {box_text(new)} ({rule})")
        found.box_xyxy = new
    return True


def _mend_mask(found: RawObject, size_hw: Size | None, lines: list[str]) -> None:
    bad = judge_mask(found, size_hw)
    if bad is None:
        return
    rule, got, _ = bad
    if found.polygons and rule == "bad-mask":
        good = [r for r in found.polygons if len(r) >= 6 and len(r) % 2 == 0 and all(map(math.isfinite, r))]
        lines.append(f"{found.where}: {got}: that part of the mask left out")
        found.polygons = good or None
        _mend_mask(found, size_hw, lines)
    elif rule == "mask-beyond-edge" and size_hw is not None and found.polygons:
        height, width = size_hw
        found.polygons = [
            [min(max(v, 0.0), float(width if i % 2 == 0 else height)) for i, v in enumerate(ring)]
            for ring in found.polygons
        ]
        lines.append(f"{found.where}: polygon clipped to the picture ({got})")
    else:
        lines.append(f"{found.where}: {got}: mask left out")
        found.rle = None


def _mend_joints(found: RawObject, joints: int, size_hw: Size | None, lines: list[str]) -> None:
    if not found.keypoints:
        return
    if len(found.keypoints) != 3 * joints:
        lines.append(f"{found.where}: {len(found.keypoints) / 3:g} joints where {joints} are wanted: left out")
        found.keypoints = None
        return
    rules = {rule for rule, _, _ in judge_keypoints(found.keypoints, joints, size_hw)}
    if not rules & {"bad-keypoints", "bad-visibility"}:
        return
    points: list[float] = []
    for i in range(0, 3 * joints, 3):
        x, y, visible = found.keypoints[i : i + 3]
        good = math.isfinite(x) and math.isfinite(y) and visible > 0
        points += [x, y, visible if visible in (1, 2) else 2.0] if good else [0.0, 0.0, 0.0]
    found.keypoints = points
    lines.append(f"{found.where}: joints that are not finite taken off, visibility set to 0, 1 or 2")


def _drop_twins(picture: RawPicture, lines: list[str]) -> None:
    again = {number for _, number in twins(picture)}
    for number in sorted(again):
        found = (picture.objects or [])[number]
        lines.append(f"{found.where}: {found.category or 'object'} is annotated twice: one left out")
    if again:
        picture.objects = [o for number, o in enumerate(picture.objects or []) if number not in again]
