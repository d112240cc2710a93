"""PASCAL VOC: one XML a picture, `ImageSets/Main` lists or split folders; also loose XML beside the pictures.

Boxes in the files are 1-based and inclusive (VOC2012 development kit): read as `(xmin - 1, ymin - 1, xmax, ymax)`.
"""

import re
from pathlib import Path
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    PictureFinder,
    has_files,
    in_split_order,
    last_part,
    names_file,
    nothing_read,
    relative_name,
    split_of,
    subfolders,
)

_OBJECT = re.compile(r"<object[\s>/]")
_KEPT = ("pose", "occluded", "occlusion")


def recognise(root: Path) -> str | None:
    """An `Annotations` folder with XML (here or up to two levels below), or XML whose first tag is `annotation`."""
    if not root.is_dir():
        return None
    homes = _homes(root)
    if homes:
        return f"{', '.join(relative_name(root, h / 'Annotations') for h in homes)} with XML"
    first = next(iter(_loose(root)), None)
    if first is None:
        return None
    with first.open("rb") as file:
        return f"{relative_name(root, first)} is a VOC annotation" if b"<annotation" in file.read(4096) else None


def read(root: Path) -> Index:
    """Read a VOC folder, its `VOCdevkit`, or a folder that holds one; several years are joined split by split.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    splits: dict[str, list[RawPicture]] = {}
    homes = _homes(root)
    for home in homes:
        finder = PictureFinder(root, [home / "JPEGImages", home / "images", home / "Images", home])
        for split, stems in _lists(home, findings).items():
            taken = splits.setdefault(split, [])
            for stem, line, where in stems:
                taken += _listed(home, stem, findings, finder, findings.place(where, line))
    if not homes:
        finder = PictureFinder(root, [])
        for xml in _loose(root):
            finder.folders = [xml.parent, xml.parent / "images", xml.parent.parent / "images"]
            split = next((s for part in relative_name(root, xml).split("/")[:-1] if (s := split_of(part))), "all")
            splits.setdefault(split, []).extend(_picture(xml, findings, finder))
    if not any(splits.values()):
        raise nothing_read(root, "VOC", findings)
    used = {o.category for pictures in splits.values() for p in pictures for o in p.objects or [] if o.category}
    named = names_file(root)
    categories = named[1] if named and used <= set(named[1]) else sorted(used)
    return Index(root, "voc", categories, in_split_order(splits), defects=findings.defects)


def _homes(root: Path) -> list[Path]:
    level, found = [root], []
    for _ in range(3):
        found = [f for f in level if (f / "Annotations").is_dir() and has_files(f / "Annotations", (".xml",))]
        if found:
            break
        level = [s for f in level for s in subfolders(f)][:200]
    return found


def _loose(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*.xml") if not p.name.startswith("."))


def _lists(home: Path, findings: Findings) -> dict[str, list[tuple[str, int | None, Path]]]:
    """Split -> (stem, line, list file). `trainval` counts only where neither train nor val is listed."""
    lists: dict[str, list[tuple[str, int | None, Path]]] = {}
    folder = home / "ImageSets" / "Main"
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    named = {f.stem.lower(): f for f in files if split_of(f.stem) or f.stem.lower() == "trainval"}
    if "trainval" in named and any(split_of(n) in ("train", "val") for n in named):
        del named["trainval"]
    for name, file in named.items():
        rows = lists.setdefault(split_of(name) or "train", [])
        for number, line in enumerate((findings.text(file) or "").splitlines(), 1):
            words = line.split()
            if words and words[-1] != "-1":
                rows.append((words[0].removesuffix(".xml").removesuffix(".jpg"), number, file))
    if any(lists.values()):
        return lists
    annotations = home / "Annotations"
    xmls = sorted(annotations.rglob("*.xml"))
    return {"all": [(relative_name(annotations, x).removesuffix(".xml"), None, x) for x in xmls]}


def _listed(home: Path, stem: str, findings: Findings, finder: PictureFinder, where: Any) -> list[RawPicture]:
    xml = home / "Annotations" / f"{stem}.xml"
    if not findings.inside(xml, where):
        return []
    if xml.is_file():
        return _picture(xml, findings, finder)
    path = next((p for s in (".jpg", ".jpeg", ".png", ".JPG") if (p := finder.find(stem + s))), None)
    mend = "Add the XML, or take the name out of the list"
    findings.error("missing-annotation", where, f"{stem} without an XML", f"Annotations/{stem}.xml", mend, "left out")
    return [RawPicture(path, relative_name(findings.root, path), where)] if path else []


def _picture(xml: Path, findings: Findings, finder: PictureFinder) -> list[RawPicture]:
    """The picture of one XML, as a list of one; nothing if the XML is broken."""
    import defusedxml.ElementTree as ElementTree
    from defusedxml import DefusedXmlException

    text = findings.text(xml)
    if text is None:
        return []
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        line = getattr(error, "position", (None, None))[0]
        mend = "Export the annotation again"
        findings.error("bad-xml", findings.place(xml, line), str(error), "well-formed XML", mend, "left out")
        return []
    filename = (tree.findtext("filename") or "").strip()
    path, missing = _find(xml, filename, findings, finder)
    if path is None:
        return []
    lines = [text.count("\n", 0, m.start()) + 1 for m in _OBJECT.finditer(text)]
    nodes = tree.findall("object")
    if len(lines) != len(nodes):
        lines = [None] * len(nodes)
    objects = [_object(node, xml, line, findings) for node, line in zip(nodes, lines, strict=True)]
    extra: dict[str, Any] = {"filename": filename} if filename else {}
    if missing:
        extra["missing"] = True
    size = _size(tree)
    name = relative_name(findings.root, path)
    return [RawPicture(path, name, findings.place(xml), size, [o for o in objects if o], extra=extra)]


def _find(xml: Path, filename: str, findings: Findings, finder: PictureFinder) -> tuple[Path | None, bool]:
    """The picture: the XML's own `filename`, else the XML's stem with any picture suffix. (path, is it missing)."""
    where = findings.place(xml)
    if filename:
        if not findings.inside(xml.parent / filename, where):
            return None, True
        found = finder.find(filename)
        if found:
            return found, False
        if finder.leaves(filename):
            findings.outside(filename, where)
            return None, True
    for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp"):
        found = finder.find(xml.stem + suffix)
        if found:
            return found, False
    wanted = f"a picture {filename or xml.stem + '.jpg'}"
    findings.error("missing-picture", where, "no such file", wanted, "Add the picture or delete the XML", "left out")
    return xml.with_name(last_part(filename) or f"{xml.stem}.jpg"), True


def _size(tree: Any) -> tuple[int, int] | None:
    try:
        height, width = int(float(tree.findtext("size/height"))), int(float(tree.findtext("size/width")))
    except (TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(node: Any, xml: Path, line: int | None, findings: Findings) -> RawObject | None:
    where = findings.place(xml, line)
    category = (node.findtext("name") or "").strip() or None
    if category is None:
        findings.error("missing-name", where, "an object without a name", "<name>", "Name it or delete it", "left out")
    box = None
    texts = [node.findtext(f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(t) for t in texts)
        box = (xmin - 1, ymin - 1, xmax, ymax)
    except (TypeError, ValueError):
        wanted = "four numbers xmin, ymin, xmax, ymax"
        findings.error("bad-number", where, str(texts), wanted, "Correct or delete the object", "left out")
    extra = {k: t.strip() for k in _KEPT if (t := node.findtext(k)) is not None}
    polygon = node.find("polygon")
    polygons = _polygon(polygon) if polygon is not None else None
    return RawObject(
        category,
        where,
        box,
        polygons=polygons,
        difficult=_flag(node, "difficult"),
        truncated=_flag(node, "truncated"),
        extra=extra,
    )


def _flag(node: Any, name: str) -> bool:
    return (node.findtext(name) or "0").strip().lower() in ("1", "true", "yes")


def _polygon(node: Any) -> list[list[float]] | None:
    """`x1 y1 x2 y2 ...` children, as some exporters add them; 1-based as the boxes are."""
    points: list[float] = []
    number = 1
    while node.findtext(f"x{number}") is not None and node.findtext(f"y{number}") is not None:
        try:
            points += [float(node.findtext(f"x{number}")) - 0.5, float(node.findtext(f"y{number}")) - 0.5]
        except ValueError:
            return None
        number += 1
    return [points] if len(points) >= 6 else None
