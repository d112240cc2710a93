"""Open a data set whatever its format: which reader, and why.

`FORMATS` is tried from the most particular to the most general; the first that recognises the folder takes it, and
`Opened.why` says so, with what else would have fitted. The order resolves every ambiguity: a YOLO folder with a COCO
file in it is COCO only if there is no data.yaml; pictures beside maps are instances only if texts or the folder's name
say so.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bestiary.data.index import Index
from bestiary.errors import DataError, UsageError

FORMATS = {
    "coco-panoptic": ("panoptic", "recognise", "read"),
    "poses": ("poses", "recognise", "read"),
    "kitti": ("kitti", "recognise", "read"),
    "rgbd": ("rgbd", "recognise", "read"),
    "stereo": ("stereo", "recognise", "read"),
    "views": ("views", "recognise", "read"),
    "reid": ("reid", "recognise", "read"),
    "yolo": ("yolo", "recognise", "read"),
    "coco": ("coco", "recognise", "read"),
    "voc": ("voc", "recognise", "read"),
    "csv": ("csv_boxes", "recognise", "read"),
    "instance-masks": ("instance_masks", "recognise", "read"),
    "label-masks": ("label_masks", "recognise", "read"),
    "pairs": ("pairs", "recognise", "read"),
    "folders": ("folders", "recognise", "read"),
    "pictures": ("folders", "recognise_plain", "read_plain"),
}
"""Format -> (reader's module, function that recognises, function that reads), in the order they are tried."""


_GENERAL = ("pairs", "folders", "pictures")
"""Formats that nearly any folder of pictures fits: asked only where nothing else does."""


@dataclass(frozen=True)
class Opened:
    """An index and why it was read as it was.

    Attributes:
        index: what was read.
        why: one sentence: the format, what it was recognised by, what else would have fitted.
    """

    index: Index
    why: str


def open_index(path: str | Path, format: str | None = None) -> Index:
    """Read the data set at `path` (a folder, or a COCO JSON, YOLO yaml or CSV file).

    Args:
        path: where it is.
        format: one of `FORMATS`; found out if not given.

    Raises:
        DataError: nothing there, or no format fits: the message lists what each looked for.
        UsageError: an unknown format.
    """
    return open_and_say(path, format).index


def open_and_say(path: str | Path, format: str | None = None) -> Opened:
    """As `open_index`, with the reason."""
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError("there is no such file or folder", where=str(path), mend="Check the path and its spelling")
    root = root.absolute()
    if format is not None:
        return Opened(_read(format, root), f"read as {format}, as asked")
    fitting = recognise(root)
    if not fitting:
        raise DataError(f"no format fits: {_looked_for(root)}", where=str(path), mend="docs/data.md shows every layout")
    name, why = next(iter(fitting.items()))
    others = [n for n in list(fitting)[1:] if n not in _GENERAL]
    said = f"read as {name}: {why}" + (
        f" (also looks like {', '.join(others)}: ask for it with format=)" if others else ""
    )
    return Opened(_read(name, root), said)


def recognise(path: str | Path) -> dict[str, str]:
    """Every format that fits the folder or file, the preferred one first, and what it was recognised by; nothing is
    read.
    """
    root = Path(path).expanduser().absolute()
    fitting: dict[str, str] = {}
    for name in FORMATS:
        if fitting and name in _GENERAL:
            break
        why = _recognise(name, root)
        if why:
            fitting[name] = why
    return fitting


def _read(name: str, root: Path) -> Index:
    """Call the reader with the cycle collector at rest: a million objects without cycles would be walked again and
    again.
    """
    reader = _reader(name)
    working = gc.isenabled()
    gc.disable()
    try:
        return reader(root)
    finally:
        if working:
            gc.enable()


def _reader(name: str) -> Callable[[Path], Index]:
    if name not in FORMATS:
        from difflib import get_close_matches

        near = get_close_matches(name, FORMATS, 1)
        mend = f"Did you mean {near[0]}?" if near else ""
        raise UsageError(f"got {name!r}, wanted one of {', '.join(FORMATS)}", where="format", mend=mend)
    module, _, read = FORMATS[name]
    return getattr(import_module(f"bestiary.data.readers.{module}"), read)


def _recognise(name: str, root: Path) -> str | None:
    module, recognise, _ = FORMATS[name]
    try:
        return getattr(import_module(f"bestiary.data.readers.{module}"), recognise)(root)
    except OSError:  # a folder that may not be listed is not of this format; reading it by name says why
        return None


def _looked_for(root: Path) -> str:
    wanted = {
        "coco": "a JSON with images and annotations",
        "voc": "Annotations/*.xml",
        "yolo": "data.yaml, or labels/*.txt beside images",
        "csv": "a CSV with image, box and label",
        "label-masks": "maps in labels or masks beside images",
        "folders": "one folder a class",
        "pictures": "pictures",
    }
    there = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())[:12] if root.is_dir() else [root.name]
    tried = "; ".join(f"{name} wants {what}" for name, what in wanted.items())
    meshes = root.is_dir() and next(root.rglob("*.off"), None) is not None
    note = " (it holds OFF meshes: bestiary.data.readers.meshes.read_meshes reads them)" if meshes else ""
    return f"found {', '.join(there) or 'nothing'}{note}; {tried}"
