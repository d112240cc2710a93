"""Person re-identification: `bbox_train`, `bbox_test`, file names that say person, camera, tracklet and frame.

MARS (Zheng et al., ECCV 2016): `0001C1T0002F003.jpg`; Market-1501 (Zheng et al., ICCV 2015):
`0002_c1s1_000451_03.jpg`. The label is the person; `extra` holds `camera`, `tracklet` and `frame`. Training and
testing people differ: categories are all of them. Market's junk (-1) is left out; its distractors (0000) are a person
of their own, as its evaluation has it.
"""

import re
from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings, nothing_read, relative_name
from bestiary.pictures.sources import list_pictures

_MARS = re.compile(r"^(\d{4})C(\d+)T(\d+)F(\d+)")
_MARKET = re.compile(r"^(-1|\d{4})_c(\d+)s(\d+)_(\d+)")
_SPLITS = {
    "bbox_train": "train",
    "bounding_box_train": "train",
    "bbox_test": "test",
    "bounding_box_test": "test",
    "query": "query",
}


def recognise(root: Path) -> str | None:
    """Folders named as MARS or Market-1501 name them."""
    there = [n for n in _SPLITS if (root / n).is_dir()]
    return f"folders {', '.join(there)}" if there and there != ["query"] else None


def read(root: Path) -> Index:
    """Read MARS or Market-1501.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    splits: dict[str, list[RawPicture]] = {}
    for folder, split in _SPLITS.items():
        for path in list_pictures(root / folder) if (root / folder).is_dir() else []:
            match = _MARS.match(path.name) or _MARKET.match(path.name)
            where = findings.place(path)
            if match is None:
                wanted = "0001C1T0002F003.jpg or 0002_c1s1_000451_03.jpg"
                findings.error("bad-name", where, path.name, wanted, "Rename it", "left out")
                continue
            person, camera, tracklet, frame = match.groups()
            if person == "-1":
                continue
            extra = {"camera": int(camera), "tracklet": int(tracklet), "frame": int(frame)}
            splits.setdefault(split, []).append(
                RawPicture(path, relative_name(root, path), where, label=person, extra=extra)
            )
    if not any(splits.values()):
        raise nothing_read(root, "re-identification", findings)
    people = sorted({p.label for pictures in splits.values() for p in pictures if p.label})
    return Index(root, "reid", people, splits, defects=findings.defects)
