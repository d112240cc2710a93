"""Scores of label maps, all of them functions of one confusion matrix `counts[truth, predicted]` over the whole data
set.

Long, Shelhamer, Darrell, CVPR 2015, section 5: with n_ij the pixels of class i said to be j, t_i = sum_j n_ij and
p_i = sum_j n_ji, pixel accuracy is `sum n_ii / sum t_i`, mean accuracy the mean of `n_ii / t_i`, IoU
`n_ii / (t_i + p_i - n_ii)`, and frequency weighted IoU `sum t_i IoU_i / sum t_i`. Never averaged over pictures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.scores import Scores
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target

Absent = Literal["skip", "zero"]
"""What a class without any pixel counts in a mean: nothing, or 0 (SegNet's evaluation divides by all classes)."""


def confusion_matrix(
    truth: UInt8[np.ndarray, "*S"],
    predicted: UInt8[np.ndarray, "*S"],
    num_classes: int,
    ignore_label: int = IGNORE_LABEL,
) -> Int64[np.ndarray, "K K"]:
    """Pixels of each (true, predicted) class; pixels whose truth is `ignore_label` count nowhere.

    Raises:
        RecordError: a label that is no class. (A prediction may say anything where the truth is to be ignored.)
    """
    # both labels fit one 16-bit number: one histogram, no mask, and whatever is no class shows in it
    pairs = (truth.astype(np.uint16) << 8) | predicted
    counts = np.bincount(pairs.ravel(), minlength=65536).reshape(256, 256)
    if 0 <= ignore_label < 256:
        counts[ignore_label] = 0
    inside = counts[:num_classes, :num_classes]
    if inside.sum() != counts.sum():
        counts[:num_classes, :num_classes] = 0
        row, column = (int(i) for i in np.argwhere(counts)[0])
        name, label = ("truth", row) if row >= num_classes else ("prediction", column)
        wanted = f"0..{num_classes - 1}" + (f" or {ignore_label}" if name == "truth" else "")
        raise RecordError(f"got label {label} in the {name}, wanted {wanted}", where="label_map")
    return inside.astype(np.int64)


def pixel_accuracy(counts: Int64[np.ndarray, "K K"]) -> float:
    """Share of the labelled pixels that are right; NaN if there are none."""
    return _ratio(float(np.diag(counts).sum()), int(counts.sum()))


def accuracy_per_class(counts: Int64[np.ndarray, "K K"]) -> Float64[np.ndarray, " K"]:
    """Share of each class's pixels that are right (recall); NaN for a class without a true pixel."""
    return divide(np.diag(counts), counts.sum(1))


def precision_per_class(counts: Int64[np.ndarray, "K K"]) -> Float64[np.ndarray, " K"]:
    """Share of the pixels said to be of a class that are; NaN for a class never predicted."""
    return divide(np.diag(counts), counts.sum(0))


def iou_per_class(counts: Int64[np.ndarray, "K K"]) -> Float64[np.ndarray, " K"]:
    """Intersection over union; NaN for a class neither true nor predicted anywhere."""
    return divide(np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts))


def dice_per_class(counts: Int64[np.ndarray, "K K"]) -> Float64[np.ndarray, " K"]:
    """Dice coefficient, which is F1: `2 n_ii / (t_i + p_i)` = `2 IoU / (1 + IoU)`; NaN where IoU is."""
    return divide(2 * np.diag(counts), counts.sum(0) + counts.sum(1))


def mean_pixel_accuracy(counts: Int64[np.ndarray, "K K"], absent: Absent = "skip") -> float:
    """Mean of `accuracy_per_class`."""
    return mean_over_classes(accuracy_per_class(counts), absent)


def mean_iou(counts: Int64[np.ndarray, "K K"], absent: Absent = "skip") -> float:
    """Mean of `iou_per_class`."""
    return mean_over_classes(iou_per_class(counts), absent)


def mean_dice(counts: Int64[np.ndarray, "K K"], absent: Absent = "skip") -> float:
    """Mean of `dice_per_class`."""
    return mean_over_classes(dice_per_class(counts), absent)


def frequency_weighted_iou(counts: Int64[np.ndarray, "K K"]) -> float:
    """IoU weighted by how many true pixels each class has; NaN if there are none."""
    true = counts.sum(1)
    present = true > 0
    return _ratio(float((true[present] * iou_per_class(counts)[present]).sum()), int(true.sum()))


