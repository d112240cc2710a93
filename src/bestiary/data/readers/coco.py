"""COCO JSON in any layout: `annotations/instances_*.json`, Roboflow's `train/_annotations.coco.json`, one file
beside its pictures. Boxes are `x, y, width, height`, continuous and 0-based; category order is by id, gaps allowed.
"""

import math
import mmap
import re
from pathlib import Path
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    PictureFinder,
    in_split_order,
    nothing_read,
    relative_name,
    split_of,
)

_PREFIX = re.compile(r"^(instances|person_keypoints|annotations?|panoptic|coco)[_\-.]+", re.IGNORECASE)
_KNOWN = {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "keypoints"}
_MARKS = ("difficult", "truncated")
"""Not COCO's own, but what data sets that come from VOC carry."""

Id = int | str


def recognise(root: Path) -> str | None:
    """A JSON file with `images` and `annotations` that are not panoptic."""
    files = annotation_files(root)
    return f"{', '.join(relative_name(root, f) for f in files[:3])}: images and annotations" if files else None


def annotation_files(root: Path, marker: bytes = b'"annotations"', without: bytes = b'"segments_info"') -> list[Path]:
    """JSON files of `root` (itself, or at most two folders deep) that hold `images`, `marker` and not `without`.

    Where there are `instances_*.json`, the captions and keypoints of the same pictures beside them are left out.
    """
    if root.is_file():
        candidates = [root] if root.suffix.lower() == ".json" else []
    else:
        candidates = sorted(p for depth in ("*.json", "*/*.json", "*/*/*.json") for p in root.glob(depth))
    found = [p for p in candidates if not p.name.startswith(".") and _mentions(p, marker, without)]
    instances = [p for p in found if p.name.startswith("instances_")]
    return instances or found


def _mentions(file: Path, marker: bytes, without: bytes) -> bool:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(b'"images"') >= 0 and data.find(marker) >= 0 and data.find(without) < 0
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def home_of(path: Path) -> Path:
    """The data set's folder: of a JSON file the folder that holds it, or the one above `annotations`."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent


def read(path: Path) -> Index:
    """Read a folder with COCO files, or one file.

    Raises:
        DataError: not one picture.
    """
    root = home_of(path)
    findings = Findings(root)
    index = Index(root, "coco", [], {}, category_ids=[], defects=findings.defects)
    files = annotation_files(path) or ([path] if path.is_file() else [])
    names = split_names(files)
    for file in files:
        content = findings.json(file)
        if content is None:
            continue
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            wanted = "an object with a list `images`"
            findings.error("bad-json", findings.place(file), type(content).__name__, wanted, "Export it again")
            continue
        categories = add_categories(index, content, file, findings)
        finder = PictureFinder(root, picture_folders(root, file))
        index.splits[names[file]] = _pictures(content, file, categories, findings, finder)
    index.splits = in_split_order(index.splits)
    if not any(index.splits.values()):
        raise nothing_read(path, "COCO", findings)
    sort_categories(index)
    return index


def split_names(files: list[Path]) -> dict[Path, str]:
    """Split of each file: from its name, or from its folder for Roboflow's; as written where two would clash."""
    raw = {f: f.parent.name if f.name.startswith("_annotations") else _PREFIX.sub("", f.stem) for f in files}
    names = {f: split_of(name) or ("all" if len(files) == 1 else name) for f, name in raw.items()}
    taken = list(names.values())
    return {f: name if taken.count(name) == 1 else relative_name(home_of(f), f) for f, name in names.items()}


def picture_folders(root: Path, file: Path) -> list[Path]:
    """Where the pictures of an annotation file usually lie."""
    stem = _PREFIX.sub("", file.stem)
    parents = [file.parent, root]
    below = ["", "images", stem, f"images/{stem}", "JPEGImages", "data", "imgs", "img", "photos", "input_images"]
    split = split_of(stem)
    if split:
        below += [split, f"images/{split}", f"{split}/images"]
    return [p / b for b in below for p in parents]


def add_categories(index: Index, content: dict[str, Any], file: Path, findings: Findings) -> dict[int, str]:
    """Join the file's categories to the index by id; the file's own id -> name. Skeleton names too."""
    ids = index.category_ids if index.category_ids is not None else []
    own: dict[int, str] = {}
    for entry in entries_of(content, "categories", file, findings):
        try:
            number, name = int(entry["id"]), str(entry["name"])
        except (KeyError, TypeError, ValueError, OverflowError):
            where = findings.place(file)
            findings.error("bad-category", where, repr(entry)[:80], "an id and a name", "Correct it", "left out")
            continue
        if number in own:
            where = findings.place(file, annotation=f"category {number}")
            findings.error(
                "duplicate-id", where, f"{own[number]!r} and {name!r}", "one name an id", "Renumber", "first kept"
            )
            continue
        own[number] = name
        if name not in index.categories:
            index.categories.append(name)
            ids.append(number if number not in ids else max(ids) + 1)
        names = entry.get("keypoints")
        if names and isinstance(names, list) and index.joint_names is None:
            index.joint_names = [str(n) for n in names]
            index.joint_pairs = mirror_pairs(index.joint_names)
    return own


