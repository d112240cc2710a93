"""YOLO text labels: `images/SPLIT`, `labels/SPLIT`, `data.yaml`, `classes.txt`; flat and without yaml if there are no
splits.

Lines are `class x_center y_center width height` in fractions of the picture, with ten digits. Where every object has
one polygon, polygons are written instead (the segmentation layout), and boxes are those of the polygons.
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.writers.placing import Names, Written, flag, place, real_size, usable, without_flags, writable
from bestiary.pictures.encode import write_bytes

_SPLITS = ("train", "val", "test")
_DERIVED = frozenset({"num_keypoints", "isthing", "pascal_name"})


def write(index: Index, folder: Path, copy: bool = True) -> Written:
    """Write `index` as YOLO into `folder`.

    Args:
        index: of objects.
        folder: new or empty.
        copy: copy the pictures; otherwise link to them.

    Raises:
        DataError: no objects.
        PictureError: a file that is no picture.
    """
    import yaml

    written = Written()
    splits = writable(index, written)
    objects = [o for pictures in splits.values() for p in pictures for o in p.objects or []]
    polygons = bool(objects) and all(len(o.polygons or []) == 1 for o in objects)
    flat = list(splits) == ["all"]
    for split, pictures in splits.items():
        names = Names(by_stem=True)
        inner = "" if flat else split.replace("/", "_")
        for picture in pictures:
            name = names.of(picture)
            place(picture.path, folder / "images" / inner / name, copy)
            lines = _lines(picture, index, polygons, written)
            label = folder / "labels" / inner / PurePosixPath(name).with_suffix(".txt")
            write_bytes(label, "".join(f"{line}\n" for line in lines).encode())
            written.objects += len(lines)
        if names.renamed:
            written.lost["names of pictures that clashed (renamed)"] += names.renamed
        if split not in _SPLITS and not flat:
            written.lost[f"split {split!r}: written, but data.yaml names only train, val, test"] += 1
    write_bytes(folder / "classes.txt", "".join(f"{c}\n" for c in index.categories).encode())
    if "train" in splits or "val" in splits:  # without either, readers go by the folders
        settings: dict[str, Any] = {s: f"images/{s}" for s in _SPLITS if s in splits}
        settings |= {"nc": len(index.categories), "names": dict(enumerate(index.categories))}
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_bytes(folder / "data.yaml", text.encode())
    if index.category_ids is not None:
        written.lost["ids of categories (their order is kept)"] += len(index.category_ids)
    return written


def _lines(picture: RawPicture, index: Index, polygons: bool, written: Written) -> list[str]:
    height, width = real_size(picture)
    number = {name: i for i, name in enumerate(index.categories)}
    lines = []
    for found in picture.objects or []:
        if not usable(found, number, written):
            continue
        if polygons and found.polygons:
            ring = found.polygons[0]
            values = [v / (width if i % 2 == 0 else height) for i, v in enumerate(ring)]
        elif found.box_xyxy is not None:
            x1, y1, x2, y2 = found.box_xyxy
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        else:
            written.lost["objects without a box"] += 1
            continue
        if not all(math.isfinite(v) for v in values):
            written.lost["boxes that are not finite, with their objects"] += 1
            continue
        _count_lost(found, polygons, written)
        lines.append(" ".join([str(number[found.category or ""]), *(f"{v:.10g}" for v in values)]))
    return lines


def _count_lost(found: RawObject, polygons: bool, written: Written) -> None:
    held = {
        "masks": found.rle is not None or found.mask_id is not None or (bool(found.polygons) and not polygons),
        "boxes other than those of their polygons": polygons and _differs(found),
        "joints": bool(found.keypoints),
        "crowd marks (they become ordinary objects)": found.crowd,
        "difficult marks (they become ordinary objects)": flag(found, "difficult"),
        "truncated marks": flag(found, "truncated"),
        "areas": found.area is not None,
        "ids of objects": found.id is not None,
    }
    held |= {f"field {name!r}": True for name in without_flags(found.extra).keys() - _DERIVED}
    written.lost.update(what for what, there in held.items() if there)


def _differs(found: RawObject) -> bool:
    ring = (found.polygons or [[]])[0]
    own = (min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2]))
    return found.box_xyxy is not None and any(abs(a - b) > 1e-3 for a, b in zip(own, found.box_xyxy, strict=True))
