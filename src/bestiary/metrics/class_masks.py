"""Scores of classes that may overlap: each is a binary labelling of its own.

With tp, fp and fn the pixels of a class over the whole data set, IoU is `tp / (tp + fp + fn)` and Dice, which is F1,
`2 tp / (2 tp + fp + fn)`. Never averaged over pictures.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from bestiary.errors import RecordError
from bestiary.metrics.scores import Scores
from bestiary.metrics.segmentation import (
    Absent,
    chosen_classes,
    divide,
    mean_over_classes,
    require_mergeable,
    require_nameable,
)
from bestiary.predictions import Segmentation
from bestiary.records import Target


class ClassMaskScores:
    """Adds up class masks picture by picture; memory is three numbers a class, whatever the data set.

    Args:
        categories: names of the K classes.
        absent: what classes that occur nowhere count in the means.
        averaged: the categories that the means over classes run over; all if None.

    Raises:
        UsageError: no categories, more than a label map can hold, or an unknown one to be averaged.
    """

    def __init__(
        self, categories: Sequence[str], absent: Absent = "skip", averaged: Sequence[str] | None = None
    ) -> None:
        require_nameable(categories)
        self.categories = tuple(categories)
        self.absent: Absent = absent
        self.averaged = None if averaged is None else tuple(averaged)
        self._among = chosen_classes(self.categories, self.averaged)
        self.counts: Int64[np.ndarray, "3 K"] = np.zeros((3, len(categories)), dtype=np.int64)
        self.pictures = 0

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Count pictures.

        Raises:
            RecordError: numbers or sizes differ, a prediction has no class masks, or a target nothing to judge it by.
        """
        if len(predictions) != len(targets):
            raise RecordError(f"got {len(predictions)} predictions and {len(targets)} targets", where="update")
        for prediction, target in zip(predictions, targets, strict=True):
            where = prediction.name or f"picture {self.pictures}"
            if prediction.class_masks is None:
                mend = "Train the model with multi_label"
                raise RecordError("got a prediction without class masks", where=where, mend=mend)
            truth, known = target.to("cpu").class_masks(len(self.categories))
            said = prediction.class_masks.cpu()
            if said.shape != truth.shape:
                sizes = f"{tuple(said.shape)} predicted and {tuple(truth.shape)} true"
                raise RecordError(f"got class masks of {sizes}, wanted equal ones", where=where)
            said, truth = said & known, truth & known
            both = (said & truth).sum((1, 2))
            rows = (both, said.sum((1, 2)) - both, truth.sum((1, 2)) - both)
            self.counts += np.stack([row.numpy() for row in rows])
            self.pictures += 1

    def merge(self, other: "ClassMaskScores") -> None:
        """Add what another accumulator of the same categories and rules has counted.

        Raises:
            UsageError: categories or rules differ.
        """
        require_mergeable(self, other, ("categories", "absent", "averaged"))
        self.counts += other.counts
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """All scores; the headline is mean IoU. Scores of nothing at all are NaN."""
        hits, alarms, missed = self.counts
        tables = {
            "iou": divide(hits, hits + alarms + missed),
            "dice": divide(2 * hits, 2 * hits + alarms + missed),
            "recall": divide(hits, hits + missed),
            "precision": divide(hits, hits + alarms),
        }
        values = {f"mean_{name}": mean_over_classes(table[self._among], self.absent) for name, table in tables.items()}
        left_out = "left out of" if self.absent == "skip" else "0 in"
        protocol = (
            f"one count of pixels a class over {self.pictures} pictures, classes may overlap; classes that occur "
            f"nowhere are {left_out} the means"
        )
        if self.averaged is not None:
            protocol += f"; means over {len(self.averaged)} of {len(self.categories)} classes"
        per_class = {
            category: {name: float(table[k]) for name, table in tables.items()}
            for k, category in enumerate(self.categories)
        }
        details = {"hits_alarms_missed": self.counts.tolist(), "pictures": self.pictures}
        return Scores("mean_iou", values, protocol=protocol, per_class=per_class, details=details)
