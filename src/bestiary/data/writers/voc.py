"""PASCAL VOC: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`, and `classes.txt` for the order.

Boxes are written 1-based and inclusive, as they are read: `(x1 + 1, y1 + 1, x2, y2)`; whole numbers where they are
whole, otherwise with their fraction, so that nothing is rounded. One polygon an object is written as
`<polygon><x1>..</x1><y1>..</y1>...` (an extension that several exporters share).
"""

import math
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.writers.placing import Names, Written, flag, place, real_size, usable, writable
from bestiary.pictures.encode import write_bytes

_EXTRA = ("pose", "occluded", "occlusion")
_SPLITS = ("train", "val", "test")
_DERIVED = frozenset({"num_keypoints", "isthing", "pascal_name", "difficult", "truncated"})


def write(index: Index, folder: Path, copy: bool = True) -> Written:
    """Write `index` as VOC into `folder`.

    Args:
        index: of objects.
        folder: new or empty.
        copy: copy the pictures; otherwise link to them.

    Raises:
        DataError: no objects.
        PictureError: a file that is no picture.
    """
    written = Written()
    names = Names(by_stem=True, spaces=False)
    done: set[str] = set()
    splits = writable(index, written)
    for split, pictures in splits.items():
        stems = []
        for picture in pictures:
            name = names.of(picture)
            stem = PurePosixPath(name).stem
            stems.append(stem)
            if stem in done:
                written.lost["pictures listed twice (their first annotation is kept)"] += 1
                continue
            done.add(stem)
            place(picture.path, folder / "JPEGImages" / name, copy)
            text = _document(picture, name, index, written)
            write_bytes(folder / "Annotations" / f"{stem}.xml", text.encode())
        if len(splits) > 1 or split in _SPLITS:
            lines = "".join(f"{stem}\n" for stem in stems)
            write_bytes(folder / "ImageSets" / "Main" / f"{split.replace('/', '_')}.txt", lines.encode())
            if split not in _SPLITS:
                written.lost[f"split {split!r}: listed, but readers of VOC look for train, val, test"] += 1
    if names.renamed:
        written.lost["names of pictures with white space, or that clashed (renamed)"] += names.renamed
    if index.category_ids is not None:
        written.lost["ids of categories (classes.txt keeps their order)"] += len(index.category_ids)
    write_bytes(folder / "classes.txt", "".join(f"{c}\n" for c in index.categories).encode())
    return written


def _document(picture: RawPicture, name: str, index: Index, written: Written) -> str:
    height, width = real_size(picture)
    lines = ["<annotation>", "  <folder>JPEGImages</folder>", f"  <filename>{escape(name)}</filename>"]
    lines += [f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
    lines.append("  <segmented>0</segmented>")
    for found in picture.objects or []:
        if not usable(found, index.categories, written):
            continue
        if found.box_xyxy is None:
            written.lost["objects without a box"] += 1
            continue
        if not all(math.isfinite(v) for v in found.box_xyxy):
            written.lost["boxes that are not finite, with their objects"] += 1
            continue
        lines += _object(found, found.box_xyxy, written)
        written.objects += 1
    return "\n".join([*lines, "</annotation>", ""])


def _object(found: RawObject, box_xyxy: tuple[float, float, float, float], written: Written) -> list[str]:
    x1, y1, x2, y2 = box_xyxy
    corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
    if not all(float(v).is_integer() for v in corners.values()):
        written.lost["boxes with fractions of pixels (kept, but tools that read whole numbers alone will fail)"] += 1
    lines = ["  <object>", f"    <name>{escape(found.category or '')}</name>"]
    lines += [f"    <{k}>{escape(str(found.extra[k]))}</{k}>" for k in _EXTRA if k in found.extra]
    lines += [f"    <{k}>{int(flag(found, k))}</{k}>" for k in ("truncated", "difficult")]
    inner = "".join(f"<{k}>{_number(v)}</{k}>" for k, v in corners.items())
    lines.append(f"    <bndbox>{inner}</bndbox>")
    if found.polygons:
        xs, ys = found.polygons[0][::2], found.polygons[0][1::2]
        points = enumerate(zip(xs, ys, strict=False), 1)
        inner = "".join(f"<x{i}>{_number(x + 0.5)}</x{i}><y{i}>{_number(y + 0.5)}</y{i}>" for i, (x, y) in points)
        lines.append(f"    <polygon>{inner}</polygon>")
    _count_lost(found, written)
    return [*lines, "  </object>"]


def _count_lost(found: RawObject, written: Written) -> None:
    held = {
        "masks as run lengths or maps": found.rle is not None or found.mask_id is not None,
        "further parts of masks in several parts": len(found.polygons or []) > 1,
        "joints": bool(found.keypoints),
        "crowd marks": found.crowd,
        "areas": found.area is not None,
        "ids of objects": found.id is not None,
    }
    held |= {f"field {name!r}": True for name in found.extra.keys() - _DERIVED - set(_EXTRA)}
    written.lost.update(what for what, there in held.items() if there)


def _number(value: float) -> str:
    """Whole numbers without a point, others so that reading gives the same number again."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