def sort_categories(index: Index) -> None:
    """Put categories in the order of their ids."""
    ids = index.category_ids or []
    order = sorted(range(len(ids)), key=ids.__getitem__)
    index.categories = [index.categories[i] for i in order]
    index.category_ids = [ids[i] for i in order]


def mirror_pairs(names: list[str]) -> list[tuple[int, int]]:
    """Pairs (left joint, right joint) by their names: left_eye with right_eye, l_knee with r_knee."""
    pairs = []
    for i, name in enumerate(names):
        for left, right in (("left", "right"), ("Left", "Right"), ("l_", "r_"), ("L_", "R_")):
            if left in name and (other := name.replace(left, right, 1)) in names and other != name:
                pairs.append((i, names.index(other)))
                break
    return pairs


def _pictures(
    content: dict[str, Any], file: Path, categories: dict[int, str], findings: Findings, finder: PictureFinder
) -> list[RawPicture]:
    pictures: dict[Id, RawPicture] = {}
    listed: set[Id | None] = set()
    for entry in content["images"]:
        listed.add(id_of(entry.get("id")) if isinstance(entry, dict) else None)
        picture = picture_of(entry, file, findings, finder)
        if picture is None:
            continue
        number = picture.extra["id"]
        if number in pictures:
            where = findings.place(file, annotation=f"image {number}")
            got = f"{pictures[number].name} and {picture.name}"
            findings.error("duplicate-id", where, got, "one picture an id", "Renumber the images", "first kept")
            continue
        pictures[number] = picture
    seen: set[Id] = set()
    for entry in entries_of(content, "annotations", file, findings):
        if not _is_annotation(entry, file, findings):
            continue
        where = findings.place(file, annotation=entry.get("id"))
        image_id = id_of(entry.get("image_id"))
        picture = None if image_id is None else pictures.get(image_id)
        if picture is None:
            if image_id is None or image_id not in listed:
                got, wanted = f"image_id {image_id!r}", "the id of an image in this file"
                findings.error("unknown-picture", where, got, wanted, "Correct it", "left out")
            continue
        number = id_of(entry.get("id"))
        if number is not None and number in seen:
            mend = "Give every annotation its own id"
            findings.error("duplicate-id", where, f"annotation id {number} again", "unique ids", mend, "kept")
        if number is not None:
            seen.add(number)
        if picture.objects is not None:
            picture.objects.append(_object(entry, where, categories, findings))
    return list(pictures.values())


def entries_of(content: dict[str, Any], key: str, file: Path, findings: Findings) -> list[Any]:
    """The list under `key`; empty where there is none, with a defect if something else stands there."""
    value = content.get(key)
    if isinstance(value, list):
        return value
    if value is not None:
        got, mend = f"`{key}` is {repr(value)[:60]}", "Export it again"
        findings.error("bad-json", findings.place(file), got, f"a list `{key}`", mend, "taken as empty")
    return []


def id_of(value: Any) -> Id | None:
    """An id as it can be looked up: a whole number (3.0, as tables write it, is 3) or a text; None for all else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None


def _is_annotation(entry: Any, file: Path, findings: Findings) -> bool:
    """Whether an entry of `annotations` is an object whose ids, if it has them, are ids; a defect if not."""
    if not isinstance(entry, dict):
        findings.error("bad-annotation", findings.place(file), repr(entry)[:80], "an object", "Correct it", "left out")
        return False
    for key in ("id", "image_id"):
        value = entry.get(key)
        if value is not None and id_of(value) is None:
            number = id_of(entry.get("id"))
            where = findings.place(file, annotation=number)
            got, wanted = f"{key} {repr(value)[:60]}", "a whole number or a text"
            findings.error("bad-annotation", where, got, wanted, "Correct it", "left out")
            return False
    return True


def picture_of(entry: Any, file: Path, findings: Findings, finder: PictureFinder) -> RawPicture | None:
    """The picture of one entry of `images`; None and a defect if it cannot be one."""
    number = id_of(entry.get("id")) if isinstance(entry, dict) else None
    name = _name_of(entry) if number is not None else None
    if number is None or name is None:
        wanted = "an object with id (a whole number or a text) and file_name"
        findings.error("bad-picture", findings.place(file), repr(entry)[:80], wanted, "Correct the entry", "left out")
        return None
    where = findings.place(file, annotation=f"image {number}")
    if not findings.inside(name, where):
        return None
    found = finder.find(name)
    extra: dict[str, Any] = {"id": number, "file_name": name}
    if found is None:
        extra["missing"] = True
        mend = "Add the picture, or delete its entry"
        findings.error("missing-picture", where, "no such file", f"a picture {name}", mend, "left out")
        found = (finder.folders or [finder.root])[0] / name
    size = size_of(entry)
    return RawPicture(found, relative_name(finder.root, found), where, size, [], extra=extra)


def _name_of(entry: dict[str, Any]) -> str | None:
    """`file_name`, or as LVIS has it the folder and file that `coco_url` ends in."""
    name, url = entry.get("file_name"), entry.get("coco_url")
    if name is None and isinstance(url, str):
        name = "/".join(url.rsplit("/", 2)[-2:])
    return name if isinstance(name, str) else None


def size_of(entry: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) as an entry of `images` claims; None if it does not."""
    height, width = entry.get("height"), entry.get("width")
    if isinstance(height, int) and isinstance(width, int) and 0 < height < 2**31 and 0 < width < 2**31:
        return height, width
    return None


