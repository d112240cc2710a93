"""Write a data set in another format, and say what that format cannot hold."""

from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from bestiary.data.index import Index
from bestiary.data.opening import open_and_say
from bestiary.data.writers.placing import make_new
from bestiary.errors import UsageError

WRITERS = ("coco", "voc", "yolo")
"""Formats that can be written."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        source: the data set that was read.
        why: its format and what it was recognised by.
        out: the new folder.
        to: the new format.
        splits: split -> pictures.
        objects: annotations.
        categories: names in label order.
        lost: what the new format cannot hold, in words -> how often.
        defects: errors that reading met: `check` shows them.
    """

    source: str
    why: str
    out: str
    to: str
    splits: dict[str, int]
    objects: int
    categories: list[str]
    lost: dict[str, int] = field(default_factory=dict)
    defects: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def text(self) -> str:
        """For a terminal."""
        pictures = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        lines = [
            f"{self.source}: {self.why}",
            f"written as {self.to} to {self.out}: pictures {pictures}; {self.objects:,} objects; "
            f"categories: {', '.join(self.categories[:12])}{' ...' if len(self.categories) > 12 else ''}",
        ]
        if self.lost:
            width = max(len(f"{count:,}") for count in self.lost.values())
            lines.append(f"What {self.to} could not hold:")
            lines += [f"  {count:>{width},}  {what}" for what, count in self.lost.items()]
        else:
            lines.append("Nothing was lost.")
        if self.defects:
            lines.append(f"{self.defects:,} errors were met while reading: bestiary check {self.source}")
        return "\n".join(lines)


def convert(
    path: str | Path,
    to: str,
    out: str | Path,
    format: str | None = None,
    copy: bool = True,
) -> Converted:
    """Write the data set at `path` in another format. The original is not touched.

    Args:
        path: a folder or an annotation file.
        to: "coco", "voc" or "yolo".
        out: a new or empty folder.
        format: the present format; found out if not given.
        copy: copy the pictures; otherwise make links to them.

    Raises:
        UsageError: an unknown format, or `out` holds something already.
        DataError: it cannot be read, or has no objects.
        PictureError: a file that is no picture.
    """
    write = writer_of(to)
    opened = open_and_say(path, format)
    return convert_index(opened.index, opened.why, to, Path(out).expanduser(), copy, write)


def convert_index(index: Index, why: str, to: str, out: Path, copy: bool = True, write: Any = None) -> Converted:
    """As `convert`, for what a reader has read."""
    write = writer_of(to) if write is None else write
    make_new(out)
    written = write(index, out, copy)
    lost = {what: count for what, count in written.lost.items() if count}
    errors = sum(d.severity == "error" for d in index.defects)
    categories = list(index.categories)
    return Converted(str(index.root), why, str(out), to, written.splits, written.objects, categories, lost, errors)


def writer_of(to: str) -> Any:
    """The function `(index, folder, copy) -> Written` of a format. Raises `UsageError` if there is none."""
    if to not in WRITERS:
        near = get_close_matches(to.lower(), WRITERS, 1)
        mend = f"Did you mean {near[0]}?" if near else ""
        raise UsageError(f"got {to!r}, wanted one of {', '.join(WRITERS)}", where="to", mend=mend)
    return import_module(f"bestiary.data.writers.{to}").write
