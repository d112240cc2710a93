"""How well the outlines of label maps are met, which IoU hardly sees.

BoundaryScores        the boundary F1 of Csurka, Larlus, Perronnin, BMVC 2013: per class and picture, then the mean
boundary_counts       the pure function behind it
davis_boundary_f      the F of one object's outline in the DAVIS benchmark (Perazzi et al., CVPR 2016)

Convention: a pixel is on a class's boundary if it is of the class and one of its four neighbours in the picture is not;
the picture's border is no boundary, nor is contact with pixels whose truth is unknown, in truth and prediction alike.
Distances are Euclidean between pixel centres and compared as whole squares, so that nothing hangs on rounding.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from bestiary.errors import UsageError
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.segmentation import (
    chosen_classes,
    label_map_pairs,
    naming_picture,
    require_mergeable,
    require_nameable,
)
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target, require

TOLERANCE = 0.0075
"""Share of the picture's diagonal within which a boundary is met."""


def boundary_counts(
    truth: UInt8[np.ndarray, "H W"],
    predicted: UInt8[np.ndarray, "h w"],
    num_classes: int,
    tolerance: int | float = TOLERANCE,
    ignore_label: int = IGNORE_LABEL,
) -> Int64[np.ndarray, "K 4"]:
    """Of each class: predicted boundary pixels near the truth's, all predicted ones, true ones near the prediction's,
    all true ones. Near is closer than (not at) the tolerance, as in the paper.

    Args:
        truth, predicted: label maps of one picture.
        num_classes: K; labels from there on are an error but where the truth is unknown.
        tolerance: below 1 a share of the picture's diagonal, from 1 on pixels.
        ignore_label: truth that is unknown.

    Raises:
        RecordError: sizes differ, a label is no class, or the tolerance is not positive.
    """
    from bestiary.metrics._kernels import boundaries

    require(truth.shape == predicted.shape, "predicted", f"size {predicted.shape}", f"the truth's, {truth.shape}")
    require(tolerance > 0, "tolerance", tolerance, "more than 0")
    known = truth != ignore_label
    for name, labels in (("truth", truth), ("prediction", predicted)):
        top = int(labels[known].max(initial=0))
        require(top < num_classes, "label_map", f"label {top} in the {name}", f"0..{num_classes - 1}")
    edges = np.empty((2, *truth.shape), np.int16)
    for labels, edge in ((truth, edges[0]), (predicted, edges[1])):
        boundaries.inner_boundary(np.ascontiguousarray(labels), known, edge)
    reach = tolerance * math.hypot(*truth.shape) if tolerance < 1 else float(tolerance)
    # Closer than the reach: squares up to the largest whole number below its square.
    offsets = _disc(math.ceil(reach * reach) - 1)
    counts = np.zeros((4, num_classes), np.int64)
    boundaries.near_counts(edges[1], edges[0], offsets, counts[0], counts[1])
    boundaries.near_counts(edges[0], edges[1], offsets, counts[2], counts[3])
    return counts.T


