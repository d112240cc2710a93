"""Rules for boxes, masks and joints. The verdicts are pure functions, which `mend` asks too."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import Findings
from bestiary.errors import RecordError

Box = tuple[float, float, float, float]
SizeOf = Callable[[RawPicture], tuple[int, int] | None]
"""The real size of a picture if it is known, else the one that its annotations claim."""

TOLERANCE = 0.5
"""Pixels that a box or polygon may leave its picture by: rounding, not a mistake."""

NO_AREA = 1e-3
"""Pixels below which a side counts as nothing (loading drops such boxes)."""

JOINT_TOLERANCE = 1.0
_KEEPS_NOTHING = "Correct it or delete the object"


def judge_box(box_xyxy: Box, size_hw: tuple[int, int] | None) -> str | None:
    """The worst rule that a box breaks; None if it is good.

    Args:
        box_xyxy: as it stands in the file.
        size_hw: of the picture; without it, only the box itself is judged.
    """
    x1, y1, x2, y2 = box_xyxy
    if not all(math.isfinite(v) for v in box_xyxy):
        return "box-not-finite"
    if x2 - x1 <= -NO_AREA or y2 - y1 <= -NO_AREA:
        return "box-inverted"
    if x2 - x1 < NO_AREA or y2 - y1 < NO_AREA:
        return "box-empty"
    if size_hw is not None:
        height, width = size_hw
        inside_x, inside_y = min(x2, width) - max(x1, 0.0), min(y2, height) - max(y1, 0.0)
        if inside_x < NO_AREA or inside_y < NO_AREA:
            return "box-outside"
        over = max(-x1, -y1, x2 - width, y2 - height)
        if over > TOLERANCE:
            share = inside_x * inside_y / ((x2 - x1) * (y2 - y1))
            return "box-mostly-outside" if share < 0.5 else "box-beyond-edge"
    if max(x2 - x1, y2 - y1) <= 1:
        return "box-point"
    return "box-tiny" if min(x2 - x1, y2 - y1) < 1 else None


_BOX_ADVICE = {
    "box-not-finite": ("four finite numbers", _KEEPS_NOTHING, "dropped"),
    "box-inverted": ("x1 < x2 and y1 < y2", "Exchange the corners if that was meant, or delete it", "dropped"),
    "box-empty": ("a width and height above 0", _KEEPS_NOTHING, "dropped"),
    "box-outside": ("a box inside the picture", _KEEPS_NOTHING, "dropped"),
    "box-mostly-outside": ("a box inside the picture", "Check picture and box; clip it if both are right", "clipped"),
    "box-beyond-edge": ("a box inside the picture", "Clip it", "clipped"),
    "box-point": ("an extent above one pixel", "Delete it: a click where a drag was meant", "kept"),
    "box-tiny": ("sides of at least one pixel", "Check it; delete it if it is a slip of the mouse", "kept"),
}


def judge_mask(found: RawObject, size_hw: tuple[int, int] | None) -> tuple[str, str, str] | None:
    """(rule, got, wanted) if the object's polygons or run lengths are bad."""
    if found.rle is not None:
        from bestiary.geometry.masks import Rle

        try:
            rle = Rle.from_coco(found.rle)
        except (RecordError, ValueError) as error:
            return "bad-mask", str(error), "run lengths that sum to height x width"
        if size_hw is not None and rle.size_hw != size_hw:
            return "mask-size", f"a mask of {_hw(rle.size_hw)}", f"the picture's {_hw(size_hw)}"
        return ("empty-mask", "no pixel", "at least one") if rle.area() == 0 else None
    for ring in found.polygons or []:
        if len(ring) < 6 or len(ring) % 2:
            return "bad-mask", f"a polygon of {len(ring)} numbers", "at least three points x, y"
        if not all(math.isfinite(v) for v in ring):
            return "bad-mask", "a polygon with NaN or infinity", "finite points"
    if found.polygons and size_hw is not None:
        height, width = size_hw
        xs, ys = [v for ring in found.polygons for v in ring[::2]], [v for ring in found.polygons for v in ring[1::2]]
        over = max(-min(xs), -min(ys), max(xs) - width, max(ys) - height)
        if over > 2 * TOLERANCE:
            return "mask-beyond-edge", f"a point {over:.4g} pixels outside", f"points within {_hw(size_hw)}"
    return None


def judge_keypoints(
    keypoints: list[float], joints: int, size_hw: tuple[int, int] | None
) -> Iterator[tuple[str, str, str]]:
    """(rule, got, wanted) of each way in which an object's joints are bad."""
    if len(keypoints) != 3 * joints:
        yield "bad-keypoints", f"{len(keypoints) / 3:g} joints", f"{joints} joints x, y, visibility"
        return
    for joint in range(joints):
        x, y, visible = keypoints[3 * joint : 3 * joint + 3]
        if visible not in (0, 1, 2):
            yield "bad-visibility", f"joint {joint}: visibility {visible:g}", "0, 1 or 2"
        if visible == 0:
            continue
        if not (math.isfinite(x) and math.isfinite(y)):
            yield "bad-keypoints", f"joint {joint} at ({x:g}, {y:g})", "finite numbers"
        elif size_hw is not None:
            over = max(-x, -y, x - size_hw[1], y - size_hw[0])
            if over > JOINT_TOLERANCE:
                yield "keypoint-outside", f"joint {joint} at ({x:.6g}, {y:.6g})", f"a place within {_hw(size_hw)}"


