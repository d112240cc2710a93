"""Detections and truths of a whole data set as flat arrays, gathered picture by picture: what every detection metric
reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from bestiary.errors import RecordError, UsageError
from bestiary.predictions import Detections
from bestiary.records import Objects, Target, require


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """All detections and truths of I pictures; detections picture by picture, since equal scores rank in that order.

    Boxes are x, y, width, height in float64, as COCO files hold them, so that overlaps are equal to the reference
    tool's.

    Attributes:
        categories: K names.
        n_images: I.
        found_images: picture of each of the D detections. found_labels, found_scores, found_boxes_xywh, found_areas:
            the rest of it.
        truth_images: picture of each of the G truths. truth_labels, truth_boxes_xywh, truth_areas: the rest of it.
        truth_crowd: a group: any number of detections may match it, none counts.
        truth_ignored: crowds and difficult objects: a detection that matches it does not count, and it need not be
            found.

    Raises:
        RecordError: a label is not one of the categories, a score is NaN, or the detections are not in the order of
            pictures.
    """

    categories: tuple[str, ...]
    n_images: int
    found_images: Int64[np.ndarray, " D"]
    found_labels: Int64[np.ndarray, " D"]
    found_scores: Float64[np.ndarray, " D"]
    found_boxes_xywh: Float64[np.ndarray, "D 4"]
    found_areas: Float64[np.ndarray, " D"]
    truth_images: Int64[np.ndarray, " G"]
    truth_labels: Int64[np.ndarray, " G"]
    truth_boxes_xywh: Float64[np.ndarray, "G 4"]
    truth_areas: Float64[np.ndarray, " G"]
    truth_crowd: Bool[np.ndarray, " G"]
    truth_ignored: Bool[np.ndarray, " G"]

    def __post_init__(self) -> None:
        for name, labels in (("predicted", self.found_labels), ("annotated", self.truth_labels)):
            if labels.size:
                worst = int(labels.max()) if labels.min() >= 0 else int(labels.min())
                wanted = f"0 to {len(self.categories) - 1}"
                require(0 <= worst < len(self.categories), f"{name} labels", worst, wanted)
        require(not np.isnan(self.found_scores).any(), "predicted scores", "NaN", "numbers")
        require(bool((np.diff(self.found_images) >= 0).all()), "found_images", "pictures mixed", "ascending numbers")

    @property
    def truth_counts(self) -> Int64[np.ndarray, " K"]:
        """How many truths of each category count."""
        return np.bincount(self.truth_labels[~self.truth_ignored], minlength=len(self.categories)).astype(np.int64)


class DetectionRows:
    """Gathers detections and truths picture by picture in 24 bytes a detection; `table()` hands them out as arrays.

    Args:
        categories: K names; labels index into them.
    """

    def __init__(self, categories: Sequence[str]) -> None:
        self.categories = tuple(categories)
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._truths: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def n_images(self) -> int:
        """Pictures seen so far."""
        return len(self._found)

    def update(self, predictions: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add pictures.

        Raises:
            RecordError: the lengths differ, or a target was not annotated with objects (an empty `Objects` is fine).
        """
        require_pairs(predictions, targets)
        for prediction, target in zip(predictions, targets, strict=True):
            if target.objects is None:
                raise RecordError(
                    "got a target without objects, wanted annotated boxes",
                    where=f"Target.objects of {prediction.name!r}",
                )
            self._found.append(
                (
                    prediction.boxes_xyxy.cpu().numpy().copy(),
                    prediction.labels.cpu().numpy().astype(np.int32),
                    prediction.scores.cpu().numpy().copy(),
                )
            )
            self._truths.append(_truth_arrays(target.objects))

    def merge(self, other: "DetectionRows") -> None:
        """Add the pictures of another store, after this one's (another process's share of the data)."""
        require(other.categories == self.categories, "merge", other.categories, str(self.categories))
        self._found += other._found
        self._truths += other._truths

    def table(self) -> DetectionTable:
        """Everything seen so far.

        Raises:
            UsageError: nothing was seen.
        """
        if not self._found:
            raise UsageError("got no picture, wanted at least one", where="compute()", mend="Call update() first")
        found_xyxy = np.concatenate([boxes for boxes, _, _ in self._found]).astype(np.float64)
        truth_xyxy = np.concatenate([boxes for boxes, *_ in self._truths]).astype(np.float64)
        found_boxes, truth_boxes = _as_xywh(found_xyxy), _as_xywh(truth_xyxy)
        areas = np.concatenate([area for _, _, area, _, _ in self._truths]).astype(np.float64)
        measured = truth_boxes[:, 2] * truth_boxes[:, 3]
        return DetectionTable(
            categories=self.categories,
            n_images=self.n_images,
            found_images=_picture_of_rows([labels for _, labels, _ in self._found]),
            found_labels=np.concatenate([labels for _, labels, _ in self._found]).astype(np.int64),
            found_scores=np.concatenate([scores for _, _, scores in self._found]).astype(np.float64),
            found_boxes_xywh=found_boxes,
            found_areas=found_boxes[:, 2] * found_boxes[:, 3],
            truth_images=_picture_of_rows([labels for _, labels, *_ in self._truths]),
            truth_labels=np.concatenate([labels for _, labels, *_ in self._truths]).astype(np.int64),
            truth_boxes_xywh=truth_boxes,
            truth_areas=np.where(np.isnan(areas), measured, areas),
            truth_crowd=np.concatenate([crowd for _, _, _, crowd, _ in self._truths]),
            truth_ignored=np.concatenate([ignored for *_, ignored in self._truths]),
        )


def require_pairs(predictions: Sequence[object], targets: Sequence[object]) -> None:
    """Raise `RecordError` unless there is one target a prediction."""
    require(
        len(predictions) == len(targets),
        "update",
        f"{len(predictions)} predictions and {len(targets)} targets",
        "as many",
    )


def _truth_arrays(objects: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels, areas (NaN where the box is to be measured), crowd, and ignored of one picture."""
    count = len(objects)
    crowd = np.zeros(count, bool) if objects.crowd is None else objects.crowd.cpu().numpy().copy()
    difficult = np.zeros(count, bool) if objects.difficult is None else objects.difficult.cpu().numpy()
    areas = np.full(count, np.nan, np.float32) if objects.areas is None else objects.areas.cpu().numpy().copy()
    boxes = objects.boxes_xyxy.cpu().numpy().copy()
    return boxes, objects.labels.cpu().numpy().astype(np.int32), areas, crowd, crowd | difficult


def _picture_of_rows(per_picture: Sequence[np.ndarray]) -> Int64[np.ndarray, " N"]:
    """The picture's number of each row when the pictures' rows are laid end to end."""
    return np.repeat(np.arange(len(per_picture)), [len(rows) for rows in per_picture])


def _as_xywh(boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)
