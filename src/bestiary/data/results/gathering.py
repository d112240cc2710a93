"""Results gathered by picture, and an account of what could not be placed."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import torch

from bestiary.data.results.names import PictureNames
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError, RecordError
from bestiary.geometry.masks import Rle, mask_to_box_xyxy
from bestiary.metrics.table import Kind
from bestiary.predictions import Detections, Prediction

Task = Literal["classification", "detection", "segmentation", "panoptic"]
KINDS: tuple[Kind, ...] = ("boxes", "masks", "keypoints")


@dataclass(frozen=True)
class Results:
    """Predictions by picture.

    Attributes:
        format: what they were read as.
        task: what they answer.
        kinds: what detections carry.
        answered: places in the truth of the pictures that something was said of.
        predict: the prediction of such a picture; of detections, that of any picture of the truth.
        notes: what was left out, one sentence each.
        by_ids: every result names its picture and category by the ids of the annotation file.
        labels_only: classes without probabilities.
        partial: probabilities of the likeliest classes alone.
    """

    format: str
    task: Task
    answered: frozenset[int]
    predict: Callable[[int], Prediction]
    kinds: frozenset[Kind] = frozenset()
    notes: Sequence[str] = ()
    by_ids: bool = False
    labels_only: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True)
class FoundRow:
    """One detection as its file has it.

    Attributes:
        label: 0-based.
        score: any finite number, higher is surer.
        where: file and line or entry.
        box_xyxy: continuous, absolute pixels; None to be taken from the mask or joints.
        rle: COCO's dictionary.
        keypoints: flat x, y, visibility or score; three numbers a joint.
    """

    label: int
    score: int | float
    where: str
    box_xyxy: tuple[float, float, float, float] | None = None
    rle: Mapping[str, Any] | None = None
    keypoints: Sequence[int | float] | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the file says of the object."""
        said: dict[Kind, object] = {"boxes": self.box_xyxy, "masks": self.rle, "keypoints": self.keypoints}
        return frozenset(kind for kind, value in said.items() if value is not None)


