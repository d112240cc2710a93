"""Boxes in a CSV file: with a header (any order, many spellings) or as keras-retinanet writes it
(path,x1,y1,x2,y2,class).

Coordinates are taken as continuous pixels, 0-based. A line with a picture and no box is a picture without objects.
The delimiter (comma, semicolon, tab) is found in the first lines.
"""

import csv
from pathlib import Path

from bestiary.data.index import Index, RawObject, RawPicture, Where
from bestiary.data.readers.findings import (
    Findings,
    PictureFinder,
    in_split_order,
    names_file,
    nothing_read,
    relative_name,
    split_of,
)
from bestiary.pictures.decode import is_picture_name

_SPELLINGS = {
    "image": (
        "image",
        "filename",
        "file_name",
        "file",
        "image_path",
        "img_path",
        "path",
        "img",
        "image_name",
        "image_id",
    ),
    "x1": ("xmin", "x1", "x_min", "left", "bbox_xmin"),
    "y1": ("ymin", "y1", "y_min", "top", "bbox_ymin"),
    "x2": ("xmax", "x2", "x_max", "right", "bbox_xmax"),
    "y2": ("ymax", "y2", "y_max", "bottom", "bbox_ymax"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "w": ("w", "bbox_w", "bbox_width"),
    "h": ("h", "bbox_h", "bbox_height"),
    "label": ("label", "class", "class_name", "category", "name", "category_name"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}
_BARE = {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "label": 5}


def recognise(root: Path) -> str | None:
    """A CSV with columns for picture, box and label, or lines of path and five fields."""
    for file in _files(root):
        columns, header = _columns(_rows(file.read_text(encoding="utf-8-sig", errors="replace")[:4096]))
        if columns:
            return f"{file.name} has {'columns ' + ', '.join(columns) if header else 'lines path,x1,y1,x2,y2,class'}"
    return None


def read(path: Path) -> Index:
    """Read a folder with CSV files (one a split) or one file.

    Raises:
        DataError: not one picture.
    """
    root = path if path.is_dir() else path.parent
    findings = Findings(root)
    files = _files(path)
    splits: dict[str, list[RawPicture]] = {}
    for file in files:
        rows = _rows(findings.text(file) or "")
        columns, header = _columns(rows)
        if columns:
            name = file.parent.name if file.parent != root else file.stem
            split = split_of(file.stem) or split_of(name) or ("all" if len(files) == 1 else file.stem)
            splits.setdefault(split, []).extend(_pictures(file, rows, columns, header, findings))
    if not any(splits.values()):
        raise nothing_read(path, "CSV", findings)
    used = {o.category for pictures in splits.values() for p in pictures for o in p.objects or [] if o.category}
    named = names_file(root)
    ordered = named[1] if named and used <= set(named[1]) else sorted(used)
    return Index(root, "csv", ordered, in_split_order(splits), defects=findings.defects)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".csv", ".tsv") else []
    found = sorted([*path.glob("*.csv"), *path.glob("*/*.csv"), *path.glob("*.tsv")])
    return [f for f in found if not f.name.startswith(".") and f.stem.lower() not in ("classes", "class_map")]


def _rows(text: str) -> list[list[str]]:
    head = "\n".join(text.splitlines()[:20])
    delimiter = max(",;\t", key=head.count)
    return [
        [cell.strip() for cell in row]
        for row in csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    ]


def _columns(rows: list[list[str]]) -> tuple[dict[str, int], bool]:
    """Column of each field, and whether the first row is a header; empty if these are not boxes."""
    first = next((r for r in rows if any(r)), [])
    lower = [cell.lower() for cell in first]
    columns = {}
    for key, spellings in _SPELLINGS.items():
        at = next((lower.index(s) for s in spellings if s in lower), None)
        if at is not None:
            columns[key] = at
    corners, sides = {"x1", "y1", "x2", "y2"} <= columns.keys(), {"x", "y"} <= columns.keys()
    if not corners and sides and "width" in columns and "w" not in columns:
        columns["w"], columns["h"] = columns.pop("width"), columns.pop("height", -1)
    if "image" in columns and "label" in columns and (corners or (sides and {"w", "h"} <= columns.keys())):
        return columns, True
    bare = len(first) == 6 and is_picture_name(first[0]) and all(_is_number(c) or c == "" for c in first[1:5])
    return (dict(_BARE), False) if bare else ({}, False)


def _pictures(
    file: Path, rows: list[list[str]], columns: dict[str, int], header: bool, findings: Findings
) -> list[RawPicture]:
    root = findings.root
    finder = PictureFinder(root, [file.parent, root, file.parent / "images", root / "images", root / file.stem])
    pictures: dict[str, RawPicture | None] = {}
    seen_header = not header
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        if not seen_header:
            seen_header = True
            continue
        where = findings.place(file, number)
        if len(row) <= max(columns.values()):
            wanted = f"{max(columns.values()) + 1} fields"
            findings.error("bad-line", where, f"{len(row)} fields", wanted, "Correct or delete the line", "left out")
            continue
        name = row[columns["image"]]
        if name not in pictures:
            pictures[name] = _picture(name, row, columns, where, findings, finder)
        picture = pictures[name]
        if picture is not None and picture.objects is not None and any(row[columns[k]] for k in _box_keys(columns)):
            picture.objects.append(_object(row, columns, where, findings))
    return [p for p in pictures.values() if p is not None]


def _box_keys(columns: dict[str, int]) -> tuple[str, ...]:
    return ("x1", "y1", "x2", "y2") if "x2" in columns else ("x", "y", "w", "h")


def _picture(
    name: str, row: list[str], columns: dict[str, int], where: Where, findings: Findings, finder: PictureFinder
) -> RawPicture | None:
    if not name or not findings.inside(name, where):
        return None
    found = finder.find(name)
    extra = {}
    if found is None:
        findings.error(
            "missing-picture", where, "no such file", f"a picture {name}", "Add it or delete the line", "left out"
        )
        extra["missing"] = True
        found = findings.root / name
    size = None
    if "width" in columns and "height" in columns:
        texts = row[columns["height"]], row[columns["width"]]
        if all(t.isdecimal() and len(t) < 10 and int(t) > 0 for t in texts):
            size = int(texts[0]), int(texts[1])
    return RawPicture(found, relative_name(findings.root, found), where, size, [], extra=extra)


def _object(row: list[str], columns: dict[str, int], where: Where, findings: Findings) -> RawObject:
    texts = [row[columns[k]] for k in _box_keys(columns)]
    box = None
    if all(_is_number(t) for t in texts):
        a, b, c, d = (float(t) for t in texts)
        box = (a, b, c, d) if "x2" in columns else (a, b, a + c, b + d)
    else:
        findings.error(
            "bad-number", where, repr(",".join(texts)), "four numbers", "Correct or delete the line", "left out"
        )
    category = row[columns["label"]] or None
    if category is None:
        findings.error("missing-name", where, "no label", "a class name", "Write the class", "left out")
    return RawObject(category, where, box)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
