"""Colour, depth and pose of a moving camera: `frame-000000.color.jpg`, `.depth.png`, `.pose.txt`,
`camera-intrinsics.txt`.

The layout of 7-Scenes (Shotton et al., CVPR 2013): depth in millimetres, 0 and 65535 mean unknown; the pose is
camera-to-world, 4x4, metres. `extra` holds `depth_scale` (metres a unit), `depth_invalid`, `intrinsics` (3x3) and
`pose` (4x4).
"""

from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    in_split_order,
    nothing_read,
    pictures_in,
    relative_name,
    split_of,
    subfolders,
)

_INTRINSICS = ("camera-intrinsics.txt", "intrinsics.txt")
_INVALID = (0, 65535)


def recognise(root: Path) -> str | None:
    """Files `*.color.*` with `*.depth.png`."""
    if not root.is_dir():
        return None
    for home in [root, *subfolders(root)]:
        first = next(iter(sorted(home.glob("*.color.*"))), None)
        if first is not None and _beside(first, ".depth.png").is_file():
            return f"{relative_name(root, first)} with depth"
    return None


def read(root: Path) -> Index:
    """Read frames in the order of their names; sub-folders are sequences, and splits where they are named so.

    Raises:
        DataError: not one frame.
    """
    findings = Findings(root)
    splits: dict[str, list[RawPicture]] = {}
    for home in [root, *subfolders(root)]:
        colors = [p for p in pictures_in(home) if p.stem.endswith(".color")]
        if not colors:
            continue
        file = next((f for folder in (home, root) for n in _INTRINSICS if (f := folder / n).is_file()), None)
        intrinsics = read_matrix(file, (3, 3), findings) if file else None
        taken = splits.setdefault(split_of(home.name) or "all" if home != root else "all", [])
        for path in colors:
            extra = {"intrinsics": intrinsics} if intrinsics else {}
            pose = _beside(path, ".pose.txt")
            if pose.is_file() and (matrix := read_matrix(pose, (4, 4), findings)):
                extra["pose"] = matrix
            depth = _beside(path, ".depth.png")
            if depth.is_file():
                extra |= {"depth_scale": 0.001, "depth_invalid": list(_INVALID)}
            else:
                findings.error("missing-map", findings.place(path), "no depth", f"{depth.name}", "Add it", "no depth")
            where = findings.place(path)
            picture = RawPicture(
                path, relative_name(root, path), where, depth=depth if depth.is_file() else None, extra=extra
            )
            taken.append(picture)
    if not any(splits.values()):
        raise nothing_read(root, "RGB-D frames", findings)
    return Index(root, "rgbd", [], in_split_order(splits), defects=findings.defects)


def read_matrix(file: Path, shape: tuple[int, int], findings: Findings) -> list[list[float]] | None:
    """Numbers of a text file as rows; None and a defect if there are not `shape` of them."""
    rows, columns = shape
    try:
        numbers = [float(w) for w in (findings.text(file) or "").split()]
    except ValueError:
        numbers = []
    if len(numbers) != rows * columns:
        wanted = f"{rows}x{columns} numbers"
        findings.error("bad-matrix", findings.place(file), f"{len(numbers)} numbers", wanted, "Correct it", "left out")
        return None
    return [numbers[r * columns : (r + 1) * columns] for r in range(rows)]


def _beside(color: Path, ending: str) -> Path:
    return color.with_name(color.name.split(".color.")[0] + ending)
