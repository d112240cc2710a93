"""The entries of COCO's files (annotations, results, pictures) as columns.

Files are read by a compiled scanner, in pieces shared by threads, straight from the mapped file: no Python object an
entry, little memory beyond the columns. Whatever the scanner finds unusual is read by `json` instead, to the same
columns, or to an error that says what is wrong.
"""

import contextlib
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of
from bestiary.ops._kernels.threads import in_threads

_PIECE = 1 << 20
"""Bytes a thread takes at a time."""

_JOINT = re.compile(rb"\}\s*,(?=\s*\{)")
"""Where two entries may meet. A piece that ends anywhere else (within a string, or deeper down) is no list of entries,
so the scanner notices."""

_REALS = {"score": 1, "area": 1, "bbox": 4}
"""Fields of real numbers, and how many."""

_RAGGED = ("keypoints", "segmentation")
_ABSENT = {"score": np.nan, "area": np.nan, "bbox": np.nan, "iscrowd": False}
"""What stands for an optional field that an entry lacks; -1 for integers."""


@dataclass(frozen=True, eq=False)
class MaskColumns:
    """Masks as they were written.

    Attributes:
        kinds: `NO_MASK`, `POLYGONS`, `RUNS` or `TEXT` (`_kernels.entries`).
        sizes_hw: of run lengths; of polygons unknown, 0.
        numbers: coordinates and run lengths; part p ends at `part_ends[p]`.
        entry_parts: entry i has the parts from `entry_parts[i]` to `entry_parts[i + 1]`.
        text: compressed run lengths; entry i's end at `text_ends[i]`.
    """

    kinds: np.ndarray
    sizes_hw: np.ndarray
    numbers: np.ndarray
    part_ends: np.ndarray
    entry_parts: np.ndarray
    text: np.ndarray
    text_ends: np.ndarray


@dataclass(frozen=True, eq=False)
class Entries:
    """N entries of a file, in its order.

    Attributes:
        path: the file.
        columns: field -> N values. Integers; `score`, `area` (NaN where there is none); `iscrowd` (False);
            `bbox` [N, 4] (NaN); `keypoints` [N, 3 J].
        masks: of `segmentation`.
    """

    path: Path
    columns: dict[str, np.ndarray]
    masks: MaskColumns | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Wanted:
    """Fields to read.

    Attributes:
        required: those that every entry must have.
        optional: those that it may have.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.required, *self.optional)

    def places(self) -> np.ndarray:
        """The scanner's column for each field that it knows, -1 for those not wanted."""
        from bestiary.metrics._kernels.entries import CHARACTERS, FIELDS

        places, whole, real = np.full(len(FIELDS), -1), CHARACTERS + 1, 0
        for name in self.fields:
            places[FIELDS.index(name)] = real if name in _REALS else whole
            real += _REALS.get(name, 0)
            whole += name not in _REALS
        return places

    def width(self) -> tuple[int, int]:
        """How many columns of integers and of real numbers the scanner needs."""
        from bestiary.metrics._kernels.entries import CHARACTERS

        real = sum(_REALS.get(name, 0) for name in self.fields)
        return CHARACTERS + 1 + sum(name not in _REALS for name in self.fields), real

    def must(self) -> int:
        """A bit for each required field."""
        from bestiary.metrics._kernels.entries import FIELDS

        return sum(1 << FIELDS.index(name) for name in self.required)


@contextlib.contextmanager
def mapped(path: Path, least: int = 0) -> Iterator[mmap.mmap | None]:
    """The file as bytes that the system loads and drops as they are used; None where that cannot be, or where they are
    fewer than `least`.
    """
    content = None
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        if path.stat().st_size >= least:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        yield content
    finally:
        if content is not None:
            with contextlib.suppress(BufferError):
                content.close()