def judge_objects(index: Index, size_of: SizeOf, findings: Findings) -> None:
    """Note every bad box, mask and joint, objects annotated twice, and categories that the index does not list."""
    known = {d.where for d in index.defects}
    joints = joints_of(index)
    fractions = boxes_in_fractions(index, size_of)
    if fractions:
        where = next(o.where for o in _all_objects(index))
        got = f"{fractions} boxes, all with numbers from 0 to 1"
        mend = "Multiply by the picture's width and height, or read it as YOLO"
        findings.error("boxes-normalised", where, got, "pixels", mend, "taken as pixels")
    for pictures in index.splits.values():
        for picture in pictures:
            size = size_of(picture)
            for found in picture.objects or []:
                if not fractions and found.box_xyxy is not None:
                    _note_box(found, found.box_xyxy, size, findings)
                _note_rest(found, index, size, joints, known, findings)
            _note_twins(picture, findings)


def boxes_in_fractions(index: Index, size_of: SizeOf) -> int:
    """Number of boxes if there are at least five, all within 0..1 although their pictures are not tiny; else 0."""
    count = 0
    for pictures in index.splits.values():
        for picture in pictures:
            size = size_of(picture)
            for found in picture.objects or []:
                if found.box_xyxy is None:
                    continue
                if not all(-0.01 <= v <= 1.01 for v in found.box_xyxy) or (size is not None and max(size) < 16):
                    return 0
                count += 1
    return count if count >= 5 else 0


def joints_of(index: Index) -> int:
    """Joints that every object should have: as named, else as most objects have."""
    if index.joint_names:
        return len(index.joint_names)
    lengths = Counter(len(o.keypoints) // 3 for o in _all_objects(index) if o.keypoints)
    return lengths.most_common(1)[0][0] if lengths else 0


def twins(picture: RawPicture) -> list[tuple[int, int]]:
    """(first, again) of objects that say the same: category, box to a hundredth of a pixel, masks, joints."""
    seen: dict[Any, int] = {}
    found = []
    for number, raw in enumerate(picture.objects or []):
        if raw.box_xyxy is None or not all(math.isfinite(v) for v in raw.box_xyxy):
            continue
        box = tuple(round(v, 2) for v in raw.box_xyxy)
        key = (raw.category, box, raw.crowd, repr(raw.polygons), repr(raw.rle), raw.mask_id, repr(raw.keypoints))
        if key in seen:
            found.append((seen[key], number))
        else:
            seen[key] = number
    return found


def _all_objects(index: Index) -> Iterator[RawObject]:
    for pictures in index.splits.values():
        for picture in pictures:
            yield from picture.objects or []


def _note_box(found: RawObject, box_xyxy: Box, size_hw: tuple[int, int] | None, findings: Findings) -> None:
    rule = judge_box(box_xyxy, size_hw)
    if rule is None:
        return
    wanted, mend, mended = _BOX_ADVICE[rule]
    got = f"{found.category or 'object'} at {box_text(box_xyxy)}"
    if size_hw is not None and "picture" in wanted:
        wanted = f"within 0, 0, {size_hw[1]}, {size_hw[0]}"
    note = findings.error if rule not in ("box-beyond-edge", "box-tiny") else findings.warn
    note(rule, found.where, got, wanted, mend, mended)


def _note_rest(
    found: RawObject, index: Index, size_hw: tuple[int, int] | None, joints: int, known: set[Any], findings: Findings
) -> None:
    where = found.where
    if found.category is not None and found.category not in index.categories:
        wanted = f"one of {', '.join(index.categories[:8])}"
        findings.error("unknown-category", where, repr(found.category), wanted, "Add or correct it", "dropped")
    empty = found.box_xyxy is None and not found.polygons and found.rle is None and found.mask_id is None
    if empty and not found.keypoints and where not in known:
        findings.error("missing-box", where, "neither box nor mask", "a box", _KEEPS_NOTHING, "dropped")
    bad = judge_mask(found, size_hw)
    if bad is not None:
        rule, got, wanted = bad
        if rule == "mask-beyond-edge":
            findings.warn(rule, where, got, wanted, "Clip it", "clipped")
        else:
            said = "training with masks stops there" if rule != "empty-mask" else "dropped where masks are asked for"
            findings.error(rule, where, got, wanted, "Draw it again or delete the mask", said)
    elif found.polygons and found.box_xyxy is not None and _apart(found.polygons, found.box_xyxy):
        mend, got = "Correct the one that is wrong", f"a box at {box_text(found.box_xyxy)}"
        findings.warn("mask-off-box", where, got, "a box around the polygon", mend, "both kept")
    for rule, got, wanted in judge_keypoints(found.keypoints, joints, size_hw) if found.keypoints else ():
        if rule == "bad-keypoints":
            findings.error(rule, where, got, wanted, "Correct it or delete the joints", "those joints not annotated")
        else:
            findings.warn(rule, where, got, wanted, "Correct it", "kept")


def _note_twins(picture: RawPicture, findings: Findings) -> None:
    for _, number in twins(picture):
        found = (picture.objects or [])[number]
        got = f"{found.category or 'object'} at {box_text(found.box_xyxy or (0, 0, 0, 0))} again"
        findings.warn("duplicate-object", found.where, got, "every object once", "Delete one of the two", "both kept")


def _apart(polygons: list[list[float]], box_xyxy: Box) -> bool:
    """Whether the box and the polygons' own box overlap by less than half (IoU)."""
    xs, ys = [v for ring in polygons for v in ring[::2]], [v for ring in polygons for v in ring[1::2]]
    a, b = box_xyxy, (min(xs), min(ys), max(xs), max(ys))
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return math.isfinite(areas) and areas > 0 and inter < 0.5 * (areas - inter)


def box_text(box_xyxy: Box) -> str:
    """`x1, y1, x2, y2` as a person reads it."""
    return ", ".join(f"{v:.6g}" for v in box_xyxy)


def _hw(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
