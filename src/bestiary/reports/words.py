"""What the numbers mean, in sentences: which threshold to choose, what goes wrong most, which classes are short of
pictures.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bestiary.metrics.errors import MEANINGS, ErrorSplit
from bestiary.metrics.scores import Scores

FEW = 20
"""Fewer truths of a class than this, and its number moves by chance more than by any change to the model."""


def percent(share: float | None) -> str:
    """A share as a whole number of per cent, with one decimal near 0 and 1."""
    if share is None or math.isnan(share):
        return "-"
    digits = 0 if 0.02 <= share <= 0.98 or share in (0, 1) else 1
    return f"{100 * share:.{digits}f} %"


def advice_in_words(scores: Scores) -> list[str]:
    """Sentences on thresholds, from the details of detection or classification scores; none where they say nothing."""
    thresholds = scores.details.get("thresholds") or {}
    if scores.details.get("task") == "classification":
        return _trust_in_words(thresholds.get("trust") or {})
    overall = thresholds.get("overall") or {}
    best, careful, thorough = (overall.get(name) for name in ("best_f1", "precision_90", "recall_90"))
    if not best:
        return (
            ["No detection is right at any threshold: train longer, or check that labels and categories fit."]
            if overall
            else []
        )
    said = [
        f"Keep detections that score {best['threshold']:.2f} or more. Then {percent(best['precision'])} of them are "
        f"right, and {percent(best['recall'])} of the objects are found (the best balance, F1 {best['f1']:.2f})."
    ]
    if careful and careful["threshold"] > best["threshold"]:
        said.append(
            f"If a false alarm is worse than a miss, keep {careful['threshold']:.2f} or more: "
            f"{percent(careful['precision'])} are right, {percent(careful['recall'])} are found."
        )
    elif not careful:
        said.append("No threshold makes nine of ten detections right: do not let this model decide alone.")
    if thorough and thorough["threshold"] < best["threshold"]:
        said.append(
            f"If a miss is worse than a false alarm, keep {thorough['threshold']:.2f} or more: "
            f"{percent(thorough['recall'])} are found, and {percent(thorough['precision'])} of what is kept is right."
        )
    apart = _thresholds_apart(thresholds.get("per_class") or {}, best["threshold"])
    return [*said, *apart]


def _thresholds_apart(per_class: Mapping[str, Any], common: float) -> list[str]:
    best = {name: row["best_f1"]["threshold"] for name, row in per_class.items() if row and row.get("best_f1")}
    far = sorted((name for name in best if abs(best[name] - common) > 0.15), key=lambda n: -abs(best[n] - common))
    if not far:
        return []
    listed = ", ".join(f"{name} {best[name]:.2f}" for name in far[:4])
    return [f"Some classes are better served by a threshold of their own: {listed}."]


def _trust_in_words(trust: Mapping[str, Any]) -> list[str]:
    said = []
    for name, wanted in (("precision_90", "90"), ("precision_95", "95"), ("precision_99", "99")):
        point = trust.get(name)
        if point and point["false_alarms"] + point["hits"]:
            said.append(
                f"Of the answers with a probability of {point['threshold']:.2f} or more, at least {wanted} % are "
                f"right; that keeps {percent(point['recall'])} of all right answers. Leave the rest to a person."
            )
            break
    if trust and not said:
        said.append("No probability is high enough for nine of ten answers to be right.")
    return said


def mistakes_in_words(errors: ErrorSplit) -> list[str]:
    """The costliest kind of mistake, and what usually helps."""
    kind = max(errors.cost, key=lambda name: errors.cost[name])
    if errors.cost[kind] < 0.005:
        return ["No kind of mistake costs more than half a point of AP50."]
    helps = {
        "class": "Look at the confusion matrix: classes that look alike need more pictures, or to become one.",
        "location": "Check that the boxes are drawn alike by all annotators; larger input or more training may help.",
        "both": "Look at the worst pictures: these are often objects that no class names.",
        "duplicate": "Lower the overlap above which non-maximum suppression removes a box.",
        "background": "Look whether these are objects that nobody annotated; add pictures that hold none.",
        "missed": "Add pictures of the objects missed, or enlarge the input if they are small.",
    }
    gain = f"without it AP50 would be {errors.cost[kind]:.3f} higher"
    return [f"The costliest kind of mistake is “{kind}”, {MEANINGS[kind]}: {gain}. {helps[kind]}"]


def imbalance_notes(scores: Scores) -> list[str]:
    """Classes with too few truths to be measured, and a class that is most of the data."""
    counts = {
        name: row["count"] for name, row in scores.per_class.items() if not math.isnan(row.get("count", math.nan))
    }
    if len(counts) < 2:
        return []
    notes = []
    none = [name for name, count in counts.items() if count == 0]
    few = [f"{name} ({count:.0f})" for name, count in counts.items() if 0 < count < FEW]
    if none:
        notes.append(f"Not in this data, so not measured: {listed(none)}.")
    if few:
        notes.append(f"Fewer than {FEW} examples, so that their numbers move by chance: {listed(few)}.")
    total, largest = sum(counts.values()), max(counts, key=lambda name: counts[name])
    if total and counts[largest] > 0.6 * total:
        notes.append(
            f"{largest} is {percent(counts[largest] / total)} of all examples: look at the classes, not at totals."
        )
    return notes


def confusions_in_words(
    counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], most: int = 5
) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions: truth, prediction, how often, and as a share of that truth. Nothing there and
    missed are not among them.
    """
    size = len([name for name, other in zip(rows, columns, strict=True) if name == other])
    inner = np.asarray(counts)[:size, :size].astype(np.int64)
    off = inner - np.diag(np.diag(inner))
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    totals = np.maximum(1, np.asarray(counts).sum(1))
    found = [(int(i) // size, int(i) % size) for i in order] if size else []
    return [(rows[r], columns[c], int(off[r, c]), float(off[r, c] / totals[r])) for r, c in found if off[r, c]]


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names with commas, cut to the first `most`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
