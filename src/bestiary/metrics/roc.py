"""The receiver operating characteristic of pairs that are the same or different, and what is read off it.

Convention: a score says how alike a pair is, higher is liker (negate a distance); a pair is accepted where its score is
at least the threshold. Equal scores are one point of the curve, since no threshold can part them. TAR is the share of
the same pairs that are accepted, FAR that of the different pairs, FRR = 1 - TAR.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from bestiary.errors import UsageError
from bestiary.metrics.curves import PrecisionRecall
from bestiary.records import require


@dataclass(frozen=True)
class AcceptPoint:
    """What happens at a threshold.

    Attributes:
        threshold: lowest score accepted; infinity accepts none.
        tar: true accept rate; NaN without same pairs.
        far: false accept rate; NaN without different pairs.
    """

    threshold: float
    tar: float
    far: float


@dataclass(frozen=True, eq=False)
class Roc:
    """Accepted pairs at each of the P distinct scores, highest first; the point that accepts none is implied.

    Attributes:
        thresholds: descending.
        true_accepts: same pairs that score at least the threshold.
        false_accepts: different pairs that do.
        same: number of same pairs.
        different: number of different pairs.
    """

    thresholds: Float64[np.ndarray, " P"]
    true_accepts: Int64[np.ndarray, " P"]
    false_accepts: Int64[np.ndarray, " P"]
    same: int
    different: int

    @classmethod
    def of(cls, scores: Float[np.ndarray, " N"], same: Bool[np.ndarray, " N"]) -> "Roc":
        """The curve of N pairs in any order.

        Raises:
            RecordError: NaN among the scores.
        """
        require(not bool(np.isnan(scores).any()), "scores", "NaN", "numbers")
        counts = PrecisionRecall.of(scores.astype(np.float64), same, int(same.sum()))
        return cls(counts.thresholds, counts.hits, counts.false_alarms, counts.positives, len(same) - counts.positives)

    @property
    def tar(self) -> Float64[np.ndarray, " Q"]:
        """True accept rate: 0 (none accepted), then at each threshold."""
        return _share(np.append(0, self.true_accepts), self.same)

    @property
    def far(self) -> Float64[np.ndarray, " Q"]:
        """False accept rate, likewise."""
        return _share(np.append(0, self.false_accepts), self.different)

    def auc(self) -> float:
        """Area under TAR over FAR: the chance that a same pair outscores a different one, equal scores counting half.

        NaN unless there are pairs of both kinds.
        """
        if not self.same or not self.different:
            return math.nan
        accepted, steps = np.append(0, self.true_accepts), np.diff(self.false_accepts, prepend=0)
        # In whole numbers up to 2^53, and therefore exact.
        twice = np.dot(steps.astype(np.float64), (accepted[:-1] + accepted[1:]).astype(np.float64))
        return float(twice) / (2 * self.same * self.different)

    def eer(self) -> AcceptPoint:
        """Where FAR meets FRR on the straight lines between the points: its `far` is the equal error rate.

        The threshold is that of the first point at or past the meeting. NaN unless there are pairs of both kinds.
        """
        if not self.same or not self.different:
            return AcceptPoint(math.nan, math.nan, math.nan)
        far = self.far
        # FAR - FRR times both numbers of pairs: whole, so that a meeting at a point is seen as one.
        true, false = (np.append(0.0, counts) for counts in (self.true_accepts, self.false_accepts))
        gap = false * self.same - (self.same - true) * self.different
        after = int(np.argmax(gap >= 0))
        part = -gap[after - 1] / (gap[after] - gap[after - 1])
        rate = float(far[after - 1] + part * (far[after] - far[after - 1]))
        return AcceptPoint(float(self.thresholds[after - 1]), 1 - rate, rate)

    def at_far(self, far: int | float) -> AcceptPoint:
        """The lowest threshold whose FAR is at most `far`, nothing interpolated: the conservative rule.

        NaN where `far` times the different pairs is below 1: so few pairs cannot show so low a rate. Where even the
        highest score lets too many in, none is accepted: TAR 0 at threshold infinity.

        Raises:
            UsageError: not a rate above 0 and at most 1.
        """
        if not 0 < far <= 1:
            raise UsageError(f"got {far}, wanted a rate above 0 and at most 1", where="far")
        # 1e-9 of slack: 0.001 * 3000 may round to 2.9999999999999996, which allows 3.
        allowed = math.floor(far * self.different * (1 + 1e-9))
        if not self.same or allowed < 1:
            return AcceptPoint(math.nan, math.nan, math.nan)
        kept = int(np.searchsorted(self.false_accepts, allowed, side="right"))
        threshold = float(self.thresholds[kept - 1]) if kept else math.inf
        return AcceptPoint(threshold, float(self.tar[kept]), float(self.far[kept]))

    def best_threshold(self) -> tuple[float, float]:
        """The threshold that judges most of these pairs rightly, and that share.

        Midway between the two scores that it parts; the highest of equals; infinite where best is to accept none or
        all. NaN without pairs.
        """
        total = self.same + self.different
        if not total:
            return math.nan, math.nan
        right = np.append(0, self.true_accepts) + self.different - np.append(0, self.false_accepts)
        kept = int(np.argmax(right))
        if kept == 0:
            threshold = math.inf
        elif kept == len(self.thresholds):
            threshold = -math.inf
        else:
            above, below = float(self.thresholds[kept - 1]), float(self.thresholds[kept])
            middle = below + (above - below) / 2
            threshold = middle if middle > below else above
        return threshold, float(right[kept]) / total


def _share(counts: Int64[np.ndarray, " Q"], total: int) -> Float64[np.ndarray, " Q"]:
    return counts / total if total else np.full(len(counts), np.nan)
