"""Stereo pairs: scenes with `im2`, `im6` and `disp2`, `disp6` (Middlebury 2003, Scharstein and Szeliski, CVPR 2003).

Each view is a picture. `extra["disparity"]` names the map (beside the picture), `extra["disparity_scale"]` is pixels a
stored unit (quarter-size pictures: 1/4; 0 means unknown), `extra["other"]` names the other view and `extra["view"]` is
"left" or "right".
"""

from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings, nothing_read, relative_name, subfolders
from bestiary.pictures.decode import read_depth

_LEFT, _RIGHT = "im2", "im6"
_SCALE = 0.25
_SUFFIXES = (".png", ".ppm", ".pgm", ".jpg")


def recognise(root: Path) -> str | None:
    """A folder with `im2`, `im6` and a disparity."""
    scenes = _scenes(root) if root.is_dir() else []
    return f"{len(scenes)} scenes with im2, im6 and disparities" if scenes else None


def read(root: Path) -> Index:
    """Read Middlebury scenes; of `.png` and `.ppm` twins the first is taken.

    Raises:
        DataError: not one scene.
    """
    findings = Findings(root)
    pictures = []
    for scene in _scenes(root):
        for view, stem, other in (("left", _LEFT, _RIGHT), ("right", _RIGHT, _LEFT)):
            path, twin = _file(scene, stem), _file(scene, other)
            disparity = _file(scene, "disp" + stem[2:])
            if path is None or twin is None:
                continue
            extra: dict[str, object] = {"view": view, "other": twin.name}
            if disparity is not None:
                extra |= {"disparity": disparity.name, "disparity_scale": _SCALE}
            pictures.append(RawPicture(path, relative_name(root, path), findings.place(path), extra=extra))
    if not pictures:
        raise nothing_read(root, "stereo pairs", findings)
    return Index(root, "stereo", [], {"all": pictures}, defects=findings.defects)


def read_disparity(picture: RawPicture) -> Float32[Tensor, "H W"]:
    """Disparity of a view in pixels, NaN where unknown. Raises `PictureError` if the map cannot be decoded."""
    stored = read_depth(picture.path.parent / str(picture.extra["disparity"]), float(picture.extra["disparity_scale"]))
    return torch.where(stored == 0, torch.nan, stored)


def _scenes(root: Path) -> list[Path]:
    wanted = (_LEFT, _RIGHT)
    return [
        s
        for s in [root, *subfolders(root)]
        if all(_file(s, stem) for stem in wanted) and (_file(s, "disp2") or _file(s, "disp6"))
    ]


def _file(folder: Path, stem: str) -> Path | None:
    return next((f for s in _SUFFIXES if (f := folder / (stem + s)).is_file()), None)
