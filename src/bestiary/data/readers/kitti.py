"""KITTI 3D objects: `image_2`, `label_2`, `calib`, `velodyne` (Geiger, Lenz, Urtasun, CVPR 2012; the object
development kit).

A label's place is the bottom centre in the frame of the rectified reference camera, and `P2 = K [I | t]` projects it.
Boxes here are moved by `t` into the frame of the camera that took the picture, and up by half their height to the
centre; then `K` alone projects them. `pose` leads back to the reference camera. `DontCare` regions are no objects:
`extra["ignore_boxes"]`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    in_split_order,
    nothing_read,
    pictures_in,
    relative_name,
    split_of,
    subfolders,
)
from bestiary.errors import DataError

_ORDER = ["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc"]


def recognise(root: Path) -> str | None:
    """A folder with `image_2` and `calib`, here or up to two folders below."""
    homes = _homes(root) if root.is_dir() else []
    return f"{', '.join(relative_name(root, h / 'image_2') for h in homes)} with calib" if homes else None


def read(root: Path) -> Index:
    """Read KITTI's object set.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    splits: dict[str, list[RawPicture]] = {}
    for home in _homes(root):
        taken = splits.setdefault(split_of(home.name) or "all", [])
        for path in pictures_in(home / "image_2"):
            taken.append(_picture(home, path, findings))
    if not any(splits.values()):
        raise nothing_read(root, "KITTI", findings)
    used = {o.category for pictures in splits.values() for p in pictures for o in p.objects or [] if o.category}
    categories = [c for c in _ORDER if c in used] + sorted(used - set(_ORDER))
    return Index(root, "kitti", categories, in_split_order(splits), defects=findings.defects)


def read_points(picture: RawPicture) -> Float32[Tensor, "P 4"]:
    """The lidar's points: x, y, z in metres in the lidar's frame (forward, left, up) and reflectance.

    Raises:
        DataError: the picture has no scan, or its file is not a whole number of points.
    """
    name = picture.extra.get("velodyne")
    if name is None:
        raise DataError("has no lidar scan", where=str(picture.path), mend="Add velodyne/*.bin")
    path = picture.path.parent / str(name)
    values = np.fromfile(path, "<f4")
    if len(values) % 4:
        raise DataError(f"got {len(values)} numbers, wanted four a point", where=str(path), mend="Copy it again")
    return torch.from_numpy(values.reshape(-1, 4))


def _homes(root: Path) -> list[Path]:
    level = [root]
    for _ in range(3):
        found = [f for f in level if (f / "image_2").is_dir() and (f / "calib").is_dir()]
        if found:
            return found
        level = [s for f in level for s in subfolders(f)][:100]
    return []


def _picture(home: Path, path: Path, findings: Findings) -> RawPicture:
    label, calib = home / "label_2" / f"{path.stem}.txt", home / "calib" / f"{path.stem}.txt"
    extra: dict[str, Any] = {}
    offset = np.zeros(3)
    matrices = _calibration(calib, findings) if calib.is_file() else {}
    if "P2" in matrices:
        projection = np.array(matrices["P2"]).reshape(3, 4)
        offset = np.linalg.solve(projection[:, :3], projection[:, 3])
        pose = np.eye(4)
        pose[:3, 3] = -offset
        extra |= {"intrinsics": projection[:, :3].tolist(), "pose": pose.tolist(), "calibration": matrices}
    else:
        findings.error("missing-calibration", findings.place(path), "no P2", f"{calib.name}", "Add it", "no camera")
    if (home / "velodyne" / f"{path.stem}.bin").is_file():
        extra["velodyne"] = f"../velodyne/{path.stem}.bin"
    objects = None
    if label.is_file():
        objects, ignored = _objects(label, offset, findings)
        extra["ignore_boxes"] = ignored
    return RawPicture(path, relative_name(findings.root, path), findings.place(label), objects=objects, extra=extra)


def _calibration(file: Path, findings: Findings) -> dict[str, list[float]]:
    found = {}
    for number, line in enumerate((findings.text(file) or "").splitlines(), 1):
        name, colon, numbers = line.partition(":")
        if not colon:
            continue
        try:
            values = [float(w) for w in numbers.split()]
        except ValueError:
            values = []
        if len(values) not in (9, 12):
            got, wanted = f"{len(values)} numbers", "9 or 12"
            findings.error("bad-matrix", findings.place(file, number), got, wanted, "Correct it", "left out")
            continue
        found[name.strip()] = values
    return found


def _objects(
    file: Path, offset: Shaped[np.ndarray, "..."], findings: Findings
) -> tuple[list[RawObject], list[list[float]]]:
    objects, ignored = [], []
    for number, line in enumerate((findings.text(file) or "").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = findings.place(file, number)
        try:
            values = [float(w) for w in words[1:]]
        except ValueError:
            values = []
        if len(values) not in (14, 15):
            wanted = "a type and 14 numbers"
            findings.error("bad-line", where, repr(line[:60]), wanted, "Correct or delete the line", "left out")
            continue
        box = (values[3], values[4], values[5], values[6])
        if words[0] == "DontCare":
            ignored.append(list(box))
            continue
        height, width, length = values[7:10]
        x, y, z = (np.array(values[10:13]) + offset).tolist()
        extra = {
            "box_3d": [x, y - height / 2, z, length, height, width, values[13]],
            "truncation": values[0],
            "occlusion": int(values[1]),
            "alpha": values[2],
        }
        objects.append(RawObject(words[0], where, box, truncated=values[0] > 0, extra=extra))
    return objects, ignored
