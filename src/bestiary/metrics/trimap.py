"""IoU near the boundaries of the truth, where label maps go wrong (Kohli, Ladický, Torr, IJCV 2009, section 6; Chen et
al., ICLR 2015, section 5.2).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from bestiary.errors import UsageError
from bestiary.metrics.scores import Scores
from bestiary.metrics.segmentation import (
    confusion_matrix,
    iou_per_class,
    label_map_pairs,
    mean_iou,
    naming_picture,
    require_mergeable,
    require_nameable,
)
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target


def trimap_band(labels: UInt8[np.ndarray, "H W"], width: int | float) -> Bool[np.ndarray, "H W"]:
    """Pixels within `width` of where two labels meet (unknown being a label of its own, since VOC draws its boundaries
    with it): the two pixels that touch are within 1, those behind them within 2, and so on, in straight lines.
    """
    return _squares_from_meeting(labels) <= (width - 1) ** 2


def _squares_from_meeting(labels: UInt8[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    """Squared distance to the nearest pixel that touches one of another label; infinite if there is one label."""
    import cv2

    meets = np.zeros(labels.shape, bool)
    for ours, theirs in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differ = labels[ours] != labels[theirs]
        meets[ours] |= differ
        meets[theirs] |= differ
    if not meets.any():
        return np.full(labels.shape, np.inf)
    away = cv2.distanceTransform((~meets).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Distances are roots of whole numbers: rounding their squares undoes float32.
    return np.rint(away.astype(np.float64) ** 2)


class TrimapScores:
    """Mean IoU of the pixels near true boundaries, for several widths of the band; memory is K x K numbers a width.

    Args:
        categories: names of the K classes.
        widths: of the band on each side, pixels, ascending; the first is the headline.
        ignore_label: true pixels of this label are not scored, but bound the others.

    Raises:
        UsageError: no categories, more than a label map can hold, or widths that are not ascending from 1 on.
    """

    def __init__(
        self,
        categories: Sequence[str],
        widths: Sequence[int | float] = (1, 2, 4, 8, 16, 32),
        ignore_label: int = IGNORE_LABEL,
    ) -> None:
        require_nameable(categories)
        if not widths or widths[0] < 1 or list(widths) != sorted(set(widths)):
            raise UsageError(f"got {list(widths)}, wanted ascending numbers from 1 on", where="widths")
        self.categories, self.widths, self.ignore_label = tuple(categories), tuple(widths), ignore_label
        self.counts: Int64[np.ndarray, "W K K"] = np.zeros((len(widths), len(categories), len(categories)), np.int64)
        self.pictures = 0

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Add pictures; `RecordError` as in `SegmentationScores.update`."""
        for where, truth, predicted in label_map_pairs(predictions, targets, self.pictures):
            squares = _squares_from_meeting(truth)
            for counts, width in zip(self.counts, self.widths, strict=True):
                band = squares <= (width - 1) ** 2
                with naming_picture(where):
                    counts += confusion_matrix(truth[band], predicted[band], len(self.categories), self.ignore_label)
            self.pictures += 1

    def merge(self, other: "TrimapScores") -> None:
        """Add what another accumulator of the same categories and widths has counted."""
        require_mergeable(self, other, ("categories", "widths", "ignore_label"))
        self.counts += other.counts
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """`mean_iou_WIDTH` for every width."""
        names = [f"mean_iou_{width:g}" for width in self.widths]
        values = {name: mean_iou(counts) for name, counts in zip(names, self.counts, strict=True)}
        protocol = (
            f"mean IoU of the pixels within so many pixels of a true boundary, one confusion matrix over "
            f"{self.pictures} pictures; label {self.ignore_label} ignored, but a boundary"
        )
        tables = [iou_per_class(counts) for counts in self.counts]
        per_class = {
            category: {f"iou_{width:g}": float(table[k]) for width, table in zip(self.widths, tables, strict=True)}
            for k, category in enumerate(self.categories)
        }
        return Scores(names[0], values, protocol, per_class, {"pictures": self.pictures})
