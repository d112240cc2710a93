"""An index served as samples: decoded, mended, only what was asked for.

Mended on the way, and counted in `notes`: boxes are clipped to the picture; boxes that are not finite, inverted or
outside are dropped; objects of no known category are dropped, and those without a mask where masks are asked for;
pictures whose file is missing or that nobody annotated are left out. A picture that cannot be decoded is an error when
it is asked for, never a silent gap.

Where annotations do not say how large their picture is, its header does, so that these counts are right.

All annotations lie packed in one array of bytes: forked workers share it, pickling is one copy, and a million objects
are no million Python objects.
"""

import copy
import dataclasses
import hashlib
import pickle
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from bestiary.data.index import Defect, Index, RawPicture
from bestiary.data.opening import open_and_say
from bestiary.data.truth import FIELDS, Layout, find_layout, judge_objects, make_target
from bestiary.errors import DataError, PictureError, RecordError, UsageError
from bestiary.pictures.decode import read_image, read_size
from bestiary.records import Sample

Negatives = Literal["keep", "drop"]
Array = Shaped[np.ndarray, "..."]


class Dataset:
    """Pictures of one split, or of several, as a map-style data set of `Sample`s.

    Args:
        index: what a reader found.
        split: names of splits joined by "+" ("train+val"); all of them if None.
        fields: what targets hold, out of `FIELDS`; by default everything the index offers except masks.
        negatives: "drop" leaves out pictures without objects.

    Attributes:
        categories: names in label order.
        category_ids: the file's own id of each category, where it has ids.
        joint_names: names of the joints, where there are keypoints.
        joint_pairs: pairs of joints that swap in a mirror image.
        fields: what targets hold.
        split: as given, or all names joined.
        root: the folder.
        format: what it was read as.
        notes: what was mended or left out, one sentence each.

    Raises:
        UsageError: an unknown split or field.
        DataError: nothing left, or a field that the data set does not have.
    """

    def __init__(
        self,
        index: Index,
        split: str | None = None,
        fields: Iterable[str] | None = None,
        negatives: Negatives = "keep",
    ) -> None:
        self.root, self.format = index.root, index.format
        self.categories: tuple[str, ...] = tuple(index.categories)
        self.category_ids = None if index.category_ids is None else tuple(index.category_ids)
        self.joint_names = None if index.joint_names is None else tuple(index.joint_names)
        self.joint_pairs = None if index.joint_pairs is None else tuple(index.joint_pairs)
        self.split, pictures = _chosen(index, split)
        self.notes: list[str] = []
        self.layout: Layout = find_layout(index)
        self.fields = _wanted_fields(self.layout, fields, index)
        self._ignore_label = index.ignore_label
        self._defects = list(index.defects)
        kept, self._class_counts, counts = _judge(pictures, self.layout, self.fields, self.categories, negatives)
        self.notes += _say(self._defects, counts)
        if not kept:
            why = f": {self.notes[0]}" if self.notes else ""
            raise DataError(f"no picture is left in split {self.split!r}{why}", where=str(index.root))
        self._names = [p.name for p in kept]
        self._bytes, self._ends = _pack(kept)
        self._order = np.arange(len(kept))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, i: int) -> Sample:
        """Decode picture `i` and its target. Raises `PictureError` naming the file if it cannot be decoded."""
        raw = self.raw(i)
        image = read_image(raw.path)
        size_hw = int(image.shape[-2]), int(image.shape[-1])
        target = make_target(raw, size_hw, self.fields, self.layout, self.categories)
        try:
            return Sample(image, target, raw.name, size_hw)
        except RecordError as error:
            raise DataError(error.message, where=f"{raw.path}: {error.where}", mend="Run bestiary check") from error

    def raw(self, i: int) -> RawPicture:
        """Picture `i` as its annotations describe it, with everything the reader kept."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"picture {i} of {len(self)}")
        at = int(self._order[i])
        start = int(self._ends[at - 1]) if at else 0
        return pickle.loads(self._bytes[start : int(self._ends[at])].tobytes())

    @property
    def names(self) -> list[str]:
        """Names of all pictures, in order, without decoding any."""
        return [self._names[i] for i in self._order]

    @property
    def index(self) -> Index:
        """The index of exactly these pictures, rebuilt at each call (for `check` and `convert`)."""
        pictures = [self.raw(i) for i in range(len(self))]
        pairs = None if self.joint_pairs is None else list(self.joint_pairs)
        joints = None if self.joint_names is None else list(self.joint_names)
        ids = None if self.category_ids is None else list(self.category_ids)
        return Index(
            self.root,
            self.format,
            list(self.categories),
            {self.split: pictures},
            ids,
            joints,
            pairs,
            self._ignore_label,
            list(self._defects),
        )

    def class_counts(self) -> dict[str, int]:
        """Objects of each category (pictures, where they are classified as a whole); label maps are not counted."""
        counts = self._class_counts[self._order].sum(0) if len(self._order) else np.zeros(len(self.categories), int)
        return {name: int(n) for name, n in zip(self.categories, counts, strict=True)}

    def labels_per_picture(self) -> list[list[int]]:
        """Labels that occur in each picture (its own, or its objects'), ascending; for balanced sampling."""
        return [np.flatnonzero(row).tolist() for row in self._class_counts[self._order]]

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """The same data set with only these pictures, in this order; nothing is copied but the order."""
        picked = np.asarray(list(indices), dtype=np.int64)
        if len(picked) and not ((-len(self) <= picked) & (picked < len(self))).all():
            raise UsageError(
                f"got indices from {picked.min()} to {picked.max()}, wanted below {len(self)}", where="subset"
            )
        other = copy.copy(self)
        other._order, other.notes = self._order[picked], list(self.notes)
        return other

    def with_categories(self, names: Sequence[str]) -> "Dataset":
        """The same pictures with labels counted in `names`: what a model trained with other categories needs.

        Categories of `names` that the data set lacks are legal (they have no objects).

        Raises:
            DataError: the data set has objects of a category that is not in `names`; both lists and the nearest name
                are shown.
        """
        names = tuple(names)
        if names == self.categories:
            return self
        counts = self.class_counts()
        countable = self.layout.label_maps is False
        missing = [c for c in self.categories if c not in names and (counts[c] > 0 or not countable)]
        if missing:
            raise DataError(_mismatch(missing, self.categories, names), where=str(self.root))
        other = copy.copy(self)
        columns = [self.categories.index(n) if n in self.categories else -1 for n in names]
        padded = np.concatenate([self._class_counts, np.zeros_like(self._class_counts[:, :1])], axis=1)
        other._class_counts = padded[:, columns]
        renumber = {old: names.index(c) for old, c in enumerate(self.layout.categories) if c in names}
        other.layout = dataclasses.replace(self.layout, renumber=renumber)
        other.categories, other.notes = names, list(self.notes)
        other.category_ids = _ids_of(names, self.categories, self.category_ids)
        return other

    def verify(self) -> list[str]:
        """Decode every picture; the message of each that cannot be decoded. Reads the whole data set."""
        broken = []
        for i in range(len(self)):
            try:
                self[i]
            except DataError as error:
                broken.append(str(error))
        return broken

    def __repr__(self) -> str:
        size = f"{len(self)} pictures, {len(self.categories)} categories"
        return f"Dataset({self.root}, {self.format}, {self.split}: {size}, {', '.join(sorted(self.fields))})"


def load(
    path: str | Path,
    split: str | None = None,
    format: str | None = None,
    fields: Iterable[str] | None = None,
    categories: Sequence[str] | None = None,
    negatives: Negatives = "keep",
) -> Dataset:
    """Open a data set and serve one split, or "train+val", or everything.

    Args:
        path: folder or annotation file.
        split: as in `Dataset`.
        format: one of `bestiary.data.opening.FORMATS`; found out if not given.
        fields: as in `Dataset`.
        categories: names in the order that labels shall count them (a trained model's); the data set's own if None.
        negatives: as in `Dataset`.
    """
    opened = open_and_say(path, format)
    dataset = Dataset(opened.index, split, fields, negatives)
    dataset.notes.insert(0, opened.why)
    return dataset if categories is None else dataset.with_categories(categories)


def load_splits(
    path: str | Path,
    seed: int = 0,
    val_fraction: float = 0.2,
    format: str | None = None,
    fields: Iterable[str] | None = None,
    categories: Sequence[str] | None = None,
    negatives: Negatives = "keep",
) -> dict[str, Dataset]:
    """The data set's own splits; a data set without validation pictures is divided.

    Which pictures validate depends on their names and `seed` alone: adding pictures moves none of the others, and every
    machine agrees. A data set with "test" but no "val" keeps its test pictures apart.

    Args:
        path: folder or annotation file.
        seed: another division for another number.
        val_fraction: share of pictures that validate, about.
        format: as in `load`.
        fields: as in `Dataset`.
        categories: as in `load`.
        negatives: as in `Dataset`.
    """
    opened = open_and_say(path, format)
    splits = {}
    for name in opened.index.splits:
        splits[name] = Dataset(opened.index, name, fields, negatives)
    if "val" not in splits:
        source = "train" if "train" in splits else next(iter(splits))
        train, val = split_by_name(splits.pop(source), val_fraction, seed)
        splits = {"train": train, "val": val, **splits}
    for dataset in splits.values():
        dataset.notes.insert(0, opened.why)
    if categories is not None:
        splits = {name: dataset.with_categories(categories) for name, dataset in splits.items()}
    return splits


def split_by_name(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Two disjoint parts, named "train" and "val", the second about `fraction` of the whole and at least one picture.

    A picture's name and `seed` alone decide where it goes.

    Raises:
        UsageError: `fraction` is not between 0 and 1.
        DataError: fewer than two pictures.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"got {fraction}, wanted above 0 and below 1", where="fraction")
    if len(dataset) < 2:
        raise DataError(
            "one picture cannot be divided into train and val", where=str(dataset.root), mend="Add pictures"
        )
    marks = np.array([_mark(name, seed) for name in dataset.names])
    held = marks < fraction
    held[marks.argmin()], held[marks.argmax()] = True, False
    said = (
        f"{held.sum()} of {len(dataset)} pictures of {dataset.split!r} set aside for validation by name (seed {seed})"
    )
    train, val = dataset.subset(np.flatnonzero(~held).tolist()), dataset.subset(np.flatnonzero(held).tolist())
    train.split, val.split = "train", "val"
    for part in (train, val):
        part.notes.append(said)
    return train, val


def _mark(name: str, seed: int) -> float:
    """A number in 0..1 that depends on the name and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _chosen(index: Index, split: str | None) -> tuple[str, list[RawPicture]]:
    if split is None:
        names = list(index.splits)
    else:
        names = split.split("+")
        unknown = [n for n in names if n not in index.splits]
        if unknown:
            have = ", ".join(f"{n} ({len(p)})" for n, p in index.splits.items())
            raise UsageError(f"got {unknown[0]!r}, wanted one of {have}, or several joined by +", where="split")
    return "+".join(names), [p for name in names for p in index.splits[name]]


def _wanted_fields(layout: Layout, fields: Iterable[str] | None, index: Index) -> frozenset[str]:
    if fields is None:
        return layout.offered - {"masks"}
    wanted = frozenset(fields)
    unknown = sorted(wanted - set(FIELDS))
    if unknown:
        raise UsageError(f"got {unknown[0]!r}, wanted some of {', '.join(FIELDS)}", where="fields")
    missing = sorted(wanted - layout.offered)
    if missing:
        have = ", ".join(sorted(layout.offered)) or "nothing"
        raise DataError(f"{index.format} data without {', '.join(missing)}; it has {have}", where=str(index.root))
    return wanted


def _judge(
    pictures: list[RawPicture],
    layout: Layout,
    fields: Collection[str],
    categories: Sequence[str],
    negatives: Negatives,
) -> tuple[list[RawPicture], Array, Counter[str]]:
    """Pictures that can be served, things of each category in each of them `[pictures, K]`, and what was mended."""
    column = {name: i for i, name in enumerate(categories)}
    kept: list[RawPicture] = []
    rows: list[Array] = []
    counts: Counter[str] = Counter()
    for picture in pictures:
        if picture.extra.get("missing"):
            counts["picture|pictures left out: the file is missing or broken"] += 1
            continue
        if layout.offered and not layout.annotated(picture):
            counts["picture|pictures left out: not annotated"] += 1
            continue
        row = np.zeros(len(categories), np.int32)
        if picture.label is not None and picture.label in column:
            row[column[picture.label]] += 1
        if picture.objects is not None:
            good = judge_objects(picture, _size_of(picture), fields, column.keys(), counts)
            if negatives == "drop" and not good:
                counts["picture|pictures without objects left out, as asked"] += 1
                continue
            if not good:
                counts["picture|pictures without objects kept"] += 1
            for found in good:
                row[column[found.category or ""]] += 1
        kept.append(picture)
        rows.append(row)
    return kept, np.stack(rows) if rows else np.zeros((0, len(categories)), np.int32), counts


def _size_of(picture: RawPicture) -> tuple[int, int] | None:
    """(height, width) as the annotations claim, else from the picture's header if there is a box to judge by it.

    None for a picture that cannot be read: it is an error when it is asked for.
    """
    if picture.size_hw is not None or not any(o.box_xyxy is not None or o.keypoints for o in picture.objects or []):
        return picture.size_hw
    try:
        return read_size(picture.path)
    except PictureError:
        return None


def _say(defects: Sequence[Defect], counts: Counter[str]) -> list[str]:
    """Notes: the reader's warnings, how many errors it met and the first, then what was mended or left out."""
    notes = [f"{d.where}: {d.got}, {d.mended or 'wanted ' + d.wanted}" for d in defects if d.severity == "warning"][:5]
    errors = [d for d in defects if d.severity == "error"]
    if errors:
        first = f"{errors[0].where}: got {errors[0].got}, wanted {errors[0].wanted}"
        notes.append(f"{len(errors)} error{'s' * (len(errors) > 1)} met while reading ({first}): run bestiary check")
    for what, count in counts.items():
        nouns, _, rest = what.partition(" ")
        one, _, many = nouns.partition("|")
        check = "" if rest.endswith(("kept", "as asked")) else ": run bestiary check"
        notes.append(f"{count} {one if count == 1 else many} {rest}{check}")
    return notes


def _pack(pictures: list[RawPicture]) -> tuple[Array, Array]:
    """All pictures as one array of bytes, and where each ends."""
    parts = [pickle.dumps(p, protocol=pickle.HIGHEST_PROTOCOL) for p in pictures]
    ends = np.cumsum([len(p) for p in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends


def _mismatch(missing: list[str], have: Sequence[str], wanted: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = {m: get_close_matches(m.lower(), [w.lower() for w in wanted], 1, 0.5) for m in missing}
    names = {w.lower(): w for w in wanted}
    hints = "; ".join(f"{m!r} is nearest to {names[n[0]]!r}" for m, n in near.items() if n)
    got = ", ".join(map(repr, missing[:5]))
    text = (
        f"got objects of {got}, which the wanted categories lack. Data: {', '.join(have)}. Wanted: {', '.join(wanted)}"
    )
    return text + (f". {hints}" if hints else "")


def _ids_of(names: Sequence[str], categories: Sequence[str], ids: Sequence[int] | None) -> tuple[int, ...] | None:
    """The file's ids in the order of `names`; names the file lacks get unused ids above its largest."""
    if ids is None:
        return None
    known = dict(zip(categories, ids, strict=True))
    free = max(ids, default=0)
    found = []
    for name in names:
        if name not in known:
            free += 1
        found.append(known.get(name, free))
    return tuple(found)