def scan_list(path: Path, content: mmap.mmap, begin: int, end: int, wanted: Wanted) -> Entries | None:
    """The list of entries that stands between `begin` and `end`, brackets included; None if it is not plain."""
    from bestiary.metrics._kernels.entries import is_plain, scan_entries

    inner = _inside_brackets(content, begin, end)
    if inner is None:
        return None
    pieces = _pieces(content, *inner)
    text = np.frombuffer(content, np.uint8)
    places, must = wanted.places(), wanted.must()
    read: list[dict[str, Any] | None] = [None] * len(pieces)

    def work(first: int, last: int) -> None:
        for i in range(first, last):
            start, stop = pieces[i]
            if not is_plain(text[start:stop]) and not _is_utf8(content, start, stop):
                continue
            room = _Room.of(stop - start, wanted)
            count = scan_entries(text, start, stop, places, must, *room)
            if count >= 0:
                read[i] = _tight(content, room, count, wanted)
            _let_go(content, start, stop)

    in_threads(work, len(pieces), torch.get_num_threads())
    parts = [part for part in read if part is not None]
    return _joined(path, parts) if len(parts) == len(read) else None


def _inside_brackets(content: mmap.mmap, begin: int, end: int) -> tuple[int, int] | None:
    opening = re.compile(rb"\s*\[").match(content, begin, end)
    closing = content.rfind(b"]", begin, end)
    if opening is None or closing < opening.end() or content[closing + 1 : end].strip(b" \t\r\n"):
        return None
    return opening.end(), closing


def _pieces(content: mmap.mmap, begin: int, end: int) -> list[tuple[int, int]]:
    pieces, start = [], begin
    while end - start > _PIECE:
        joint = _JOINT.search(content, start + _PIECE, end)
        if joint is None:
            break
        pieces.append((start, joint.end() - 1))
        start = joint.end()
    return [*pieces, (start, end)]


