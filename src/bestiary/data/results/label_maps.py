"""Predicted label maps: one lossless picture (or .npy) each, named as the picture it is of.

Values mean what they mean in the truth's own maps: stored values, palette indices, or colours where the truth is
colour-coded. Files called `PICTURE.labels.png`, as `bestiary predict` writes them, hold 0-based classes. With two
classes, a grey map with other values is the probability of the second class, value / 255; a floating-point .npy is a
probability map too, `[H, W]` of the second class or `[K, H, W]` of all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bestiary.data.results.gathering import Gathering, Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError, PictureError
from bestiary.pictures.decode import is_picture_name, read_label_map
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".npy")
_OURS = ".labels"
_COLOURED = ".colours"
"""The same ids with a palette, which `bestiary predict --colours` writes beside them."""

_TAILS = (_OURS, "_labels", "_label", "_mask", "_pred", "_prediction", "_seg", "_labelIds", "_labelTrainIds", "_probs")


def recognise(path: Path) -> bool:
    """A folder with lossless maps in it."""
    return path.is_dir() and bool(_files(path))


def are_ours(path: Path) -> bool:
    """A folder that `bestiary predict` wrote label maps to."""
    return path.is_dir() and next(path.rglob(f"*{_OURS}.png"), None) is not None


def _files(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in _LOSSLESS and is_picture_name(p)]
    ours = {p for p in found if p.name.endswith(f"{_COLOURED}.png")}
    return [p for p in found if p not in ours or not p.with_name(_plain_name(p)).exists()]


def _plain_name(coloured: Path) -> str:
    return coloured.name.removesuffix(f"{_COLOURED}.png") + f"{_OURS}.png"


def read(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Find the map of every picture; maps are decoded when they are asked for.

    Raises:
        DataError: maps of unknown pictures, or two of one.
    """
    gathering = Gathering(truth, skip_unknown)
    files: dict[int, Path] = {}
    for file in _files(path):
        stem = file.relative_to(path).with_suffix("").as_posix()
        names = [stem, *(stem.removesuffix(tail) for tail in _TAILS if stem.endswith(tail))]
        known = (gathering.names.by_name(name, str(file)) for name in names)
        picture = next((i for i in known if i is not None), None)
        if picture is None:
            gathering.picture(names[-1], str(file))
            continue
        if picture in files:
            got = f"got a second map for {truth.pictures[picture].name}, the first being {files[picture]}"
            raise DataError(got, where=str(file), mend="Keep one")
        files[picture] = file
    notes = gathering.notes()

    def predict(i: int) -> Segmentation:
        return _segmentation(files[i], truth, i)

    return Results("label-maps", "segmentation", frozenset(files), predict, notes=notes)


def _segmentation(file: Path, truth: Truth, i: int) -> Segmentation:
    name, extra = truth.pictures[i].name, truth.pictures[i].extra
    if file.suffix.lower() == ".npy":
        array = _array(file)
        if array.dtype.kind == "f":
            return _from_probs(array, truth, name, file)
    values = read_label_map(file, extra.get("label_colors")).numpy()
    if "label_colors" in extra or file.stem.endswith(_OURS):
        labels = values
    else:
        table = np.full(256, IGNORE_LABEL, np.int64)
        coded: dict[int, int] = extra.get("label_values") or {k: k for k in range(len(truth.categories))}
        for value, label in coded.items():
            table[value] = label
        strange = np.setdiff1d(values, [*coded, IGNORE_LABEL])
        if len(strange) and len(truth.categories) == 2:
            return _from_probs(values.astype(np.float32) / 255, truth, name, file)
        if len(strange):
            known = ", ".join(map(str, sorted(coded)))[:120]
            mend = "Write the values of the truth's maps, or 0-based classes into files called NAME.labels.png"
            raise DataError(f"got the value {int(strange[0])}, wanted {known}", where=str(file), mend=mend)
        labels = table[values]
    return _checked(torch.from_numpy(np.ascontiguousarray(labels, np.uint8)), truth, name)


def _array(file: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise PictureError(f"is not a plain .npy array ({error})", where=str(file)) from error


def _from_probs(array: Any, truth: Truth, name: str, file: Path) -> Segmentation:
    count = len(truth.categories)
    if array.ndim == 2 and count == 2:
        array = np.stack([1 - array, array])
    if array.ndim != 3 or len(array) != count:
        wanted = f"({count}, height, width)" + (" or (height, width)" if count == 2 else "")
        raise DataError(f"got probabilities of shape {array.shape}, wanted {wanted}", where=str(file))
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise DataError("got numbers that are no probabilities, wanted 0..1", where=str(file))
    probs = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return _checked(probs.argmax(0).to(torch.uint8), truth, name, probs)


def _checked(label_map: torch.Tensor, truth: Truth, name: str, probs: torch.Tensor | None = None) -> Segmentation:
    high, wide = label_map.shape
    return Segmentation(label_map, (high, wide), probs, truth.categories, name)
