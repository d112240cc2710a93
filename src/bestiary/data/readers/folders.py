"""Classification: one folder a class (`root/class/*.jpg` or `root/train/class/*.jpg`); also plain pictures without
truth.

Categories are the folders' names in alphabetical order, the union of all splits.
"""

from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    has_files,
    nothing_read,
    pictures_in,
    relative_name,
    split_folders,
    subfolders,
)
from bestiary.pictures.decode import SUFFIXES
from bestiary.pictures.sources import list_pictures


def recognise(root: Path) -> str | None:
    """Sub-folders (of the root or of its splits) hold the pictures, and nothing else says what they are."""
    if not root.is_dir():
        return None
    splits = split_folders(root)
    homes = list(splits.values()) or [root]
    classes = [c for home in homes for c in subfolders(home) if has_files(c, tuple(SUFFIXES))]
    if not classes or (not splits and pictures_in(root)):
        return None
    return f"{len({c.name for c in classes})} folders of pictures" + (f" in {', '.join(splits)}" if splits else "")


def recognise_plain(root: Path) -> str | None:
    """Pictures directly in the folder or in its splits."""
    if not root.is_dir():
        return None
    homes = list(split_folders(root).values()) or [root]
    count = sum(len(pictures_in(home)) for home in homes)
    return f"{count} pictures without annotations" if count else None


def read(root: Path) -> Index:
    """Read class folders.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    splits = split_folders(root) or {"all": root}
    names = sorted({c.name for home in splits.values() for c in subfolders(home)})
    read_splits: dict[str, list[RawPicture]] = {}
    for split, home in splits.items():
        pictures = read_splits.setdefault(split, [])
        for folder in subfolders(home):
            files = list_pictures(folder)
            if not files:
                wanted = "pictures of the class"
                findings.warn(
                    "empty-category", findings.place(folder), "no picture", wanted, "Fill or delete the folder"
                )
            for path in files:
                pictures.append(RawPicture(path, relative_name(root, path), findings.place(path), label=folder.name))
        for stray in pictures_in(home):
            mend = "Move it into a class folder"
            findings.warn(
                "stray-picture", findings.place(stray), "a picture in no class folder", "a class", mend, "left out"
            )
    if not any(read_splits.values()):
        raise nothing_read(root, "class folders", findings)
    return Index(root, "folders", names, read_splits, defects=findings.defects)


def read_plain(root: Path) -> Index:
    """Read pictures that carry no truth (for prediction, descriptors, self-made targets)."""
    findings = Findings(root)
    splits = {
        split: [RawPicture(p, relative_name(root, p), findings.place(p)) for p in list_pictures(home)]
        for split, home in (split_folders(root) or {"all": root}).items()
    }
    if not any(splits.values()):
        raise nothing_read(root, "pictures", findings)
    return Index(root, "pictures", [], splits, defects=findings.defects)
