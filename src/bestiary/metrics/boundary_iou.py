"""IoU of the bands along outlines: Cheng, Girshick, Dollár, Berg, Kirillov: Boundary IoU, CVPR 2021, section 4.

The band of a class are its pixels within d of a pixel that is not of it, in steps to any of eight neighbours, what lies
outside the picture being none; d is 2 % of the diagonal, rounded, 1 at least. The paper takes the measure of one object
at a time; of label maps the bands are added up over all pictures before they are divided, as IoU's regions are. Pixels
whose truth is unknown are in no band, and touching them makes none, in truth and prediction alike.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8

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

SHARE = 0.02
"""Width of the band as a share of the picture's diagonal."""


def boundary_band(
    labels: UInt8[np.ndarray, "H W"], known: Bool[np.ndarray, "H W"], share: int | float = SHARE
) -> Bool[np.ndarray, "H W"]:
    """Pixels in the band of their own class.

    Args:
        labels: class of each pixel.
        known: where that counts.
        share: of the diagonal that the band is wide.
    """
    import cv2

    height, width = labels.shape
    reach = max(1, round(share * math.hypot(height, width)))
    if 2 * reach >= min(height, width):
        return known.copy()
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # A window of one class has equal extremes; what is unknown is neither.
    least = cv2.erode(np.where(known, labels, np.uint8(255)), window)
    most = cv2.dilate(np.where(known, labels, np.uint8(0)), window)
    band = least != most
    for edge in (np.s_[:reach], np.s_[-reach:], np.s_[:, :reach], np.s_[:, -reach:]):
        band[edge] = True
    return band & known


def boundary_iou_counts(
    truth: UInt8[np.ndarray, "H W"],
    predicted: UInt8[np.ndarray, "h w"],
    num_classes: int,
    share: int | float = SHARE,
    ignore_label: int = IGNORE_LABEL,
) -> Int64[np.ndarray, "K 2"]:
    """Of each class, how many pixels the bands of truth and prediction have in common, and how many together.

    Raises:
        RecordError: sizes differ, or a label is no class.
    """
    require(truth.shape == predicted.shape, "predicted", f"size {predicted.shape}", f"the truth's, {truth.shape}")
    known = truth != ignore_label
    for name, labels in (("truth", truth), ("prediction", predicted)):
        top = int(labels[known].max(initial=0))
        require(top < num_classes, "label_map", f"label {top} in the {name}", f"0..{num_classes - 1}")
    bands = [boundary_band(labels, known, share) for labels in (truth, predicted)]
    true, said, common = (
        np.bincount(labels[band], minlength=num_classes)
        for labels, band in (
            (truth, bands[0]),
            (predicted, bands[1]),
            (truth, bands[0] & bands[1] & (truth == predicted)),
        )
    )
    return np.stack([common, true + said - common], 1).astype(np.int64)


class BoundaryIouScores:
    """Adds up bands picture by picture; memory is two numbers a class.

    Args:
        categories: names of the K classes.
        share: of the picture's diagonal that a band is wide.
        ignore_label: true pixels of this label are not scored.
        averaged: the categories that the mean runs over; all if None.

    Raises:
        UsageError: no categories, more than a label map can hold, an unknown one to be averaged, or a share that is
            none.
    """

    def __init__(
        self,
        categories: Sequence[str],
        share: int | float = SHARE,
        ignore_label: int = IGNORE_LABEL,
        averaged: Sequence[str] | None = None,
    ) -> None:
        require_nameable(categories)
        if not 0 < share < 1:
            raise UsageError(f"got {share}, wanted more than 0 and less than 1", where="share")
        self.categories, self.share, self.ignore_label = tuple(categories), share, ignore_label
        self.averaged = None if averaged is None else tuple(averaged)
        self._among = chosen_classes(self.categories, self.averaged)
        self.counts: Int64[np.ndarray, "K 2"] = np.zeros((len(categories), 2), np.int64)
        self.pictures = 0

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Add pictures; `RecordError` as in `SegmentationScores.update`."""
        for where, truth, predicted in label_map_pairs(predictions, targets, self.pictures):
            with naming_picture(where):
                self.counts += boundary_iou_counts(
                    truth, predicted, len(self.categories), self.share, self.ignore_label
                )
            self.pictures += 1

    def merge(self, other: "BoundaryIouScores") -> None:
        """Add what another accumulator of the same categories and rules has counted."""
        require_mergeable(self, other, ("categories", "share", "ignore_label", "averaged"))
        self.counts += other.counts
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """`boundary_iou`, the mean over the classes; NaN where there is none."""
        common, together = self.counts.T
        nan = np.full(len(common), np.nan)
        table = np.divide(common, together, out=nan, where=together > 0)
        protocol = (
            f"Boundary IoU (Cheng et al. 2021), bands of {100 * self.share:g} % of the diagonal, over {self.pictures} "
            f"pictures; label {self.ignore_label} ignored"
        )
        per_class = {name: {"boundary_iou": float(table[k])} for k, name in enumerate(self.categories)}
        values = {"boundary_iou": mean_of_measured(table[self._among])}
        return Scores("boundary_iou", values, protocol, per_class, {"pictures": self.pictures})