@lru_cache(maxsize=8)
def _disc(square: int) -> Int64[np.ndarray, "D 2"]:
    """Offsets dy, dx of squared length up to `square`, nearest first."""
    side = math.isqrt(max(0, square))
    grid = np.stack(np.meshgrid(*[np.arange(-side, side + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    lengths = (grid**2).sum(1)
    order = np.argsort(lengths, kind="stable")
    return np.ascontiguousarray(grid[order[lengths[order] <= max(0, square)]], np.int64)


def boundary_f(counts: Int64[np.ndarray, "K 4"]) -> Float64[np.ndarray, "K 3"]:
    """Precision, recall and F1 = 2 P R / (P + R) of each class from `boundary_counts`.

    NaN where neither map has a boundary of the class; F1 is 0 where only one has.
    """
    said_near, said, true_near, true = counts.astype(np.float64).T
    nan = np.full(len(counts), np.nan)
    precision = np.divide(said_near, said, out=nan.copy(), where=said > 0)
    recall = np.divide(true_near, true, out=nan.copy(), where=true > 0)
    p, r = np.nan_to_num(precision), np.nan_to_num(recall)
    f1 = np.divide(2 * p * r, p + r, out=np.zeros(len(counts)), where=p + r > 0)
    return np.stack([precision, recall, np.where((said > 0) | (true > 0), f1, np.nan)], 1)


class BoundaryScores:
    """Boundary F1, gathered picture by picture; memory is a few numbers a class.

    A picture's number is the mean over the classes that have a boundary in its truth or prediction; the headline is
    the mean over pictures, as the paper takes it. A class's own number is the mean over its pictures, and
    `boundary_f_classes` the mean of those.

    Args:
        categories: names of the K classes.
        tolerance: below 1 a share of the picture's diagonal, from 1 on pixels.
        ignore_label: true pixels of this label are not scored.
        averaged: the categories that the means run over; all if None.

    Raises:
        UsageError: no categories, more than a label map can hold, or an unknown one to be averaged.
    """

    def __init__(
        self,
        categories: Sequence[str],
        tolerance: int | float = TOLERANCE,
        ignore_label: int = IGNORE_LABEL,
        averaged: Sequence[str] | None = None,
    ) -> None:
        require_nameable(categories)
        if tolerance <= 0:
            raise UsageError(f"got {tolerance}, wanted more than 0", where="tolerance")
        self.categories = tuple(categories)
        self.tolerance, self.ignore_label = tolerance, ignore_label
        self.averaged = None if averaged is None else tuple(averaged)
        self._among = chosen_classes(self.categories, self.averaged)
        self._sums: Float64[np.ndarray, "K 3"] = np.zeros((len(categories), 3))
        self._seen: Int64[np.ndarray, "K 3"] = np.zeros((len(categories), 3), np.int64)
        self._picture_sum, self._measured, self.pictures = 0.0, 0, 0

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Add pictures.

        Raises:
            RecordError: numbers or sizes differ, a target has no label map, or a label is no class.
        """
        for where, truth, predicted in label_map_pairs(predictions, targets, self.pictures):
            with naming_picture(where):
                counts = boundary_counts(truth, predicted, len(self.categories), self.tolerance, self.ignore_label)
            numbers = boundary_f(counts)
            measured = ~np.isnan(numbers)
            self._sums += np.where(measured, numbers, 0)
            self._seen += measured
            mean = mean_of_measured(numbers[self._among, 2])
            if not math.isnan(mean):
                self._picture_sum += mean
                self._measured += 1
            self.pictures += 1

    def merge(self, other: "BoundaryScores") -> None:
        """Add what another accumulator of the same categories and rules has seen.

        Raises:
            UsageError: categories or rules differ.
        """
        require_mergeable(self, other, ("categories", "tolerance", "ignore_label", "averaged"))
        self._sums += other._sums
        self._seen += other._seen
        self._picture_sum += other._picture_sum
        self._measured += other._measured
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """`boundary_f` leads; NaN where no picture has a boundary."""
        means = np.divide(self._sums, self._seen, out=np.full_like(self._sums, np.nan), where=self._seen > 0)
        values = {
            "boundary_f": self._picture_sum / self._measured if self._measured else math.nan,
            "boundary_f_classes": mean_of_measured(means[self._among, 2]),
            "boundary_precision": mean_of_measured(means[self._among, 0]),
            "boundary_recall": mean_of_measured(means[self._among, 1]),
        }
        near = f"{100 * self.tolerance:g} % of the diagonal" if self.tolerance < 1 else f"{self.tolerance:g} pixels"
        protocol = (
            f"boundary F1 (Csurka et al. 2013) closer than {near}; mean over the classes of each picture, then over "
            f"{self._measured} pictures; label {self.ignore_label} ignored"
        )
        names = ("boundary_f", "boundary_precision", "boundary_recall")
        per_class = {
            category: {name: float(means[k, column]) for name, column in zip(names, (2, 0, 1), strict=True)}
            for k, category in enumerate(self.categories)
        }
        return Scores("boundary_f", values, protocol, per_class, {"pictures": self.pictures})


def davis_boundary_f(
    truth: Bool[np.ndarray, "H W"], predicted: Bool[np.ndarray, "h w"], tolerance: int | float = 0.008
) -> float:
    """F of one object's outline as the DAVIS benchmark takes it.

    Convention: a pixel is on the outline if it differs from its right, lower or lower right neighbour (only those
    inside the picture). Met means at most r away, r being the share of the diagonal rounded up to whole pixels, or, for
    a tolerance from 1 on, that many pixels. Two objects without outline agree (1); one against none is 0.

    Raises:
        RecordError: sizes differ.
    """
    from bestiary.metrics._kernels import boundaries

    require(truth.shape == predicted.shape, "predicted", f"size {predicted.shape}", f"the truth's, {truth.shape}")
    reach = math.ceil(tolerance * math.hypot(*truth.shape)) if tolerance < 1 else math.ceil(tolerance)
    outlines = [np.where(_outline(mask), np.int16(0), np.int16(-1)) for mask in (predicted, truth)]
    counts = np.zeros((4, 1), np.int64)
    boundaries.near_counts(outlines[0], outlines[1], _disc(reach * reach), counts[0], counts[1])
    boundaries.near_counts(outlines[1], outlines[0], _disc(reach * reach), counts[2], counts[3])
    said_near, said, true_near, true = counts[:, 0].tolist()
    if not said and not true:
        return 1.0
    precision, recall = said_near / max(1, said), true_near / max(1, true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    outline = np.zeros_like(mask)
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    outline[:-1] |= mask[:-1] != mask[1:]
    outline[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return outline
