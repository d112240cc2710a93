"""COCO's annotation and result files as a table of detections and truths."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from bestiary.errors import DataError
from bestiary.metrics.table import DetectionTable


def read_table(truth: Path, results: Path) -> DetectionTable:
    """Annotations (`images`, `categories`, `annotations`) and results (a list of `image_id`, `category_id`, `bbox`,
    `score`).

    As in the reference tool pictures come in the order of their ids, only crowds are ignored, whatever an `ignore`
    field says, and an annotation without `area` has its box's.

    Raises:
        DataError: a file is missing or not JSON; a field is missing; a picture or category is unknown; a box is not
            four numbers.
    """
    annotations = _load(truth)
    found = _load(results)
    if not isinstance(annotations, dict) or not isinstance(found, list):
        file, wanted = (truth, "an object") if not isinstance(annotations, dict) else (results, "a list of results")
        raise DataError(f"got no JSON {wanted.split(' ', 1)[1]}, wanted {wanted}", where=str(file))
    for name in ("images", "categories", "annotations"):
        if name not in annotations:
            raise DataError(f"got no field {name!r}, wanted images, categories and annotations", where=str(truth))
    image_ids = sorted({_field(image, "id", truth, i) for i, image in enumerate(annotations["images"])})
    categories = sorted(annotations["categories"], key=lambda c: _field(c, "id", truth, 0))
    image_rows = {image_id: row for row, image_id in enumerate(image_ids)}
    labels = {category["id"]: label for label, category in enumerate(categories)}
    entries = annotations["annotations"]
    # Equal scores rank by picture, then by place in the file.
    found_images = _rows(found, "image_id", image_rows, results)
    by_image = np.argsort(found_images, kind="stable")
    found_boxes, truth_boxes = _boxes(found, results)[by_image], _boxes(entries, truth)
    scores = np.array([_field(e, "score", results, i) for i, e in enumerate(found)], dtype=np.float64)
    measured = truth_boxes[:, 2] * truth_boxes[:, 3]
    areas = np.array([entry.get("area", area) for entry, area in zip(entries, measured, strict=True)], dtype=np.float64)
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], dtype=bool)
    return DetectionTable(
        categories=_names(categories),
        n_images=len(image_ids),
        found_images=found_images[by_image],
        found_labels=_rows(found, "category_id", labels, results)[by_image],
        found_scores=scores[by_image],
        found_boxes_xywh=found_boxes,
        found_areas=found_boxes[:, 2] * found_boxes[:, 3],
        truth_images=_rows(entries, "image_id", image_rows, truth),
        truth_labels=_rows(entries, "category_id", labels, truth),
        truth_boxes_xywh=truth_boxes,
        truth_areas=areas,
        truth_crowd=crowd,
        truth_ignored=crowd.copy(),
    )


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("got no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not JSON: {error}", where=str(path)) from error


def _field(entry: Any, name: str, path: Path, row: int) -> Any:
    if not isinstance(entry, Mapping) or name not in entry:
        raise DataError(f"got no {name!r}", where=f"{path}, entry {row}")
    return entry[name]


def _rows(entries: Sequence[Any], name: str, rows: Mapping[Any, int], path: Path) -> Int64[np.ndarray, " N"]:
    """Place in `rows` of every entry's id."""
    try:
        return np.array([rows[entry[name]] for entry in entries], dtype=np.int64)
    except (KeyError, TypeError):
        for i, entry in enumerate(entries):
            value = _field(entry, name, path, i)
            if value not in rows:
                mend = "Results must be of the pictures and categories in the annotation file"
                raise DataError(
                    f"got {name} {value!r}, which the annotations do not have", where=f"{path}, entry {i}", mend=mend
                ) from None
        raise


def _boxes(entries: Sequence[Any], path: Path) -> Float64[np.ndarray, "N 4"]:
    for i, entry in enumerate(entries):
        if len(_field(entry, "bbox", path, i)) != 4:
            raise DataError(f"got bbox {entry['bbox']}, wanted x, y, width, height", where=f"{path}, entry {i}")
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    bad = ~np.isfinite(boxes).all(1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"got bbox {entries[row]['bbox']}, wanted finite numbers", where=f"{path}, entry {row}")
    return boxes


def _names(categories: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names, with the id behind those that are not unique or missing."""
    names = [str(category.get("name", "category")) for category in categories]
    return tuple(
        name if names.count(name) == 1 and "name" in category else f"{name} {category['id']}"
        for name, category in zip(names, categories, strict=True)
    )