@dataclass
class Gathering:
    """Finds pictures and categories of the truth for a reader, and counts what it cannot find.

    Attributes:
        truth: what the results are of.
        skip_unknown: leave out results of pictures and categories that the truth does not have, and say how many;
            otherwise they are an error.
        names: of its pictures.
        rows: detections by picture.
    """

    truth: Truth
    skip_unknown: bool = False
    names: PictureNames = field(init=False)
    rows: dict[int, list[FoundRow]] = field(default_factory=dict)
    _unknown: dict[str, Counter[str]] = field(default_factory=lambda: {"picture": Counter(), "category": Counter()})
    _first: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = PictureNames(self.truth.pictures)
        self._labels = {name: i for i, name in enumerate(self.truth.categories)}
        self._folded = Counter(name.casefold() for name in self.truth.categories)
        ids = self.truth.category_ids
        self._ids = {number: i for i, number in enumerate(ids)} if ids is not None else None

    def picture(self, name: str, where: str) -> int | None:
        """The place of a picture in the truth; None if it has no such picture, which is counted."""
        found = self.names.by_name(name, where)
        return self._miss("picture", name, where) if found is None else found

    def picture_of_id(self, key: object, where: str) -> int | None:
        """Likewise by its id in the annotation file, or by its name where that is what was written."""
        found = self.names.by_id(key)
        if found is None and isinstance(key, int | str) and not isinstance(key, bool):
            found = self.names.by_name(str(key), where)
        return self._miss("picture", repr(key), where) if found is None else found

    def category(self, name: str, where: str) -> int | None:
        """The label of a category by its name (in any case, if that is unique), or by its number from 0."""
        if name in self._labels:
            return self._labels[name]
        folded = name.casefold()
        if self._folded[folded] == 1:
            return next(i for known, i in self._labels.items() if known.casefold() == folded)
        if name.isdigit() and int(name) < len(self._labels):
            return int(name)
        return self._miss("category", name, where)

    def category_of_number(self, number: int, where: str) -> int | None:
        """The label of a category by its number from 0."""
        return number if 0 <= number < len(self._labels) else self._miss("category", f"number {number}", where)

    def category_of_id(self, key: object, where: str) -> int | None:
        """The label of a category by its id in the annotation file; from 1 on, where the truth has no ids."""
        if isinstance(key, int) and not isinstance(key, bool):
            if self._ids is not None and key in self._ids:
                return self._ids[key]
            if self._ids is None and 1 <= key <= len(self._labels):
                return key - 1
        return self._miss("category", f"id {key!r}", where)

    def add(self, i: int, row: FoundRow) -> None:
        """A detection in picture `i`.

        Raises:
            DataError: a score or box that is none, or nothing that says where it is.
        """
        if not row.kinds:
            raise DataError("got neither a box nor a mask nor keypoints", where=row.where)
        if not math.isfinite(row.score):
            raise DataError(f"got the score {row.score}, wanted a finite number", where=row.where)
        box = row.box_xyxy
        if box is not None and not (all(map(math.isfinite, box)) and box[0] <= box[2] and box[1] <= box[3]):
            raise DataError(f"got the box {box}, wanted finite x1 <= x2 and y1 <= y2", where=row.where)
        self.rows.setdefault(i, []).append(row)

    def found(self, i: int) -> None:
        """Picture `i` was looked at, whether or not anything was found."""
        self.rows.setdefault(i, [])

    def _miss(self, what: str, name: str, where: str) -> None:
        self._unknown[what][name] += 1
        self._first.setdefault(what, where)

    def notes(self) -> list[str]:
        """What was left out.

        Raises:
            DataError: something was, and that was not asked for; the message has the count, the first and what it is
                nearest to.
        """
        said = []
        for what, names in self._unknown.items():
            if not names:
                continue
            many = "pictures" if what == "picture" else "categories"
            count, first = names.total(), next(iter(names))
            text = f"{count} results of {len(names)} {many if len(names) > 1 else what} that the truth does not have"
            if not self.skip_unknown:
                near = self.names.nearest(first) if what == "picture" else self._near_category(first)
                hint = f", nearest is {near}" if near else ""
                mend = "Correct them, or leave them out with --skip-unknown"
                raise DataError(f"got {text} ({first} first{hint})", where=self._first[what], mend=mend)
            said.append(f"{text} left out ({first} first)")
        return said

    def _near_category(self, name: str) -> str:
        folded = {known.casefold(): known for known in self._labels}
        close = get_close_matches(name.casefold(), folded, 1, 0.5)
        return folded[close[0]] if close else f"none: it has {', '.join(self._labels)[:200]}"

    def detections(self, i: int, kinds: frozenset[Kind], joint_count: int) -> Detections:
        """What was found in picture `i`, best score first, equal ones as they came.

        Args:
            i: place of the picture in the truth.
            kinds: what the results carry, so that a picture without any carries empty ones.
            joint_count: of each object.

        Raises:
            DataError: a mask or joints that cannot be read or do not fit the picture.
        """
        rows = sorted(self.rows.get(i, []), key=lambda row: -row.score)
        size_hw = self.truth.size_hw(i)
        masks = [_mask(row, size_hw) for row in rows if row.rle is not None]
        joints = [_joints(row) for row in rows if row.keypoints is not None]
        lengths = {len(points) for points in joints}
        for kind, some in (("masks", masks), ("keypoints", joints)):
            if some and len(some) < len(rows):
                where = self.truth.pictures[i].name
                raise DataError(f"got {kind} for {len(some)} of {len(rows)} results, wanted all or none", where=where)
        if len(lengths) > 1:
            raise DataError(f"got {sorted(lengths)} joints, wanted as many for each", where=rows[0].where)
        boxes = []
        for number, row in enumerate(rows):
            if row.box_xyxy is not None:
                boxes.append(row.box_xyxy)
            elif masks:
                boxes.append(tuple(mask_to_box_xyxy(masks[number]).tolist()))
            else:
                xs, ys = joints[number][:, 0], joints[number][:, 1]
                boxes.append((float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())))
        empty = not rows
        no_masks = torch.zeros(0, *size_hw, dtype=torch.bool) if empty and "masks" in kinds else None
        no_joints = torch.zeros(0, joint_count, 3) if empty and "keypoints" in kinds else None
        return Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor([row.label for row in rows], dtype=torch.int64),
            torch.tensor([row.score for row in rows], dtype=torch.float32),
            masks=torch.stack(masks) if masks else no_masks,
            keypoints=torch.stack(joints) if joints else no_joints,
            size_hw=size_hw,
            categories=self.truth.categories,
            name=self.truth.pictures[i].name,
        )

    def results(self, format: str, by_ids: bool = False) -> Results:
        """All that was gathered; detections are of the kinds that the first of them is. `DataError` as in `notes`."""
        notes = self.notes()
        every = (row for rows in self.rows.values() for row in rows)
        first = next(every, None)
        kinds: frozenset[Kind] = frozenset({"boxes"}) if first is None else first.kinds
        flat = None if first is None else first.keypoints
        joint_count = len(flat) // 3 if flat else 0

        def predict(i: int) -> Detections:
            return self.detections(i, kinds, joint_count)

        return Results(format, "detection", frozenset(self.rows), predict, kinds, notes, by_ids)


def _mask(row: FoundRow, size_hw: tuple[int, int]) -> torch.Tensor:
    try:
        mask = Rle.from_coco(row.rle or {})
    except (RecordError, ValueError) as error:
        raise DataError(f"the mask cannot be read ({error})", where=row.where) from error
    if tuple(mask.size_hw) != size_hw:
        raise DataError(f"got a mask of size {mask.size_hw}, wanted the picture's, {size_hw}", where=row.where)
    return mask.decode()


def _joints(row: FoundRow) -> torch.Tensor:
    points = torch.tensor(list(row.keypoints or ()), dtype=torch.float32)
    if not bool(torch.isfinite(points).all()):
        raise DataError("got keypoints that are not finite", where=row.where)
    return points.reshape(-1, 3)
