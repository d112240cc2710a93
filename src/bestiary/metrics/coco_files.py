"""COCO's annotation and result files as a table of detections and truths.

As in the reference tool pictures come in the order of their ids, categories too; only crowds are ignored (and, for
joints, objects without any), whatever an `ignore` field says; an annotation without `area` has its box's, or its mask's
where masks are compared. A result's area is its mask's; of joints, its box's if it has one, else that of the box around
them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from bestiary.errors import DataError
from bestiary.metrics.coco_entries import Entries, Wanted, columns_of, mapped, scan_list
from bestiary.metrics.json_files import field_of, load_json
from bestiary.metrics.masks import RunTexts, texts_of_entries
from bestiary.metrics.pose import COCO_SIGMAS
from bestiary.metrics.table import DetectionTable, JointPairs, Kind, MaskPairs, require_kind

_WORTH_A_SCAN = 1 << 18
"""Bytes of a file below which json is as quick, and spares a first call the compiling of the scanner."""

_FOUND = ("image_id", "category_id", "score")
_TRUE = ("image_id", "category_id")
_WANTED_RESULTS = {
    "boxes": Wanted((*_FOUND, "bbox")),
    "masks": Wanted((*_FOUND, "segmentation"), ("bbox",)),
    "keypoints": Wanted((*_FOUND, "keypoints"), ("bbox",)),
}
_WANTED_TRUTHS = {
    "boxes": Wanted((*_TRUE, "bbox"), ("area", "iscrowd")),
    "masks": Wanted((*_TRUE, "segmentation"), ("bbox", "area", "iscrowd")),
    "keypoints": Wanted((*_TRUE, "bbox", "keypoints"), ("area", "iscrowd", "num_keypoints")),
}
_MEND = "Results must be of the pictures and categories in the annotation file"
_MEMBERS = ("images", "categories", "annotations")


@dataclass(frozen=True, eq=False)
class TruthFile:
    """An annotation file.

    Attributes:
        image_ids: ascending.
        sizes_hw: of each picture, 0 where the file does not say.
        images: the pictures' entries, where they were asked for.
        categories: in the order of their ids.
        annotations: in the file's order.
    """

    image_ids: np.ndarray
    sizes_hw: Int32[np.ndarray, "I 2"]
    images: list[Any] | None
    categories: list[Any]
    annotations: Entries

    @property
    def category_ids(self) -> np.ndarray:
        """The file's ids, ascending."""
        return _column([category["id"] for category in self.categories])

    @property
    def names(self) -> tuple[str, ...]:
        """Names, with the id behind those that are not unique or missing."""
        names = [str(category.get("name", "category")) for category in self.categories]
        return tuple(
            name if names.count(name) == 1 and "name" in category else f"{name} {category['id']}"
            for name, category in zip(names, self.categories, strict=True)
        )


def read_table(
    truth: Path, results: Path, kind: Kind = "boxes", sigmas: Sequence[int | float] | None = None
) -> DetectionTable:
    """Annotations (`images`, `categories`, `annotations`) and results (a list of `image_id`, `category_id`, `score`,
    and `bbox`, `segmentation` or `keypoints`).

    Args:
        kind: what is compared.
        sigmas: of the joints; COCO's 17 if not given.

    Raises:
        DataError: a file is missing or not JSON; a field is missing; a picture or category is unknown; a box is not
            four numbers, a mask not of its picture's size, the joints not as many as the sigmas.
        UsageError: no such kind, or a sigma that is not positive.
    """
    require_kind(kind, sigmas)
    return table_of(read_truth(truth, kind), read_results(results, kind), kind, sigmas)


def read_truth(path: Path, kind: Kind = "boxes", keep_images: bool = False) -> TruthFile:
    """An annotation file; errors as in `read_table`.

    Args:
        keep_images: the pictures' entries, whole, besides their ids and sizes.
    """
    wanted, listed = _WANTED_TRUTHS[kind], Wanted(("id",), ("height", "width"))
    with mapped(path, _WORTH_A_SCAN) as content:
        spans = {} if content is None else _spans(content)
        if content is not None and all(name in spans for name in _MEMBERS):
            categories = _loads(content[slice(*spans["categories"])])
            images = _loads(content[slice(*spans["images"])]) if keep_images else []
            pictures = scan_list(path, content, *spans["images"], listed)
            annotations = scan_list(path, content, *spans["annotations"], wanted)
            if pictures and annotations and isinstance(categories, list) and isinstance(images, list):
                return _truth(path, pictures, images if keep_images else None, categories, annotations)
    document = load_json(path)
    if not isinstance(document, dict):
        raise DataError("got no JSON object, wanted an object", where=str(path))
    for name in _MEMBERS:
        if not isinstance(document.get(name), list):
            raise DataError(
                f"got no field {name!r} that is a list, wanted images, categories and annotations", where=str(path)
            )
    pictures = columns_of(document["images"], path, listed)
    annotations = columns_of(document["annotations"], path, wanted)
    return _truth(path, pictures, document["images"] if keep_images else None, document["categories"], annotations)


