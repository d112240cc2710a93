"""What all writers share: pictures put in place under names that do not clash, and a count of what was lost."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.errors import DataError, PictureError, UsageError
from bestiary.pictures.decode import read_size


@dataclass
class Written:
    """What a writer put down.

    Attributes:
        splits: split -> pictures written.
        objects: annotations written.
        lost: what the format cannot hold, in words -> how often.
    """

    splits: dict[str, int] = field(default_factory=dict)
    objects: int = 0
    lost: Counter[str] = field(default_factory=Counter)


def make_new(folder: Path) -> None:
    """Make `folder`. Raises `UsageError` unless it is new or empty: nothing is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("is there already", where=str(folder), mend="Name a new or empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be made ({error.strerror})", where=str(folder), mend="Name another folder") from error


def writable(index: Index, written: Written) -> dict[str, list[RawPicture]]:
    """Split -> pictures that have annotations and a file; the others are counted as lost.

    Raises:
        DataError: the data set has no objects at all (classification, label maps).
    """
    if not any(p.objects is not None for pictures in index.splits.values() for p in pictures):
        raise DataError(
            f"{index.format} data has no objects, which COCO, VOC and YOLO are made of",
            where=str(index.root),
            mend="Only data with boxes, masks or joints can be converted",
        )
    kept: dict[str, list[RawPicture]] = {}
    for split, pictures in index.splits.items():
        kept[split] = []
        for picture in pictures:
            if picture.extra.get("missing") or not picture.path.is_file():
                written.lost["pictures whose file is missing or broken"] += 1
            elif picture.objects is None:
                written.lost["pictures that nobody annotated"] += 1
            else:
                kept[split].append(picture)
        written.splits[split] = len(kept[split])
    for picture in (p for pictures in kept.values() for p in pictures):
        for truth, what in (
            (picture.label_map, "label maps"),
            (picture.depth, "depth maps"),
            (picture.label, "class of the picture"),
        ):
            if truth is not None:
                written.lost[what] += 1
    return kept


def real_size(picture: RawPicture) -> tuple[int, int]:
    """(height, width) of the file, upright.

    Raises:
        PictureError: it is no picture.
    """
    try:
        return read_size(picture.path)
    except PictureError as error:
        mend = "Write a mended copy first: bestiary check PATH --fix NEW_FOLDER"
        raise PictureError(error.message, where=str(picture.path), mend=mend) from error


def usable(found: RawObject, categories: Iterable[str], written: Written) -> bool:
    """Whether an object has a known category; counted as lost if not."""
    if found.category is not None and found.category in categories:
        return True
    written.lost["objects of unknown category"] += 1
    return False


def place(source: Path, target: Path, copy: bool) -> None:
    """Copy a file, or make a link to it where the system can (a copy where not)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    if not copy:
        try:
            os.symlink(source.resolve(), target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)


class Names:
    """Names of pictures in one folder: their own where nothing clashes, else with the folders they came from.

    Args:
        by_stem: names may not differ in their suffix alone (their annotation file is named by the stem).
        spaces: keep white space in names.
    """

    def __init__(self, by_stem: bool, spaces: bool = True) -> None:
        self.by_stem, self.spaces = by_stem, spaces
        self._taken: dict[str, Path] = {}
        self.renamed = 0

    def of(self, picture: RawPicture, wanted: str | None = None) -> str:
        """The name of a picture: `wanted` if it is free, else the file's own, else one made from its whole path."""
        own = PurePosixPath(picture.name)
        stem, suffix = own.stem, own.suffix
        spread = "_".join(p for p in own.with_suffix("").parts if p not in ("/", ".", ".."))
        candidates = [wanted] if wanted else []
        candidates += [own.name, f"{stem}_{suffix[1:]}{suffix}", f"{spread}{suffix}"]
        candidates += [f"{spread}_{i}{suffix}" for i in range(2, 1000)]
        for name in candidates:
            name = name if self.spaces else "_".join(name.split())
            key = str(PurePosixPath(name).with_suffix("")) if self.by_stem else name
            if self._taken.setdefault(key.casefold(), picture.path) == picture.path:
                self.renamed += name != (wanted or own.name)
                return name
        raise DataError("a thousand pictures share this name", where=picture.name, mend="Rename them")


def flag(found: RawObject, name: str) -> bool:
    """`difficult` or `truncated`, also where a COCO file carried it as an extra field."""
    return bool(getattr(found, name)) or found.extra.get(name) in (1, True, "1")


def without_flags(extra: dict[str, Any]) -> dict[str, Any]:
    """Extra fields other than those in which `flag` finds a mark."""
    return {k: v for k, v in extra.items() if k not in ("difficult", "truncated") or v not in (1, True, "1")}
