"""What all readers share: a log of defects, names of splits, paths that stay inside, and pictures found by name."""

import json
import os
import re
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from bestiary.data.index import Defect, Where
from bestiary.errors import DataError
from bestiary.pictures.decode import is_picture_name
from bestiary.pictures.sources import list_pictures

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""How people call the three splits."""

Content = TypeVar("Content")

_NAME_FILES = (
    "classes.txt",
    "class_names.txt",
    "labels.txt",
    "names.txt",
    "obj.names",
    "_darknet.labels",
    "categories.txt",
)


class Findings:
    """The defects that a reader meets, and the root that no path may leave.

    Paths are judged as they are written (`..`, absolute), not through symbolic links: a link inside the folder was put
    there by its owner.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.defects: list[Defect] = []
        self._names: dict[Path, str] = {}

    def place(self, file: Path, line: int | None = None, annotation: object | None = None) -> Where:
        """A place, with the file named relative to the root."""
        name = self._names.get(file)
        if name is None:
            name = self._names[file] = relative_name(self.root, file)
        return Where(name, line, None if annotation is None else str(annotation))

    def error(self, rule: str, where: Where, got: str, wanted: str, mend: str, mended: str = "") -> None:
        """Note something that makes data wrong or unusable."""
        self.defects.append(Defect(rule, "error", where, got, wanted, mend, mended))

    def warn(self, rule: str, where: Where, got: str, wanted: str, mend: str, mended: str = "") -> None:
        """Note something suspicious."""
        self.defects.append(Defect(rule, "warning", where, got, wanted, mend, mended))

    def text(self, file: Path) -> str | None:
        """The file's text (UTF-8 with or without mark, else Latin-1); None and a defect if it cannot be read."""
        try:
            data = file.read_bytes()
        except OSError as error:
            self.error(
                "unreadable-file", self.place(file), error.strerror or str(error), "a file that can be read", "Check it"
            )
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def json(self, file: Path) -> Any:
        """The file's JSON; None and a defect with line and column if it is broken."""
        text = self.text(file)
        if text is None:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            self.error("bad-json", self.place(file, line), str(error), "valid JSON", "Write or download it again")
            return None

    def inside(self, path: str | Path, where: Where) -> bool:
        """Whether `path` stays under the root, with its backslashes taken for slashes too; a defect if not."""
        written = str(path)
        readings = (written, self._slashed(written)) if "\\" in written else (written,)
        if all(lies_below(self.root, os.path.join(self.root, text)) for text in readings):
            return True
        self.outside(path, where)
        return False

    def outside(self, path: str | Path, where: Where) -> None:
        """Note a path that leads out of the root."""
        self.error(
            "path-outside",
            where,
            repr(str(path)),
            "a path inside the data set's folder",
            "Copy the file into the folder and write the path relative to it",
            "left out",
        )

    def _slashed(self, path: str) -> str:
        """`path` as Windows would read it; backslashes in the root's own name stay what they are."""
        root = str(self.root)
        kept = root if path.startswith(root) else ""
        return kept + path[len(kept) :].replace("\\", "/")


def lies_below(folder: Path, path: str | Path) -> bool:
    """Whether `path`, once its `..` are followed, is `folder` or lies below it. Symbolic links are not followed."""
    full, home = os.path.abspath(path), os.path.abspath(folder)
    return full == home or full.startswith(home.rstrip(os.sep) + os.sep)


