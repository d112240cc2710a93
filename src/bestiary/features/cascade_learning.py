"""One stage of a cascade: boosted until it rejects enough of what is no object, while it keeps nearly all objects
(Viola, Jones, CVPR 2001, table 2).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32

from bestiary.errors import UsageError
from bestiary.features.boosting import AdaBoost, Stump
from bestiary.features.cascade import Cascade
from bestiary.features.haar import enumerate_haar, haar_values

ASIDE = 4
"""Every fourth example stands aside: thresholds and rates are taken of those that no stump was chosen by."""

FEWEST_ASIDE = 25
"""With fewer objects aside than this the rate of detection is taken of all objects."""


@dataclass(frozen=True)
class StageGoals:
    """What a stage is to reach.

    Attributes:
        stages: most.
        detection_rate: least share of the objects that a stage passes.
        false_rate: largest share of the other windows that it passes, unless `most_features` are not enough.
        most_features: of a stage.
        pool: features, drawn anew for each stage, that its stumps are chosen from; None for all of the window's.
        negatives: windows of no object, which the stages before took for objects, that a stage learns from.

    Raises:
        UsageError: a rate outside 0..1, or a number below 1.
    """

    stages: int = 15
    detection_rate: float | int = 0.98
    false_rate: float | int = 0.5
    most_features: int = 80
    pool: int | None = 4000
    negatives: int = 2000

    def __post_init__(self) -> None:
        for name in ("detection_rate", "false_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"got {getattr(self, name)}, wanted more than 0 and at most 1", where=name)
        for name in ("stages", "most_features", "pool", "negatives"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"got {value}, wanted 1 or more", where=name)


@dataclass(frozen=True)
class Rates:
    """What a stage reached.

    Attributes:
        features: its number.
        detection: share of the objects that it passes, and
        false: of the others, both among those that stand aside where there are enough.
    """

    features: int
    detection: float
    false: float


def learn_stage(
    cascade: Cascade,
    positives: Float32[np.ndarray, "P A"],
    negatives: Float32[np.ndarray, "M A"],
    goals: StageGoals,
    rng: np.random.Generator,
    aside: Bool[np.ndarray, " P"] | None = None,
) -> Rates:
    """Append a stage to `cascade`.

    Args:
        cascade: whose window is known.
        positives: of windows at scale 1, as `haar.normalised_integrals` gives them, that all stages so far pass, and
        negatives: likewise; at least one of each.
        goals: of the stage.
        rng: draws the pool.
        aside: positives that no stump is chosen by, all windows of an object or none; every fourth if None.
    """
    pool = _pool(enumerate_haar(cascade.template.size_hw).numpy(), goals.pool, rng)
    taught = [
        _taught(every_fourth(len(positives)) if aside is None else aside),
        _taught(every_fourth(len(negatives))),
    ]
    joined = np.concatenate([positives[taught[0]], negatives[taught[1]]])
    size_hw = cascade.template.size_hw
    boosting = AdaBoost(haar_values(joined, pool, size_hw), int(taught[0].sum()))
    judges = [_judges(mask) for mask in taught]
    votes = [np.zeros(len(part)) for part in (positives, negatives)]
    stumps: list[Stump] = []
    while True:
        stump = boosting.add()
        stumps.append(stump)
        for vote, part in zip(votes, (positives, negatives), strict=True):
            value = haar_values(part, pool[stump.row : stump.row + 1], size_hw)[0]
            vote += stump.alpha * ((value <= stump.threshold) == (stump.polarity > 0))
        threshold = lowest_vote(votes[0][judges[0]], goals.detection_rate)
        detection, false = (float((v[j] >= threshold).mean()) for v, j in zip(votes, judges, strict=True))
        if false <= goals.false_rate or len(stumps) == goals.most_features:
            break
    table = torch.tensor([[s.threshold, s.polarity, s.alpha] for s in stumps], dtype=torch.float64)
    cascade.add_stage(torch.from_numpy(pool[[s.row for s in stumps]]), table, threshold)
    return Rates(len(stumps), detection, false)


def lowest_vote(votes: Float64[np.ndarray, " P"], rate: float | int) -> float:
    """The largest threshold that at least a share `rate` of the votes reaches, lowered by a hair for rounding."""
    ordered = np.sort(votes)
    spared = int(np.floor((1 - rate) * len(ordered) + 1e-9))
    return float(ordered[spared]) - 1e-9


def _pool(features: Int32[np.ndarray, "N 5"], most: int | None, rng: np.random.Generator) -> Int32[np.ndarray, "F 5"]:
    if most is None or most >= len(features):
        return features
    return features[np.sort(rng.choice(len(features), most, replace=False))]


def every_fourth(count: int, together: int = 1) -> Bool[np.ndarray, " N"]:
    """Which of `count` examples stand aside; `together` in a row show the same thing and are not parted."""
    return (np.arange(count) // together) % ASIDE == ASIDE - 1


def _taught(aside: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which examples stumps are chosen by: all where too few would stand aside."""
    return ~aside if int(aside.sum()) >= FEWEST_ASIDE and not aside.all() else np.ones(len(aside), bool)


def _judges(taught: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    return taught if taught.all() else ~taught
