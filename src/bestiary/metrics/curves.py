"""Precision and recall at any threshold, and which threshold to choose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from bestiary.records import require


@dataclass(frozen=True)
class OperatingPoint:
    """What happens when everything that scores at least `threshold` is kept.

    Attributes:
        threshold: lowest score kept.
        precision: share of the kept that are right; NaN if nothing is kept.
        recall: share of the truths that are found; NaN if there is none.
        hits: kept and right.
        false_alarms: kept and wrong.
        missed: truths not found.
    """

    threshold: float
    precision: float
    recall: float
    hits: int
    false_alarms: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 hits / (2 hits + false alarms + missed); NaN if all three are 0."""
        total = 2 * self.hits + self.false_alarms + self.missed
        return 2 * self.hits / total if total else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The fields and F1."""
        return {**vars(self), "f1": self.f1}


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Hits and false alarms at each of the P distinct scores, highest first.

    Attributes:
        thresholds: the distinct scores, descending.
        hits: hits among all that score at least the threshold.
        false_alarms: false alarms among them.
        positives: number of truths.
    """

    thresholds: Float64[np.ndarray, " P"]
    hits: Int64[np.ndarray, " P"]
    false_alarms: Int64[np.ndarray, " P"]
    positives: int

    @classmethod
    def of(cls, scores: Float64[np.ndarray, " N"], right: Bool[np.ndarray, " N"], positives: int) -> "PrecisionRecall":
        """The curve of N judged answers in any order; equal scores are one point, since no threshold can part them.

        Raises:
            RecordError: more answers are right than there are truths.
        """
        require(
            int(right.sum()) <= positives,
            "PrecisionRecall",
            f"{int(right.sum())} right",
            f"at most {positives}, the truths",
        )
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        last_of_equals = (
            np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
        )
        hits = np.cumsum(right[order])[last_of_equals].astype(np.int64)
        return cls(ordered[last_of_equals], hits, last_of_equals.astype(np.int64) + 1 - hits, positives)

    @classmethod
    def pooled(cls, curves: "Sequence[PrecisionRecall]") -> "PrecisionRecall":
        """One curve over several categories: one threshold for all of them."""
        ordered = np.concatenate([np.zeros(0), *(curve.thresholds for curve in curves)])
        order = np.argsort(-ordered, kind="stable")
        ordered = ordered[order]
        last_of_equals = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
        counts = []
        for name in ("hits", "false_alarms"):
            steps = [np.diff(getattr(curve, name), prepend=0).astype(np.int32) for curve in curves]
            merged = np.concatenate([np.zeros(0, np.int32), *steps])[order]
            del steps  # of millions of detections every copy is felt
            counts.append(np.cumsum(merged, dtype=np.int64)[last_of_equals])
        return cls(ordered[last_of_equals], counts[0], counts[1], sum(curve.positives for curve in curves))

    @property
    def precision(self) -> Float64[np.ndarray, " P"]:
        """Precision at each threshold."""
        return self.hits / (self.hits + self.false_alarms)

    @property
    def recall(self) -> Float64[np.ndarray, " P"]:
        """Recall at each threshold; NaN without truths."""
        return self.hits / self.positives if self.positives else np.full(len(self.hits), np.nan)

    @property
    def f1(self) -> Float64[np.ndarray, " P"]:
        """F1 at each threshold."""
        return 2 * self.hits / (self.hits + self.false_alarms + self.positives)

    def at(self, threshold: float) -> OperatingPoint:
        """What happens at `threshold`, a score of the curve or not."""
        kept = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        hits, alarms = (int(self.hits[kept - 1]), int(self.false_alarms[kept - 1])) if kept else (0, 0)
        return OperatingPoint(
            threshold=float(threshold),
            precision=hits / (hits + alarms) if kept else math.nan,
            recall=hits / self.positives if self.positives else math.nan,
            hits=hits,
            false_alarms=alarms,
            missed=self.positives - hits,
        )

    def best_f1(self) -> OperatingPoint | None:
        """The threshold of highest F1, the higher of equals; None if nothing was right."""
        if not len(self.hits) or not self.hits[-1]:
            return None
        return self.at(float(self.thresholds[int(np.argmax(self.f1))]))

    def for_precision(self, wanted: float) -> OperatingPoint | None:
        """The lowest threshold whose precision is at least `wanted`: the most found at that care; None if there is
        none.
        """
        enough = np.flatnonzero((self.precision >= wanted) & (self.hits > 0))
        return self.at(float(self.thresholds[enough[-1]])) if len(enough) else None

    def for_recall(self, wanted: float) -> OperatingPoint | None:
        """The highest threshold whose recall is at least `wanted`: the fewest false alarms at that thoroughness."""
        enough = np.flatnonzero(self.recall >= wanted)
        return self.at(float(self.thresholds[enough[0]])) if len(enough) else None


def advice(curve: PrecisionRecall) -> dict[str, Any]:
    """Operating points worth naming: best F1, and the most found at 90 % and 95 % precision; None where unreachable."""
    points = {
        "best_f1": curve.best_f1(),
        "precision_90": curve.for_precision(0.9),
        "precision_95": curve.for_precision(0.95),
        "recall_90": curve.for_recall(0.9),
    }
    return {name: point.to_dict() if point else None for name, point in points.items()}