def _object(entry: dict[str, Any], where: Any, categories: dict[int, str], findings: Findings) -> RawObject:
    number = entry.get("category_id")
    category = categories.get(number) if isinstance(number, int) else None
    if category is None:
        wanted = f"one of the ids {sorted(categories)[:12]}"
        findings.error("unknown-category", where, f"category_id {number!r}", wanted, "Add or correct it", "left out")
    polygons, rle = segmentation_of(entry.get("segmentation"), where, findings)
    own = id_of(entry.get("id"))
    marked = {name for name in _MARKS if entry.get(name) in (1, "1")}
    return RawObject(
        category,
        where,
        box_of(entry.get("bbox"), where, findings),
        polygons=polygons,
        rle=rle,
        keypoints=_keypoints(entry, where, findings),
        crowd=bool(entry.get("iscrowd", 0)),
        difficult="difficult" in marked,
        truncated="truncated" in marked,
        area=area_of(entry),
        id=own if isinstance(own, int) else None,
        extra={k: v for k, v in entry.items() if k not in _KNOWN and k not in marked},
    )


def area_of(entry: dict[str, Any]) -> float | None:
    """The `area` of an annotation or segment; None if it is not a finite number."""
    area = entry.get("area")
    try:
        return float(area) if isinstance(area, int | float) and math.isfinite(area) else None
    except OverflowError:
        return None


def box_of(bbox: Any, where: Any, findings: Findings) -> tuple[float, float, float, float] | None:
    """xyxy of COCO's `x, y, width, height`; None if there is none, with a defect if it is not four numbers."""
    if bbox is None or bbox == []:
        return None
    try:
        x, y, width, height = (float(v) for v in bbox)
    except (TypeError, ValueError, OverflowError):
        wanted = "four numbers x, y, width, height"
        findings.error("bad-number", where, f"bbox {bbox!r}"[:100], wanted, "Correct or delete it", "left out")
        return None
    return (x, y, x + width, y + height)


def segmentation_of(
    value: Any, where: Any, findings: Findings
) -> tuple[list[list[float]] | None, dict[str, Any] | None]:
    """Polygons or run lengths of a `segmentation` field."""
    if not value:
        return None, None
    if isinstance(value, dict):
        if (
            isinstance(value.get("counts"), str | list)
            and isinstance(value.get("size"), list)
            and len(value["size"]) == 2
        ):
            return None, {"size": value["size"], "counts": value["counts"]}
        findings.error("bad-mask", where, f"RLE with {sorted(value)}", "size and counts", "Correct it", "mask left out")
        return None, None
    rings = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    try:
        polygons = [[float(v) for v in ring] for ring in rings]
    except (TypeError, ValueError, OverflowError):
        findings.error("bad-mask", where, f"{value!r}"[:80], "lists of x, y", "Correct it", "mask left out")
        return None, None
    good = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0 and math.isfinite(sum(p))]
    if len(good) < len(polygons):
        bad = next(p for p in polygons if p not in good)
        wanted = "at least three finite points x, y"
        findings.error(
            "bad-mask", where, f"a polygon of {len(bad)} numbers", wanted, "Draw it again", "that part left out"
        )
    return good or None, None


def _keypoints(entry: dict[str, Any], where: Any, findings: Findings) -> list[float] | None:
    value = entry.get("keypoints")
    if not value:
        return None
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or len(numbers) % 3:
        findings.error("bad-keypoints", where, f"{value!r}"[:80], "x, y, visibility a joint", "Correct it", "left out")
        return None
    return numbers
