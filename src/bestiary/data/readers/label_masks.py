"""Semantic segmentation: pictures in one folder, a map of class ids of the same name in another.

`images/train` + `labels/train`, `train/images` + `train/masks`, or flat `images` + `labels`; VOC's `JPEGImages` +
`SegmentationClass`. `classes.txt` names the ids from 0; a class called void, ignore, ignored or unlabeled is the id
that is not judged. `colors.txt` (name r g b) makes colour-coded maps readable. Without names, the values are counted
over all maps: values 0..K-1 become classes 0..K-1 and 255 is unknown; two values such as 0 and 255 become background 0
and foreground 1. The table stands in every picture's `extra["label_values"]` (stored value -> class).
"""

from pathlib import Path

import numpy as np

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    in_split_order,
    names_file,
    nothing_read,
    relative_name,
    split_folders,
)
from bestiary.errors import PictureError
from bestiary.pictures.decode import is_picture_name, read_label_map
from bestiary.pictures.sources import list_pictures
from bestiary.records import IGNORE_LABEL

IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img", "image", "photos")
MAP_FOLDERS = (
    "labels",
    "masks",
    "label_maps",
    "SegmentationClass",
    "annotations",
    "mask",
    "label",
    "gt",
    "segmentation",
)
VOID_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown"})
_MAP_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".npy")
_TAILS = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_L", "_labelTrainIds", "_labelIds")


def recognise(root: Path) -> str | None:
    """A folder of pictures beside a folder of lossless maps with the same names."""
    if not root.is_dir():
        return None
    pairs = folder_pairs(root)
    return f"{relative_name(root, pairs[0][1])} beside maps in {relative_name(root, pairs[0][2])}" if pairs else None


def read(root: Path) -> Index:
    """Read pictures with class maps.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    splits: dict[str, list[RawPicture]] = {}
    for split, pictures, maps in folder_pairs(root):
        taken = splits.setdefault(split, [])
        found = maps_by_stem(maps)
        for path in list_pictures(pictures):
            label_map = map_of(path.relative_to(pictures).with_suffix("").as_posix(), found)
            where = findings.place(path)
            if label_map is None:
                wanted = f"a map {path.stem}.png in {relative_name(root, maps)}"
                findings.error("missing-map", where, "a picture without a map", wanted, "Add it", "left out")
            taken.append(RawPicture(path, relative_name(root, path), where, label_map=label_map))
    if not any(p.label_map for pictures in splits.values() for p in pictures):
        raise nothing_read(root, "label maps", findings)
    index = Index(root, "label-masks", [], in_split_order(splits), defects=findings.defects)
    _name_classes(index, findings)
    return index


def folder_pairs(root: Path, map_folders: tuple[str, ...] = MAP_FOLDERS) -> list[tuple[str, Path, Path]]:
    """(split, folder of pictures, folder of maps) where both exist and maps are lossless pictures."""
    pairs: list[tuple[str, Path, Path]] = []
    for split, home in [("all", root), *split_folders(root).items()]:
        pictures = next((home / n for n in IMAGE_FOLDERS if (home / n).is_dir()), None)
        maps = next((home / n for n in map_folders if (home / n).is_dir() and maps_by_stem(home / n)), None)
        if pictures is None or maps is None:
            continue
        inner = split_folders(pictures) if split == "all" else {}
        below = [(s, f, maps / f.name) for s, f in inner.items() if (maps / f.name).is_dir()]
        pairs += below or [(split, pictures, maps)]
    return [pair for pair in pairs if list_pictures(pair[1])]


def maps_by_stem(folder: Path) -> dict[str, Path]:
    """Lossless pictures of `folder` by their path without suffix."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _MAP_SUFFIXES and is_picture_name(path):
            found[path.relative_to(folder).with_suffix("").as_posix()] = path
    return found


def map_of(stem: str, maps: dict[str, Path]) -> Path | None:
    """The map of a picture: its own name, or with `_mask`, `_label`, `_gt` ... behind it."""
    return next((maps[stem + tail] for tail in _TAILS if stem + tail in maps), None)


def _name_classes(index: Index, findings: Findings) -> None:
    pictures = [p for split in index.splits.values() for p in split if p.label_map]
    colors = _colors(index.root, findings)
    if colors:
        table = {rgb: IGNORE_LABEL if name.lower() in VOID_NAMES else i for i, (name, rgb) in enumerate(colors)}
        kept = [name for name, _ in colors if name.lower() not in VOID_NAMES]
        table.update({rgb: kept.index(name) for name, rgb in colors if name in kept})
        index.categories, index.ignore_label = kept, IGNORE_LABEL
        for picture in pictures:
            picture.extra["label_colors"] = table
        return
    named = names_file(index.root)
    if named:
        names = named[1]
        values = {}
        for value, name in enumerate(names):
            if name.lower() in VOID_NAMES:
                index.ignore_label = value
            else:
                values[value] = len(index.categories)
                index.categories.append(name)
        index.ignore_label = IGNORE_LABEL if index.ignore_label is None else index.ignore_label
    else:
        values = _counted_values(index, pictures, findings)
    for picture in pictures:
        picture.extra["label_values"] = values


def _counted_values(index: Index, pictures: list[RawPicture], findings: Findings) -> dict[int, int]:
    present = np.zeros(256, bool)
    for picture in pictures:
        try:
            present[np.unique(read_label_map(picture.label_map or picture.path).numpy())] = True
        except PictureError as error:
            mend = error.mend or "Replace it"
            findings.error("broken-map", findings.place(picture.label_map or picture.path), error.message, "ids", mend)
    found = [int(v) for v in np.flatnonzero(present)]
    if len(found) == 2 and found[1] not in (1, IGNORE_LABEL - 1) and found[0] == 0:
        index.categories = ["background", "foreground"]
        return {0: 0, found[1]: 1}
    index.ignore_label = IGNORE_LABEL
    top = max((v for v in found if v != IGNORE_LABEL), default=-1)
    index.categories = ["background", "foreground"] if top == 1 else [f"class_{i}" for i in range(top + 1)]
    wanted, mend = "classes.txt", "Write classes.txt, one name a line, in the order of the ids"
    findings.warn("unnamed-categories", findings.place(index.root), f"{top + 1} ids without names", wanted, mend)
    return {v: v for v in range(top + 1)}


def _colors(root: Path, findings: Findings) -> list[tuple[str, tuple[int, int, int]]]:
    file = next(
        (f for n in ("colors.txt", "colours.txt", "label_colors.txt", "labelmap.txt") if (f := root / n).is_file()),
        None,
    )
    found: list[tuple[str, tuple[int, int, int]]] = []
    for number, line in enumerate((findings.text(file) or "").splitlines() if file else [], 1):
        words = line.replace(",", " ").replace(":", " ").split()
        if not words or line.startswith("#"):
            continue
        digits = [i for i, w in enumerate(words) if w.isdigit() and int(w) <= 255]
        name = " ".join(w for w in words if not w.isdigit())
        if len(digits) != 3 or not name:
            wanted = "a name and three numbers 0 to 255"
            findings.error(
                "bad-line", findings.place(file or root, number), repr(line[:80]), wanted, "Correct it", "left out"
            )
            continue
        r, g, b = (int(words[i]) for i in digits)
        found.append((name, (r, g, b)))
    return found
