"""Average precision where not every picture was searched for every category (Gupta et al., "LVIS", CVPR 2019).

A picture's truth says of some categories that they are there (they are annotated), of some that they are not
(`neg_category_ids`), and of some that not every one was annotated (`not_exhaustive_category_ids`). Detections of
categories that were neither found nor denied say nothing and are left out; unmatched ones of a category that is not
exhaustive do not count. Detections are limited over all categories of a picture, not within each, and there are no
crowds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64

from bestiary.errors import DataError, UsageError
from bestiary.metrics.coco import IOU_THRESHOLDS, AveragePrecision, average_precision
from bestiary.metrics.coco_entries import Entries, mapped
from bestiary.metrics.coco_files import TruthFile, read_results, read_truth, results_of, table_of
from bestiary.metrics.json_files import field_of
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.table import DetectionTable

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""Groups of categories by the number of training pictures: up to 10, up to 100, more."""

LIMIT = 300
"""Detections of a picture, all categories together, the best, that count."""


@dataclass(frozen=True, eq=False)
class Federation:
    """What the annotators of I pictures and K categories looked for.

    Attributes:
        denied: the category was looked for, and is not there.
        incomplete: it is there, but not each was annotated.
        frequencies: r, c or f of each category.
    """

    denied: Bool[np.ndarray, "I K"]
    incomplete: Bool[np.ndarray, "I K"]
    frequencies: tuple[str, ...]


def best_of_pictures(table: DetectionTable, limit: int = LIMIT) -> DetectionTable:
    """The table with the best `limit` detections of each picture, categories mixed; of equals the earlier stay."""
    order = np.lexsort((-table.found_scores, table.found_images))
    starts = np.searchsorted(table.found_images, np.arange(table.n_images))
    ranks = np.arange(len(order)) - starts[table.found_images]
    return table.keep_found(np.sort(order[ranks < limit]))


def federated(table: DetectionTable, federation: Federation) -> DetectionTable:
    """The table without detections that nobody can judge, and with those forgiven that may be right."""
    looked_for = federation.denied.copy()
    looked_for[table.truth_images, table.truth_labels] = True
    kept = table.keep_found(np.flatnonzero(looked_for[table.found_images, table.found_labels]))
    nobody = np.zeros(len(table.truth_crowd), bool)
    return replace(
        kept,
        found_forgiven=federation.incomplete[kept.found_images, kept.found_labels],
        truth_crowd=nobody,
        truth_ignored=nobody,
    )


def lvis_scores(table: DetectionTable, federation: Federation, limit: int = LIMIT) -> Scores:
    """LVIS's numbers: AP, AP50, AP75, by size, by frequency (APr, APc, APf), and highest recall.

    Args:
        limit: detections of a picture, all categories together.

    Raises:
        UsageError: a limit below 1.
    """
    if limit < 1:
        raise UsageError(f"got {limit}, wanted at least 1", where="max_detections")
    judged = federated(best_of_pictures(table, limit), federation)
    result = average_precision(judged, IOU_THRESHOLDS, [limit])
    sizes = [area for area, _ in result.settings if area != "all"]
    values = {"AP": result.ap(), "AP50": result.ap(iou=0.5), "AP75": result.ap(iou=0.75)}
    values |= {f"AP_{size}": result.ap(size) for size in sizes}
    groups = np.array(federation.frequencies)
    values |= {f"AP{group}": mean_of_measured(result.precision[:, :, groups == group, 0]) for group in FREQUENCIES}
    values[f"AR{limit}"] = result.ar("all", limit)
    values |= {f"AR_{size}": result.ar(size, limit) for size in sizes}
    protocol = (
        f"LVIS {table.kind}, AP at IoU 0.50:0.95, 101 recalls, at most {limit} detections of a picture; categories "
        "that a picture was not searched for are left out, and those not annotated exhaustively forgiven"
    )
    details = {"task": "detection", "pictures": table.n_images, "detections": int(judged.found_scores.size)}
    return Scores("AP", values, protocol, _per_class(result, table.categories), details)


def lvis_from_files(
    truth: str | Path, results: str | Path, kind: Literal["boxes", "masks"] = "boxes", limit: int = LIMIT
) -> Scores:
    """LVIS's numbers from an annotation file and a file of results, both JSON.

    Raises:
        DataError: a file is missing or broken; results name pictures or categories that the annotations do not have;
            pictures lack the lists of categories, or categories their `frequency`.
    """
    return _scores_of(Path(truth), read_results(Path(results), kind), kind, limit)


def lvis_from_entries(
    truth: str | Path,
    entries: Sequence[Mapping[str, Any]],
    kind: Literal["boxes", "masks"] = "boxes",
    limit: int = LIMIT,
    where: str | Path = "results",
) -> Scores:
    """LVIS's numbers of results that stand in no file of COCO's; errors as in `lvis_from_files`.

    Args:
        truth: an annotation file.
        entries: as `Detections.to_coco` gives them, in the annotation file's ids.
        kind: what is compared.
        limit: detections of a picture, all categories together.
        where: what the entries come from, for messages.
    """
    return _scores_of(Path(truth), results_of(entries, Path(where), kind), kind, limit)


def is_federated(truth: Path) -> bool:
    """Whether an annotation file says what its pictures were searched for."""
    with mapped(truth) as content:
        return content is not None and content.find(b'"neg_category_ids"') >= 0


def _scores_of(truth: Path, found: Entries, kind: Literal["boxes", "masks"], limit: int) -> Scores:
    annotated = read_truth(truth, kind, keep_images=True)
    return lvis_scores(table_of(annotated, found, kind), _federation(annotated, truth), limit)


def _per_class(result: AveragePrecision, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = {}
    for label, category in enumerate(categories):
        precision = result.precision[:, :, label, 0]
        rows[category] = {
            "AP": mean_of_measured(precision),
            "AP50": mean_of_measured(precision[0]),
            "count": float(result.counted[label]),
        }
    return rows


def _federation(truth: TruthFile, path: Path) -> Federation:
    labels = {category_id: label for label, category_id in enumerate(truth.category_ids.tolist())}
    rows = {image_id: row for row, image_id in enumerate(truth.image_ids.tolist())}
    shape = (len(rows), len(labels))
    denied, incomplete = np.zeros(shape, bool), np.zeros(shape, bool)
    for i, image in enumerate(truth.images or []):
        where = f"{path}, image {i}"
        row = rows[field_of(image, "id", where)]
        denied[row, _labels(image, "neg_category_ids", labels, where)] = True
        incomplete[row, _labels(image, "not_exhaustive_category_ids", labels, where)] = True
    frequencies = []
    for i, category in enumerate(truth.categories):
        frequency = field_of(category, "frequency", f"{path}, category {i}")
        if frequency not in FREQUENCIES:
            raise DataError(f"got frequency {frequency!r}, wanted r, c or f", where=f"{path}, category {i}")
        frequencies.append(frequency)
    return Federation(denied, incomplete, tuple(frequencies))


def _labels(image: Mapping[str, Any], name: str, labels: Mapping[Any, int], where: str) -> Int64[np.ndarray, " N"]:
    given = field_of(image, name, where)
    unknown = [] if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    unknown = unknown or [value for value in given if not isinstance(value, int | str) or value not in labels]
    if unknown:
        raise DataError(f"got {name} with {unknown[0]!r}, wanted ids of categories", where=where)
    return np.array([labels[value] for value in given], np.int64)