def relative_name(root: Path, path: Path) -> str:
    """`path` relative to `root` with forward slashes; as it is where it lies elsewhere."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def split_of(name: str) -> str | None:
    """ "train", "val" or "test" for what such a split is called (`valid`, `train2017`, `Test`), otherwise None."""
    return SPLIT_WORDS.get(re.sub(r"[\d_\-. ]+$", "", name.lower()))


def split_folders(root: Path) -> dict[str, Path]:
    """Sub-folders of `root` that are named as splits, in the order train, val, test."""
    found: dict[str, Path] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        split = split_of(folder.name)
        if split and split not in found:
            found[split] = folder
    return in_split_order(found)


def in_split_order(splits: dict[str, Content]) -> dict[str, Content]:
    """The same, train before val before test before the rest."""
    order = ["train", "val", "test"]
    return dict(sorted(splits.items(), key=lambda kv: (order.index(kv[0]) if kv[0] in order else 9, kv[0])))


def subfolders(folder: Path) -> list[Path]:
    """Visible sub-folders, sorted."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def pictures_in(folder: Path) -> list[Path]:
    """Visible picture files directly in `folder`, sorted."""
    return sorted(p for p in folder.iterdir() if is_picture_name(p) and p.is_file())


def has_files(folder: Path, suffixes: Sequence[str], deep: bool = True) -> bool:
    """Whether `folder` (and below) holds a visible file with one of the suffixes (lower case, with dot)."""
    for _, folders, files in os.walk(folder):
        if any(os.path.splitext(f)[1].lower() in suffixes and not f.startswith(".") for f in files):
            return True
        if not deep:
            return False
        folders[:] = sorted(f for f in folders if not f.startswith("."))
    return False


def names_file(root: Path) -> tuple[Path, list[str]] | None:
    """The file that names the classes, one a line (`classes.txt`, `obj.names` ...), and the names."""
    for name in _NAME_FILES:
        file = root / name
        if file.is_file():
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
            return file, [line for line in lines if line]
    return None


def last_part(name: str) -> str:
    """The file's own name in a path written on any system."""
    return PurePosixPath(PureWindowsPath(name).as_posix()).name


class PictureFinder:
    """Finds a picture that an annotation names: in the given folders first, else by its own name anywhere below the
    root.

    A name that steps out of the root (or, where a reader looks in a folder beside the root, out of that folder) is
    never followed, whatever lies there.
    """

    def __init__(self, root: Path, folders: Sequence[Path]) -> None:
        self.root, self.folders = root, [f for f in dict.fromkeys(folders) if f.is_dir()]
        self._by_name: dict[str, list[Path]] | None = None
        self._listings: dict[Path, frozenset[str]] = {}

    def find(self, name: str) -> Path | None:
        """The file, or None if there is none or if several elsewhere share its name."""
        name = name.replace("\\", "/")
        for folder in self.folders:
            path = Path(os.path.normpath(folder / name)) if ".." in name else folder / name  # read what was judged
            if name in self._listing(folder) if "/" not in name else self._may_read(folder, path) and isfile(path):
                self.folders.remove(folder)
                self.folders.insert(0, folder)  # the next picture most likely lies there too
                return path
        if self._by_name is None:
            self._by_name = {}
            for path in list_pictures(self.root):
                self._by_name.setdefault(path.name, []).append(path)
        found = self._by_name.get(last_part(name), [])
        return found[0] if len(found) == 1 else None

    def leaves(self, name: str) -> bool:
        """Whether `name` leads out of the root from one of the folders that are searched."""
        name = name.replace("\\", "/")
        return not all(self._may_read(folder, folder / name) for folder in self.folders)

    def _may_read(self, folder: Path, path: Path) -> bool:
        return lies_below(self.root, path) or lies_below(folder, path)

    def _listing(self, folder: Path) -> frozenset[str]:
        """Names in a folder, listed once: asking for each of a hundred thousand pictures would take seconds."""
        found = self._listings.get(folder)
        if found is None:
            found = self._listings[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        return found


def nothing_read(root: Path, form: str, findings: Findings) -> DataError:
    """The error for a data set of which not one picture could be read, with the first defects."""
    first = "; ".join(f"{d.where}: {d.got}, wanted {d.wanted}" for d in findings.defects[:3])
    return DataError(f"no picture could be read as {form}" + (f": {first}" if first else ""), where=str(root))