def _is_utf8(content: mmap.mmap, start: int, stop: int) -> bool:
    try:
        content[start:stop].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _let_go(content: mmap.mmap, start: int, stop: int) -> None:
    """Whole pages that have been read need not stay in memory."""
    page = mmap.PAGESIZE
    start, stop = -(-start // page) * page, stop // page * page
    if stop > start and hasattr(content, "madvise"):
        content.madvise(mmap.MADV_DONTNEED, start, stop - start)


class _Room(NamedTuple):
    """Where the scanner writes: columns with room for any plain list of `size` bytes.

    Memory that is never written is never taken.
    """

    whole: np.ndarray
    reals: np.ndarray
    numbers: np.ndarray
    part_ends: np.ndarray
    characters: np.ndarray
    hard: np.ndarray
    used: np.ndarray

    @classmethod
    def of(cls, size: int, wanted: "Wanted") -> "_Room":
        from bestiary.metrics._kernels.entries import ROOM_FOR_HARD

        most = size // sum(len(name) + 4 for name in wanted.required) + 1
        ragged = size // 2 + 1 if {"keypoints", "segmentation"} & set(wanted.fields) else 0
        return cls(
            np.empty((most, wanted.width()[0]), np.int64),
            np.empty((most, wanted.width()[1]), np.float64),
            np.empty(ragged, np.float64),
            np.empty(ragged, np.int64),
            np.empty(size if "segmentation" in wanted.fields else 0, np.uint8),
            np.empty((ROOM_FOR_HARD, 4), np.int64),
            np.zeros(4, np.int64),
        )


def _tight(content: mmap.mmap, room: _Room, count: int, wanted: Wanted) -> dict[str, Any] | None:
    """The part of the columns that was written, copied out: field -> values; None if a number is infinite."""
    from bestiary.metrics._kernels import entries as kernels

    flat = (room.reals.reshape(-1), room.numbers)
    for column, place, start, stop in room.hard[: room.used[2]].tolist():
        flat[column][place] = float(content[start:stop])
        if not np.isfinite(flat[column][place]):
            return None
    whole, reals, numbers = room.whole[:count], room.reals[:count], room.numbers[: room.used[0]]
    places, columns = wanted.places(), {}
    for name in wanted.fields:
        number = kernels.FIELDS.index(name)
        if name in _REALS:
            column = reals[:, places[number] : places[number] + _REALS[name]].copy()
            column = column if name == "bbox" else column[:, 0]
        elif name in _RAGGED:
            continue
        else:
            column = whole[:, places[number]].astype(bool if name == "iscrowd" else np.int64)
        if name in wanted.optional:
            column[whole[:, kernels.PRESENT] & (1 << number) == 0] = _ABSENT.get(name, -1)
        columns[name] = column
    parts = room.part_ends[: room.used[1]].copy()
    if "keypoints" in wanted.fields:
        columns["keypoints"] = (numbers.copy(), np.diff(parts, prepend=0))
    if "segmentation" in wanted.fields:
        kinds, sizes = whole[:, kernels.MASK_KIND], whole[:, kernels.MASK_HEIGHT : kernels.MASK_WIDTH + 1]
        absent = whole[:, kernels.PRESENT] & (1 << kernels.FIELDS.index("segmentation")) == 0
        sizes = np.where(absent[:, None], 0, sizes).astype(np.int32)
        columns["segmentation"] = MaskColumns(
            np.where(absent, kernels.NO_MASK, kinds).astype(np.uint8),
            sizes,
            numbers.copy(),
            parts,
            np.concatenate([[0], whole[:, kernels.PARTS]]),
            room.characters[: room.used[3]].copy(),
            whole[:, kernels.CHARACTERS].copy(),
        )
    return columns


def _joined(path: Path, parts: list[dict[str, Any]]) -> Entries | None:
    """All pieces, one column after the other; a piece's column is let go as soon as it is copied."""
    columns, masks = {}, None
    for name in list(parts[0]):
        pieces = [part.pop(name) for part in parts]
        if name == "segmentation":
            masks = _joined_masks(pieces)
        elif name == "keypoints":
            lengths = np.concatenate([length for _, length in pieces])
            if lengths.size and (lengths != lengths[0]).any():
                return None
            numbers = np.concatenate([n for n, _ in pieces])
            columns[name] = numbers.reshape(len(lengths), -1) if len(lengths) else np.zeros((0, 0))
        else:
            columns[name] = np.concatenate(pieces)
    return Entries(path, columns, masks)


def _joined_masks(pieces: Sequence[MaskColumns]) -> MaskColumns:
    def shifted(ends: str, counted: str) -> list[np.ndarray]:
        sizes = np.cumsum([0, *(len(getattr(piece, counted)) for piece in pieces)])
        return [getattr(piece, ends) + size for piece, size in zip(pieces, sizes[:-1], strict=True)]

    entry_parts = shifted("entry_parts", "part_ends")
    return MaskColumns(
        np.concatenate([piece.kinds for piece in pieces]),
        np.concatenate([piece.sizes_hw for piece in pieces]),
        np.concatenate([piece.numbers for piece in pieces]),
        np.concatenate(shifted("part_ends", "numbers")),
        np.concatenate([entry_parts[0][:1], *(starts[1:] for starts in entry_parts)]),
        np.concatenate([piece.text for piece in pieces]),
        np.concatenate(shifted("text_ends", "text")),
    )


def columns_of(entries: Sequence[Any], path: Path, wanted: Wanted) -> Entries:
    """The same columns from entries that `json` has read.

    Raises:
        DataError: an entry lacks a field, or a field is not what it must be.
    """
    columns, masks = {}, None
    for name in wanted.fields:
        optional = name in wanted.optional
        if name == "segmentation":
            masks = _masks_of(entries, path, optional)
        elif name in ("bbox", "keypoints"):
            columns[name] = _lists(entries, name, path, optional)
        elif name in ("score", "area"):
            columns[name] = _reals(entries, name, path, optional)
        elif name == "iscrowd":
            columns[name] = np.array([bool(required(e, name, path, i, optional)) for i, e in enumerate(entries)], bool)
        else:
            columns[name] = _ids([required(e, name, path, i, optional, -1) for i, e in enumerate(entries)])
    return Entries(path, columns, masks)


def required(entry: Any, name: str, path: Path, row: int, optional: bool = False, absent: Any = None) -> Any:
    """A field of an entry; `absent` if it lacks an optional one, else `DataError`."""
    if optional and isinstance(entry, Mapping):
        return entry.get(name, absent)
    return field_of(entry, name, f"{path}, entry {row}")


def _ids(values: list[Any]) -> np.ndarray:
    """Integers where all are; else the values as they are (text, say)."""
    if all(type(value) is int and abs(value) < 2**62 for value in values):
        return np.array(values, dtype=np.int64)
    ids = np.empty(len(values), object)
    ids[:] = values
    return ids


def _reals(entries: Sequence[Any], name: str, path: Path, optional: bool) -> np.ndarray:
    values = [required(entry, name, path, i, optional, np.nan) for i, entry in enumerate(entries)]
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"got {name} {value!r}, wanted a number", where=f"{path}, entry {i}")
    return np.array(values, dtype=np.float64)


