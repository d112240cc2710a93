"""What a detector does wrong, and what each kind of mistake costs (the split of Bolya et al., "TIDE", ECCV 2020).

Every false alarm has one kind, every truth without detection is missed, and the cost of a kind is how much AP50 would
rise if all mistakes of that kind, and no other, were mended. The costs do not add up: mistakes hide one another.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from bestiary.errors import UsageError
from bestiary.metrics.curves import PrecisionRecall
from bestiary.metrics.matching import FALSE_ALARM, HIT, IGNORED, RowMatches, match_rows, overlaps_of, picture_cells
from bestiary.metrics.scores import mean_of_measured
from bestiary.metrics.table import DetectionTable

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
MEANINGS = {
    "class": "right place, wrong category",
    "location": "right category, box too far off",
    "both": "wrong category, and box too far off",
    "duplicate": "an object found once more",
    "background": "nothing there",
    "missed": "an object that nothing points at",
}
_NUMBER = {name: number for number, name in enumerate(KINDS[:5], start=1)}
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class ErrorSplit:
    """Mistakes by kind.

    Attributes:
        ap50: before anything is mended.
        cost: kind -> rise of AP50 if it were mended.
        counts: kind -> how many, of all detections.
        threshold: score of highest F1 over all categories.
        counts_above: kind -> how many if only detections from `threshold` on are kept.
        cost_of_false_alarms: rise of AP50 if there were no false alarm at all.
        cost_of_missed: rise of AP50 if nothing not found had been there.
        protocol: the thresholds, in words.
    """

    ap50: float
    cost: dict[str, float]
    counts: dict[str, int]
    threshold: float
    counts_above: dict[str, int]
    cost_of_false_alarms: float
    cost_of_missed: float
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def error_split(
    table: DetectionTable, foreground: int | float = 0.5, background: int | float = 0.1, max_detections: int = 100
) -> ErrorSplit:
    """Sort a table's mistakes. Of a false alarm, the first that holds, `same` and `other` being its largest overlaps
    with truths of its own and of other categories: location, background <= same < foreground; class, other >=
    foreground; duplicate, same >= foreground; background, both < background; else both. A missed truth is one that is
    neither found nor meant by a false alarm of kind class or location. Overlaps are of the table's kind.

    Args:
        foreground: overlap from which an object is found. background: overlap below which nothing was there.
        max_detections: the best of a category in a picture.

    Raises:
        UsageError: not 0 < background < foreground <= 1.
    """
    if not 0 < background < foreground <= 1:
        raise UsageError(
            f"got {background} and {foreground}, wanted 0 < background < foreground <= 1", where="error_split"
        )
    matches = match_rows(table, foreground, max_detections)
    kinds, about = _kinds(table, matches, foreground, background)
    judged = matches.outcome != IGNORED
    best = PrecisionRecall.of(
        table.found_scores[judged], matches.outcome[judged] == HIT, int(table.truth_counts.sum())
    ).best_f1()
    threshold = best.threshold if best else 0.0
    everything = np.ones(len(kinds), bool)
    above = table.found_scores >= threshold
    ap50, cost = _costs(table, matches, kinds, about)
    return ErrorSplit(
        ap50=ap50,
        cost={kind: cost[kind] for kind in KINDS},
        counts=_count(table, matches, kinds, about, everything),
        threshold=threshold,
        counts_above=_count(table, matches, kinds, about, above),
        cost_of_false_alarms=cost["false alarms"],
        cost_of_missed=cost["not found"],
        protocol=(
            f"after TIDE: {table.kind}, found from {'OKS' if table.kind == 'keypoints' else 'IoU'} {foreground:g}, "
            f"nothing there below {background:g}; rise of AP50 (101 recalls)"
        ),
    )


def _kinds(
    table: DetectionTable, matches: RowMatches, foreground: float, background: float
) -> tuple[UInt8[np.ndarray, " D"], Int64[np.ndarray, " D"]]:
    """The kind of every false alarm, 0 for all else, and the row of the truth that it was about, or -1."""
    from bestiary.metrics._kernels import mistakes

    kinds, about = np.zeros(table.found_scores.size, np.uint8), np.full(table.found_scores.size, -1)
    cells = picture_cells(table, np.flatnonzero(matches.outcome == FALSE_ALARM))
    kinds[cells.found_rows], truths = mistakes.kinds_of_mistakes(
        overlaps_of(table)(table, cells), cells.dets, cells.gts, cells.starts,
        table.found_labels[cells.found_rows], table.truth_labels[cells.truth_rows], foreground, background,
    )  # fmt: skip
    meant = truths >= 0
    about[cells.found_rows[meant]] = cells.truth_rows[truths[meant]]
    return kinds, about


def _missed(
    table: DetectionTable,
    matches: RowMatches,
    kinds: UInt8[np.ndarray, " D"],
    about: Int64[np.ndarray, " D"],
    kept: Bool[np.ndarray, " D"],
) -> Bool[np.ndarray, " G"]:
    """Truths that count and that no kept detection found or meant."""
    missed = ~table.truth_ignored
    missed[matches.truth_rows[kept & (matches.outcome == HIT)]] = False
    missed[about[kept & ((kinds == _NUMBER["class"]) | (kinds == _NUMBER["location"]))]] = False
    return missed


def _count(
    table: DetectionTable,
    matches: RowMatches,
    kinds: UInt8[np.ndarray, " D"],
    about: Int64[np.ndarray, " D"],
    kept: Bool[np.ndarray, " D"],
) -> dict[str, int]:
    counts = {kind: int((kinds[kept] == number).sum()) for kind, number in _NUMBER.items()}
    return counts | {"missed": int(_missed(table, matches, kinds, about, kept).sum())}


def _costs(
    table: DetectionTable, matches: RowMatches, kinds: UInt8[np.ndarray, " D"], about: Int64[np.ndarray, " D"]
) -> tuple[float, dict[str, float]]:
    """AP50 and its rise for each kind mended alone."""
    labels, outcome, counts = table.found_labels, matches.outcome, table.truth_counts
    order = np.argsort(-table.found_scores, kind="stable")
    measured = np.flatnonzero(counts)

    def ap(labels: Int64[np.ndarray, " D"], outcome: UInt8[np.ndarray, " D"], counts: Int64[np.ndarray, " K"]) -> float:
        return _ap50(order, labels, outcome, table.found_scores, counts, measured)

    base = ap(labels, outcome, counts)
    cost = {}
    for kind, number in _NUMBER.items():
        mended_labels, mended = labels.copy(), outcome.copy()
        of_kind = kinds == number
        mended[of_kind] = IGNORED
        if kind in ("class", "location"):
            # The best detection meant for a truth that nothing else has found becomes its hit; the others fall away.
            taken = np.zeros(table.truth_labels.size, bool)
            taken[matches.truth_rows[outcome == HIT]] = True
            rows = order[of_kind[order]]
            rows = rows[~taken[about[rows]]]
            _, first = np.unique(about[rows], return_index=True)
            mended[rows[first]] = HIT
            mended_labels[rows[first]] = table.truth_labels[about[rows[first]]]
        cost[kind] = ap(mended_labels, mended, counts) - base
    missed = _missed(table, matches, kinds, about, np.ones(len(kinds), bool))
    fewer = counts - np.bincount(table.truth_labels[missed], minlength=len(counts))
    cost["missed"] = ap(labels, outcome, fewer) - base
    quiet = np.where(outcome == FALSE_ALARM, np.uint8(IGNORED), outcome)
    cost["false alarms"] = ap(labels, quiet, counts) - base
    found = np.bincount(labels[outcome == HIT], minlength=len(counts)).astype(np.int64)
    cost["not found"] = ap(labels, outcome, found) - base
    return base, cost


def _ap50(
    order: Int64[np.ndarray, " D"],
    labels: Int64[np.ndarray, " D"],
    outcome: UInt8[np.ndarray, " D"],
    scores: Float64[np.ndarray, " D"],
    counts: Int64[np.ndarray, " K"],
    measured: Int64[np.ndarray, " M"],
) -> float:
    """Mean over the categories that had truths at first; one left without truths is perfect if it raises no false
    alarm, else 0.
    """
    from bestiary.metrics._kernels import detection

    rows, starts = detection.group(labels, order, len(counts))
    values = np.full(len(measured), np.nan)
    for i, label in enumerate(measured):
        mine = rows[starts[label] : starts[label + 1]]
        if not counts[label]:
            values[i] = 0.0 if (outcome[mine] == FALSE_ALARM).any() else 1.0
            continue
        ranks = np.zeros(len(mine), np.int64)
        precision, _, _ = detection.interpolate(outcome[mine], ranks, scores[mine], 1, int(counts[label]), _RECALLS)
        values[i] = precision.mean()
    return mean_of_measured(values)
