"""Human poses as `joints.json` beside `images/`: joint names, and x, y, visible (0/1) of each joint of each picture.

The layout of the Leeds Sports Pose sets (Johnson and Everingham, CVPR 2011) as plain JSON: one person a picture. A
joint that is not visible has no meaningful place there: it is read as not annotated. The box is that of the visible
joints.
"""

import math
from pathlib import Path
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.coco import mirror_pairs
from bestiary.data.readers.findings import Findings, PictureFinder, nothing_read, relative_name, split_of

_FILE = "joints.json"


def recognise(root: Path) -> str | None:
    """A file `joints.json` with `joint_names`."""
    file = root / _FILE if root.is_dir() else root
    if file.name != _FILE or not file.is_file():
        return None
    with file.open("rb") as opened:
        return f"{_FILE} names the joints" if b'"joint_names"' in opened.read(65536) else None


def read(path: Path) -> Index:
    """Read a folder with `joints.json`. A picture's entry may have `split`.

    Raises:
        DataError: not one picture.
    """
    file = path / _FILE if path.is_dir() else path
    root = file.parent
    findings = Findings(root)
    content = findings.json(file)
    content = content if isinstance(content, dict) else {}
    names = [str(n) for n in content.get("joint_names") or []]
    finder = PictureFinder(root, [root / "images", root])
    splits: dict[str, list[RawPicture]] = {}
    for number, entry in enumerate(content.get("images") or []):
        where = findings.place(file, annotation=f"image {number}")
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            findings.error("bad-picture", where, repr(entry)[:60], "file and joints", "Correct it", "left out")
            continue
        if not findings.inside(entry["file"], where):
            continue
        found = finder.find(entry["file"])
        extra = {} if found else {"missing": True}
        if found is None:
            wanted = f"a picture {entry['file']}"
            findings.error("missing-picture", where, "no such file", wanted, "Add it or delete the entry", "left out")
            found = root / "images" / entry["file"]
        person = _person(entry.get("joints"), len(names), where, findings)
        picture = RawPicture(found, relative_name(root, found), where, objects=[person] if person else [], extra=extra)
        splits.setdefault(split_of(str(entry.get("split", ""))) or "all", []).append(picture)
    if not any(splits.values()):
        raise nothing_read(path, "poses", findings)
    return Index(
        root, "poses", ["person"], splits, joint_names=names, joint_pairs=mirror_pairs(names), defects=findings.defects
    )


def _person(joints: Any, count: int, where: Any, findings: Findings) -> RawObject | None:
    try:
        rows = [(float(x), float(y), float(v)) for x, y, v in joints]
    except (TypeError, ValueError):
        rows = []
    if len(rows) != count:
        got, wanted = f"{len(rows)} joints", f"{count} rows x, y, visible"
        findings.error("bad-keypoints", where, got, wanted, "Correct the entry", "person left out")
        return None
    seen = [(x, y) for x, y, v in rows if v > 0 and math.isfinite(x) and math.isfinite(y)]
    if not seen:
        findings.warn("no-joints", where, "no visible joint", "at least one", "Delete the picture", "person left out")
        return None
    xs, ys = zip(*seen, strict=True)
    flat = [n for x, y, v in rows for n in ((x, y, 2.0) if v > 0 else (0.0, 0.0, 0.0))]
    return RawObject("person", where, (min(xs), min(ys), max(xs), max(ys)), keypoints=flat)