def _lists(entries: Sequence[Any], name: str, path: Path, optional: bool) -> np.ndarray:
    """Boxes, four numbers each, or joints, three numbers a joint and the same joints for all."""
    values = [required(entry, name, path, i, optional) for i, entry in enumerate(entries)]
    if name == "bbox":
        length, wanted = 4, "x, y, width, height"
    else:
        length = next((len(v) for v in values if isinstance(v, list)), 0)
        wanted = f"x, y, visibility of each joint: {length} numbers as in the others"
    rows = np.full((len(values), length), np.nan)
    for i, value in enumerate(values):
        if value is None and optional:
            continue
        plain = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
        if not isinstance(value, list) or not plain or len(value) != length:
            raise DataError(f"got {name} {value!r}, wanted {wanted}", where=f"{path}, entry {i}")
        rows[i] = value
        if not np.isfinite(rows[i]).all():
            raise DataError(f"got {name} {value!r}, wanted finite numbers", where=f"{path}, entry {i}")
    return rows


def _masks_of(entries: Sequence[Any], path: Path, optional: bool) -> MaskColumns:
    from bestiary.metrics._kernels.entries import NO_MASK, POLYGONS, RUNS, TEXT

    kinds, sizes = np.full(len(entries), NO_MASK, np.uint8), np.zeros((len(entries), 2), np.int32)
    parts: list[np.ndarray] = [np.zeros(0)]
    entry_parts, texts, text_ends, used = [0], [], [], 0
    for i, entry in enumerate(entries):
        value = required(entry, "segmentation", path, i, optional)
        counts = value.get("counts") if isinstance(value, Mapping) else None
        try:
            if isinstance(value, list) and value:
                kinds[i] = POLYGONS
                parts += [np.asarray(polygon, np.float64).reshape(-1) for polygon in value]
            elif isinstance(value, Mapping):
                sizes[i] = value["size"]
                kinds[i] = TEXT if isinstance(counts, str) else RUNS
                if isinstance(counts, str):
                    texts.append(counts.encode("ascii"))
                    used += len(texts[-1])
                else:
                    parts.append(np.asarray(counts, np.float64).reshape(-1))
            elif value is not None or not optional:
                raise ValueError
        except (ValueError, TypeError, KeyError, OverflowError):
            shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
            raise DataError(
                f"got segmentation {shown}, wanted polygons, or size and counts of run lengths",
                where=f"{path}, entry {i}",
            ) from None
        entry_parts.append(len(parts) - 1)
        text_ends.append(used)
    return MaskColumns(
        kinds, sizes, np.concatenate(parts), np.cumsum([len(part) for part in parts[1:]], dtype=np.int64),
        np.array(entry_parts, np.int64), np.frombuffer(b"".join(texts), np.uint8), np.array(text_ends, np.int64),
    )  # fmt: skip