class SegmentationScores:
    """Adds up label maps picture by picture; memory is K x K numbers, whatever the data set.

    Args:
        categories: names of the K classes.
        ignore_label: true pixels of this label are not scored.
        absent: what classes that occur nowhere count in the means.
        averaged: the categories that the means over classes run over; all if None. Pixels of the others still count.

    Raises:
        UsageError: no categories, more than a label map can hold, or an unknown one to be averaged.
    """

    def __init__(
        self,
        categories: Sequence[str],
        ignore_label: int = IGNORE_LABEL,
        absent: Absent = "skip",
        averaged: Sequence[str] | None = None,
    ) -> None:
        require_nameable(categories)
        self.categories = tuple(categories)
        self.ignore_label = ignore_label
        self.absent: Absent = absent
        self.averaged = None if averaged is None else tuple(averaged)
        self._among = chosen_classes(self.categories, self.averaged)
        self.counts: Int64[np.ndarray, "K K"] = np.zeros((len(categories), len(categories)), dtype=np.int64)
        self.pictures = 0
        self.pictures_with: Int64[np.ndarray, " K"] = np.zeros(len(categories), dtype=np.int64)

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Count pictures.

        Raises:
            RecordError: numbers or sizes differ, a target has no label map, or a label is no class.
        """
        for where, truth, predicted in label_map_pairs(predictions, targets, self.pictures):
            with naming_picture(where):
                counts = confusion_matrix(truth, predicted, len(self.categories), self.ignore_label)
            self.counts += counts
            self.pictures_with += counts.any(1)
            self.pictures += 1

    def merge(self, other: "SegmentationScores") -> None:
        """Add what another accumulator of the same categories and rules has counted.

        Raises:
            UsageError: categories or rules differ.
        """
        require_mergeable(self, other, ("categories", "ignore_label", "absent", "averaged"))
        self.counts += other.counts
        self.pictures_with += other.pictures_with
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """All scores; the headline is mean IoU. Scores of nothing at all are NaN."""
        counts = self.counts
        tables = {
            "iou": iou_per_class(counts),
            "dice": dice_per_class(counts),
            "pixel_accuracy": accuracy_per_class(counts),
            "precision": precision_per_class(counts),
        }
        values = {
            "mean_iou": mean_over_classes(tables["iou"][self._among], self.absent),
            "pixel_accuracy": pixel_accuracy(counts),
            "mean_pixel_accuracy": mean_over_classes(tables["pixel_accuracy"][self._among], self.absent),
            "frequency_weighted_iou": frequency_weighted_iou(counts),
            "mean_dice": mean_over_classes(tables["dice"][self._among], self.absent),
        }
        left_out = "left out of" if self.absent == "skip" else "0 in"
        protocol = (
            f"one confusion matrix over {self.pictures} pictures; label {self.ignore_label} ignored; "
            f"classes that occur nowhere are {left_out} the means"
        )
        if self.averaged is not None:
            protocol += f"; means over {len(self.averaged)} of {len(self.categories)} classes"
        per_class = {
            category: {name: float(table[k]) for name, table in tables.items()}
            for k, category in enumerate(self.categories)
        }
        details = {
            "confusion": counts.tolist(),
            "pictures": self.pictures,
            "pictures_with": self.pictures_with.tolist(),
            "pixels": int(counts.sum()),
        }
        return Scores("mean_iou", values, protocol=protocol, per_class=per_class, details=details)


def label_map_pairs(
    predictions: Sequence[Segmentation], targets: Sequence[Target], seen: int = 0
) -> Iterator[tuple[str, UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]]:
    """What each picture is called (its number, counted on from `seen`, if it has no name), its true and its predicted
    label map.

    Raises:
        RecordError: numbers or sizes differ, or a target has no label map.
    """
    if len(predictions) != len(targets):
        raise RecordError(f"got {len(predictions)} predictions and {len(targets)} targets", where="update")
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        where = prediction.name or f"picture {seen + i}"
        if target.label_map is None:
            raise RecordError(
                "got a target without label_map", where=where, mend="Leave out pictures that have no label map."
            )
        if target.label_map.shape != prediction.label_map.shape:
            sizes = f"{tuple(prediction.label_map.shape)} predicted and {tuple(target.label_map.shape)} true"
            raise RecordError(f"got label maps of {sizes}, wanted equal sizes", where=where)
        yield where, _array(target.label_map), _array(prediction.label_map)


@contextmanager
def naming_picture(where: str) -> Iterator[None]:
    """A label map that is refused in here is refused by the name of its picture."""
    try:
        yield
    except RecordError as error:
        raise RecordError(error.message, where=f"{where}, label_map") from error


def require_nameable(categories: Sequence[str]) -> None:
    """Raise `UsageError` unless a label map can hold the categories."""
    if not 1 <= len(categories) <= 255:
        raise UsageError(f"got {len(categories)} categories, wanted 1 to 255", where="categories")


def require_mergeable(mine: Any, other: Any, names: Sequence[str]) -> None:
    """Raise `UsageError` unless two accumulators have equal attributes of these names."""
    for name in names:
        got, wanted = getattr(other, name), getattr(mine, name)
        if got != wanted:
            raise UsageError(f"got {got}, wanted {wanted}", where=f"merge(other).{name}")


def chosen_classes(categories: Sequence[str], averaged: Sequence[str] | None) -> Int64[np.ndarray, " M"]:
    """Labels of the categories that a mean runs over.

    Raises:
        UsageError: a name that is no category, or none.
    """
    chosen = categories if averaged is None else averaged
    unknown = [name for name in chosen if name not in categories]
    if unknown or not chosen:
        got = repr(unknown[0]) if unknown else "no category"
        raise UsageError(f"got {got}, wanted some of {', '.join(categories)}", where="averaged")
    return np.array([list(categories).index(name) for name in chosen], np.int64)


def divide(numerators: Int64[np.ndarray, " K"], denominators: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """Quotients, NaN where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.full(len(denominators), np.nan), where=denominators != 0)


def _ratio(numerator: float, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def mean_over_classes(values: Float64[np.ndarray, " K"], absent: Absent) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan")
    return float(known.sum() / (len(values) if absent == "zero" else len(known)))


def _array(label_map: Tensor) -> UInt8[np.ndarray, "H W"]:
    return label_map.detach().cpu().numpy()