def read_results(path: Path, kind: Kind = "boxes") -> Entries:
    """A file of results; errors as in `read_table`."""
    with mapped(path, _WORTH_A_SCAN) as content:
        found = None if content is None else scan_list(path, content, 0, len(content), _WANTED_RESULTS[kind])
    if found is not None:
        return found
    entries = load_json(path)
    if not isinstance(entries, list):
        raise DataError("got no JSON list of results, wanted a list of results", where=str(path))
    return results_of(entries, path, kind)


def results_of(entries: Sequence[Any], path: Path, kind: Kind = "boxes") -> Entries:
    """The entries of a file of results that are at hand already; errors as in `read_table`.

    Args:
        entries: as `Detections.to_coco` gives them, in the annotation file's ids.
        path: where they come from, for messages.
        kind: what is compared.
    """
    return columns_of(entries, path, _WANTED_RESULTS[kind])


def table_of(
    truth: TruthFile, found: Entries, kind: Kind, sigmas: Sequence[int | float] | None = None
) -> DetectionTable:
    """The table of what was read; errors as in `read_table`."""
    entries = truth.annotations
    found_images = _rows(found, "image_id", truth.image_ids)
    found_labels = _rows(found, "category_id", truth.category_ids)
    truth_images = _rows(entries, "image_id", truth.image_ids)
    truth_labels = _rows(entries, "category_id", truth.category_ids)
    masks = joints = None
    if kind == "masks":
        found_masks = texts_of_entries(found, truth.sizes_hw[found_images])
        masks = MaskPairs(found_masks, texts_of_entries(entries, truth.sizes_hw[truth_images]))
    elif kind == "keypoints":
        joints = _joints(found, entries, COCO_SIGMAS if sigmas is None else sigmas)
    boxes, areas = _boxes_and_areas(found, masks and masks.found, joints and joints.found)
    truth_boxes, measured = _boxes_and_areas(entries, masks and masks.truths, None)
    truth_areas, crowd = entries.columns["area"], entries.columns["iscrowd"]
    ignored = crowd.copy()
    if joints is not None:
        stated = entries.columns["num_keypoints"]
        ignored |= np.where(stated < 0, (joints.truths[..., 2] > 0).sum(1), stated) == 0
    # Equal scores rank by picture, then by place in the file.
    order = slice(None)
    if (np.diff(found_images) < 0).any():
        order = np.argsort(found_images, kind="stable")
        masks = masks and masks._replace(found=masks.found.take(order))
        joints = joints and joints._replace(found=joints.found[order])
    return DetectionTable(
        categories=truth.names,
        n_images=len(truth.image_ids),
        found_images=found_images[order],
        found_labels=found_labels[order],
        found_scores=found.columns["score"][order],
        found_boxes_xywh=boxes[order],
        found_areas=areas[order],
        truth_images=truth_images,
        truth_labels=truth_labels,
        truth_boxes_xywh=truth_boxes,
        truth_areas=np.where(np.isnan(truth_areas), measured, truth_areas),
        truth_crowd=crowd,
        truth_ignored=ignored,
        masks=masks,
        joints=joints,
    )


def _joints(found: Entries, truths: Entries, sigmas: Sequence[int | float]) -> JointPairs:
    points = []
    for entries in (found, truths):
        column = entries.columns["keypoints"]
        if len(column) and column.shape[1] != 3 * len(sigmas):
            raise DataError(
                f"got {column.shape[1]} numbers of keypoints, wanted x, y, visibility of {len(sigmas)} joints",
                where=f"{entries.path}, entry 0",
                mend="Give one sigma a joint",
            )
        points.append(column.reshape(len(column), len(sigmas), 3))
    return JointPairs(np.ascontiguousarray(points[0][..., :2]), points[1], np.array(sigmas, np.float64))


