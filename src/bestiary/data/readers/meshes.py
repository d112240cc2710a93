"""Triangle meshes in OFF files, as ModelNet has them (Wu et al., CVPR 2015): they hold no pictures, so they have no
index."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from bestiary.data.readers.findings import split_of
from bestiary.errors import DataError


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices in the file's units, faces as indices into them.

    Attributes:
        vertices: x, y, z.
        faces: three corners each; larger polygons are cut into fans.
    """

    vertices: Float32[Tensor, "V 3"]
    faces: Int64[Tensor, "F 3"]


@dataclass(frozen=True)
class MeshFile:
    """A mesh file of a data set: `root/class/train/name.off` or `root/train/class/name.off`."""

    path: Path
    name: str
    label: str
    split: str


def read_off(path: Path | str) -> Mesh:
    """Read an OFF file. ModelNet's habit of writing the counts on the first line (`OFF490 518 0`) is understood.

    Raises:
        DataError: not an OFF file, too few numbers, or a face that names a vertex that is not there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    lines = [line.split("#")[0] for line in text.splitlines()]
    words = " ".join(lines).split()
    if not words or not words[0].startswith("OFF"):
        raise DataError(f"got a file that starts with {text[:12]!r}, wanted OFF", where=str(path))
    words[0] = words[0][3:]
    words = words if words[0] else words[1:]
    try:
        numbers = np.array(words, dtype=np.float64)
        vertex_count, face_count = int(numbers[0]), int(numbers[1])
        end = 3 + 3 * vertex_count
        vertices = numbers[3:end].reshape(vertex_count, 3)
        faces = _faces(numbers[end:], face_count)
    except (ValueError, IndexError) as error:
        raise DataError(f"is cut off or not a mesh ({error})", where=str(path), mend="Copy it again") from error
    if len(faces) and not (faces.min() >= 0 and faces.max() < vertex_count):
        got = f"a face of vertex {int(faces.max())}"
        raise DataError(f"got {got}, wanted below {vertex_count}", where=str(path), mend="Export it again")
    return Mesh(torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces))


def read_meshes(root: Path | str) -> list[MeshFile]:
    """OFF files below `root`, sorted, with class and split from their folders. Raises `DataError` if there is none."""
    root = Path(root)
    found = []
    for path in sorted(root.rglob("*.off")):
        folders = path.relative_to(root).parts[:-1]
        split = next((s for f in reversed(folders) if (s := split_of(f))), "all")
        label = next((f for f in reversed(folders) if split_of(f) is None), "")
        found.append(MeshFile(path, path.relative_to(root).as_posix(), label, split))
    if not found:
        raise DataError("holds no OFF file", where=str(root), mend="Name a folder of *.off")
    return found


def _faces(numbers: Float64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, "F 3"]:
    whole = numbers.astype(np.int64)
    if len(whole) >= 4 * count and (whole[: 4 * count : 4] == 3).all():  # triangles only: nearly every mesh
        return np.ascontiguousarray(whole[: 4 * count].reshape(count, 4)[:, 1:])
    triangles, at = [], 0
    for _ in range(count):
        corners = int(whole[at])
        ring = whole[at + 1 : at + 1 + corners]
        if len(ring) < corners:
            raise ValueError(f"a face of {corners} corners has {len(ring)}")
        triangles += [(ring[0], ring[i], ring[i + 1]) for i in range(1, corners - 1)]
        at += 1 + corners
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)
