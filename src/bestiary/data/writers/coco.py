"""COCO JSON: `annotations/instances_SPLIT.json` and `images/SPLIT/`. Holds everything that an index of objects holds.

VOC's `difficult`, `truncated` and `pose`, and whatever else a reader kept, become extra fields of the annotation. From
a COCO source, `info`, `licenses`, and the extra fields of images and categories are carried over from its own files.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.writers.placing import Names, Written, flag, place, real_size, usable, without_flags, writable
from bestiary.pictures.encode import write_bytes

_PRIVATE = frozenset({"id", "file_name", "filename", "missing", "unlabelled", "label_values", "label_colors"})


def write(index: Index, folder: Path, copy: bool = True) -> Written:
    """Write `index` as COCO into `folder`.

    Args:
        index: of objects.
        folder: new or empty.
        copy: copy the pictures; otherwise link to them.

    Raises:
        DataError: no objects, or a mask that cannot be read.
        PictureError: a file that is no picture.
    """
    written = Written()
    ids = _category_ids(index)
    for split, pictures in writable(index, written).items():
        original = _original(index, pictures)
        document: dict[str, Any] = {k: original[k] for k in ("info", "licenses") if k in original}
        document |= {"images": [], "annotations": [], "categories": _categories(index, ids, original)}
        fields = {str(e["id"]): e for e in original.get("images", []) if _has_id(e)}
        names, image_ids, used = Names(by_stem=False), _Numbers(), _Numbers()
        plain = split.replace("/", "_")
        for picture in pictures:
            name = names.of(picture, _own_name(picture))
            place(picture.path, folder / "images" / plain / name, copy)
            number = image_ids.take(picture.extra.get("id"))
            height, width = real_size(picture)
            kept = {k: v for k, v in fields.get(str(picture.extra.get("id")), {}).items() if k not in _PRIVATE}
            kept |= {k: v for k, v in picture.extra.items() if k not in _PRIVATE and _is_json(v)}
            entry = {"id": number, "file_name": name, "height": height, "width": width}
            document["images"].append(kept | entry)
            for found in picture.objects or []:
                if usable(found, ids, written):
                    annotation = _annotation(found, picture, number, ids, used, (height, width), written)
                    if annotation is not None:
                        document["annotations"].append(annotation)
        written.objects += len(document["annotations"])
        if names.renamed:
            written.lost["names of pictures that clashed (renamed)"] += names.renamed
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        write_bytes(folder / "annotations" / f"instances_{plain}.json", text.encode())
    return written


class _Numbers:
    """Ids: the given one if it is a free whole number (or a free text), else the next free number."""

    def __init__(self) -> None:
        self._taken: set[Any] = set()
        self._next = 1

    def take(self, wanted: Any) -> Any:
        if isinstance(wanted, int | str) and wanted not in self._taken:
            self._taken.add(wanted)
            return wanted
        while self._next in self._taken:
            self._next += 1
        self._taken.add(self._next)
        return self._next


def _category_ids(index: Index) -> dict[str, int]:
    """The file's own ids where they stand in the order of the categories, else 1, 2, 3 ..."""
    ids = index.category_ids
    if ids is None or len(ids) != len(index.categories) or ids != sorted(set(ids)):
        ids = list(range(1, len(index.categories) + 1))
    return dict(zip(index.categories, ids, strict=True))


def _categories(index: Index, ids: Mapping[str, int], original: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = {str(e.get("name")): e for e in original.get("categories", []) if isinstance(e, dict)}
    entries = []
    for name, number in ids.items():
        entry = {**kept.get(name, {}), "id": number, "name": name}
        if index.joint_names and "keypoints" not in entry and any(_joints(index, name)):
            entry |= {"keypoints": list(index.joint_names), "skeleton": []}
        entries.append(entry)
    return entries


def _joints(index: Index, category: str) -> list[bool]:
    pictures = [p for listed in index.splits.values() for p in listed]
    return [True for p in pictures for o in p.objects or [] if o.category == category and o.keypoints][:1]


def _original(index: Index, pictures: list[RawPicture]) -> dict[str, Any]:
    """The COCO file that a split was read from; empty for other sources."""
    if index.format != "coco" or not pictures:
        return {}
    file = index.root / pictures[0].where.file
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and _is_json(content) else {}


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), int | str)


def _own_name(picture: RawPicture) -> str | None:
    """The `file_name` of a COCO source, cleaned of drives and steps upwards."""
    name = picture.extra.get("file_name")
    if not isinstance(name, str) or not name:
        return None
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [p for p in path.parts if p not in ("/", ".", "..") and not p.endswith(":")]
    return path.name if path.is_absolute() else "/".join(parts) or None


def _annotation(
    found: RawObject,
    picture: RawPicture,
    image_id: Any,
    ids: Mapping[str, int],
    used: _Numbers,
    size_hw: tuple[int, int],
    written: Written,
) -> dict[str, Any] | None:
    if found.box_xyxy is not None and not all(math.isfinite(v) for v in found.box_xyxy):
        written.lost["boxes that are not finite, with their objects"] += 1
        return None
    segmentation, area, box = _mask(found, picture)
    if found.box_xyxy is not None:
        box = found.box_xyxy
    entry = {k: v for k, v in without_flags(found.extra).items() if _is_json(v)}
    written.lost["extra fields that JSON cannot hold"] += len(without_flags(found.extra)) - len(entry)
    entry |= {"id": used.take(found.id), "image_id": image_id, "category_id": ids[found.category or ""]}
    if box is not None:
        entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        area = (box[2] - box[0]) * (box[3] - box[1]) if area is None else area
    entry["area"] = found.area if found.area is not None else area or 0.0
    entry["iscrowd"] = int(found.crowd)
    if segmentation is not None:
        entry["segmentation"] = segmentation
    if found.keypoints is not None and all(math.isfinite(v) for v in found.keypoints):
        entry["keypoints"] = found.keypoints
        entry.setdefault("num_keypoints", sum(v > 0 for v in found.keypoints[2::3]))
    elif found.keypoints is not None:
        written.lost["joints that are not finite"] += 1
    entry |= {name: 1 for name in ("difficult", "truncated") if flag(found, name)}
    return entry


def _mask(found: RawObject, picture: RawPicture) -> tuple[Any, float | None, tuple[float, ...] | None]:
    """(segmentation, area, box) of an object's mask; Nones if it has none."""
    from bestiary.geometry.masks import encode_rle
    from bestiary.pictures.decode import read_instance_map

    if found.rle is not None:
        counts = found.rle["counts"]
        return {**found.rle, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}, None, None
    if found.polygons:
        return found.polygons, sum(_polygon_area(ring) for ring in found.polygons), None
    if found.mask_id is None or picture.instance_map is None:
        return None, None, None
    mask = _last_map(picture.instance_map, read_instance_map) == found.mask_id
    rle = encode_rle(mask)
    box = tuple(rle.box_xyxy().tolist()) if rle.area() else None
    return rle.to_coco(), float(rle.area()), box


_LAST: dict[Path, torch.Tensor] = {}


def _last_map(path: Path, read: Any) -> torch.Tensor:
    """The map of the picture at hand: its objects come one after another."""
    if path not in _LAST:
        _LAST.clear()
        _LAST[path] = read(path)
    return _LAST[path]


def _polygon_area(ring: list[float]) -> float:
    """Shoelace formula."""
    xs, ys = ring[::2], ring[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(min(len(xs), len(ys))))) / 2


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
