"""COCO panoptic: a JSON with `segments_info` and a folder of PNGs whose colour is the segment's id (r + 256 g + 65536
b).

Kirillov et al., Panoptic Segmentation, CVPR 2019, and the format description at cocodataset.org. Every segment, thing
or stuff, is an object with `mask_id`; `extra["isthing"]` tells them apart. The label map is that of the segments'
categories.
"""

from pathlib import Path
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.coco import (
    Id,
    add_categories,
    annotation_files,
    area_of,
    box_of,
    entries_of,
    home_of,
    id_of,
    picture_folders,
    picture_of,
    sort_categories,
    split_names,
)
from bestiary.data.readers.findings import Findings, PictureFinder, in_split_order, nothing_read, relative_name
from bestiary.pictures.sources import list_pictures


def recognise(root: Path) -> str | None:
    """A JSON file with `segments_info`."""
    files = _files(root)
    return f"{relative_name(home_of(root), files[0])} has segments_info" if files else None


def read(path: Path) -> Index:
    """Read a folder with panoptic files, or one file.

    Raises:
        DataError: not one picture.
    """
    root = home_of(path)
    findings = Findings(root)
    index = Index(root, "coco-panoptic", [], {}, category_ids=[], defects=findings.defects)
    files = _files(path)
    names = split_names(files)
    for file in files:
        content = findings.json(file)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            categories = add_categories(index, content, file, findings)
            index.splits[names[file]] = _pictures(content, file, categories, findings)
    index.splits = in_split_order(index.splits)
    if not any(index.splits.values()):
        raise nothing_read(path, "COCO panoptic", findings)
    sort_categories(index)
    return index


def _files(root: Path) -> list[Path]:
    return annotation_files(root, b'"segments_info"', b"\x00")


def _pictures(content: dict[str, Any], file: Path, categories: dict[int, str], findings: Findings) -> list[RawPicture]:
    root = findings.root
    maps = {p.name: p for p in list_pictures(root) if p.suffix == ".png"}
    here = PictureFinder(root, [f for f in (file.with_suffix(""), root / "annotations" / file.stem) if f.is_dir()])
    finder = PictureFinder(root, picture_folders(root, file))
    kinds = content["categories"] if isinstance(content.get("categories"), list) else []
    things = {id_of(c.get("id")): bool(c.get("isthing", 1)) for c in kinds if isinstance(c, dict)}
    pictures: dict[Id | None, RawPicture] = {}
    for entry in content["images"]:
        picture = picture_of(entry, file, findings, finder)
        if picture is not None:
            picture.objects = None
            pictures[picture.extra["id"]] = picture
    for entry in entries_of(content, "annotations", file, findings):
        picture = pictures.get(id_of(entry.get("image_id"))) if isinstance(entry, dict) else None
        where = findings.place(file, annotation=f"image {entry.get('image_id') if isinstance(entry, dict) else entry}")
        if picture is None:
            findings.error("unknown-picture", where, repr(entry)[:60], "the id of an image", "Correct it", "left out")
            continue
        name = str(entry.get("file_name", ""))
        found = here.find(name) if findings.inside(name, where) and here.folders else maps.get(name)
        if found is None:
            findings.error("missing-map", where, f"no map {name!r}", "a PNG of segment ids", "Add it", "left out")
            continue
        picture.instance_map = found
        picture.objects = []
        for segment in entries_of(entry, "segments_info", file, findings):
            if isinstance(segment, dict) and isinstance(segment.get("id"), int):
                picture.objects.append(_segment(segment, where, categories, things, findings))
            else:
                got, wanted = repr(segment)[:80], "an object with a whole number as id"
                findings.error("bad-annotation", where, got, wanted, "Correct it", "left out")
    return list(pictures.values())


def _segment(
    segment: dict[str, Any],
    where: Any,
    categories: dict[int, str],
    things: dict[Id | None, bool],
    findings: Findings,
) -> RawObject:
    number = segment.get("category_id")
    category = categories.get(number) if isinstance(number, int) else None
    if category is None:
        findings.error(
            "unknown-category", where, f"category_id {number!r}", "an id in categories", "Correct it", "left out"
        )
    return RawObject(
        category,
        where,
        box_of(segment.get("bbox"), where, findings),
        mask_id=segment["id"],
        crowd=bool(segment.get("iscrowd", 0)),
        area=area_of(segment),
        id=segment["id"],
        extra={"isthing": things.get(id_of(number), True)},
    )