def _boxes_and_areas(
    entries: Entries, masks: RunTexts | None, joints: Float64[np.ndarray, "N J 2"] | None
) -> tuple[Float64[np.ndarray, "N 4"], Float64[np.ndarray, " N"]]:
    """Boxes (x, y, width, height; around mask or joints where the file has none) and areas to judge sizes by."""
    boxes = entries.columns["bbox"]
    absent = np.isnan(boxes[:, 0])
    if absent.any() and masks is not None:
        boxes = np.where(absent[:, None], masks.boxes_xywh, boxes)
    elif absent.any() and joints is not None:
        low, high = joints.min(1), joints.max(1)
        boxes = np.where(absent[:, None], np.concatenate([low, high - low], 1), boxes)
    return boxes, masks.areas if masks is not None else boxes[:, 2] * boxes[:, 3]


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _spans(content: Any) -> dict[str, tuple[int, int]]:
    """Where the values of an object's members begin and end; nothing if it is not plain."""
    from bestiary.metrics._kernels.json_values import members

    spans, text = np.empty((64, 4), np.int64), np.frombuffer(content, np.uint8)
    count = members(text, spans)
    keys = [content[begin:end] for begin, end in spans[: max(count, 0), :2].tolist()]
    names = [_loads(key) for key in keys]
    if count < 0 or None in names or len(set(names)) < len(names):
        return {}
    return dict(zip(names, map(tuple, spans[:count, 2:].tolist()), strict=True))


def _truth(
    path: Path, pictures: Entries, images: list[Any] | None, categories: list[Any], annotations: Entries
) -> TruthFile:
    given = pictures.columns["id"]
    sizes = np.stack([pictures.columns["height"], pictures.columns["width"]], 1)
    if given.dtype != np.int64:
        for i, value in enumerate(given.tolist()):
            _require_id(value, f"{path}, image {i}")
    ids, first = _unique(given)
    for i, category in enumerate(categories):
        _require_id(field_of(category, "id", f"{path}, category {i}"), f"{path}, category {i}")
    numeric = sizes.dtype == np.int64 and bool((sizes < 2**31).all())
    sizes_hw = np.maximum(sizes[first], 0).astype(np.int32) if numeric else np.zeros((len(ids), 2), np.int32)
    try:
        categories = sorted(categories, key=lambda category: category["id"])
    except TypeError:
        raise DataError("got ids of several types, wanted numbers", where=f"{path}, categories") from None
    return TruthFile(ids, sizes_hw, images, categories, annotations)


def _require_id(value: object, where: str) -> None:
    if not isinstance(value, int | float | str):
        raise DataError(f"got the id {repr(value)[:60]}, wanted a number or a text", where=where)


def _unique(ids: np.ndarray) -> tuple[np.ndarray, Int64[np.ndarray, " I"]]:
    """The ids, ascending, each once, and where each is first."""
    if ids.dtype == np.int64:
        unique, first = np.unique(ids, return_index=True)
        return unique, first.astype(np.int64)
    places: dict[Any, int] = {}
    for i, value in enumerate(ids.tolist()):
        places.setdefault(value, i)
    ordered = sorted(places, key=lambda value: (str(type(value)), value))
    return _column(ordered), np.array([places[value] for value in ordered], np.int64)


def _column(values: Sequence[Any]) -> np.ndarray:
    if all(type(value) is int and abs(value) < 2**62 for value in values):
        return np.array(values, dtype=np.int64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _rows(entries: Entries, name: str, known: np.ndarray) -> Int64[np.ndarray, " N"]:
    """Place in `known` of every entry's id."""
    from bestiary.metrics._kernels.entries import rows_of_ids

    ids = entries.columns[name]
    rows, bad = np.empty(len(ids), np.int64), -1
    if ids.dtype == known.dtype == np.int64:
        bad = rows_of_ids(ids, known, rows)
    else:
        places = {value: row for row, value in enumerate(known.tolist())}
        for i, value in enumerate(ids.tolist()):
            rows[i] = places.get(value, -1) if isinstance(value, int | float | str) else -1
            if rows[i] < 0:
                bad = i
                break
    if bad >= 0:
        unknown = ids[bad : bad + 1].tolist()[0]
        where = f"{entries.path}, entry {bad}"
        raise DataError(f"got {name} {unknown!r}, which the annotations do not have", where=where, mend=_MEND)
    return rows
