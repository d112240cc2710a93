"""Sentences say what the numbers say, and nothing where there is nothing to say."""

import numpy as np
import pytest

from bestiary.metrics.curves import PrecisionRecall, advice
from bestiary.metrics.errors import KINDS, ErrorSplit
from bestiary.metrics.scores import Scores
from bestiary.reports.words import advice_in_words, confusions_in_words, imbalance_notes, mistakes_in_words, percent


def scored(curve: PrecisionRecall, task: str = "detection") -> Scores:
    points = advice(curve)
    thresholds = {"trust": points} if task == "classification" else {"overall": points, "per_class": {"cat": points}}
    return Scores("AP", {"AP": 0.5}, "p", {}, {"task": task, "thresholds": thresholds})


def test_thresholds_by_hand() -> None:
    right = np.array([True] * 9 + [False, True, False, False, False])
    curve = PrecisionRecall.of(np.linspace(0.95, 0.3, 14), right, 12)
    said = advice_in_words(scored(curve))
    assert "score 0.45 or more" in said[0]
    assert "91 % of them are right" in said[0]
    assert "83 % of the objects are found" in said[0]
    assert len(said) == 1  # nine of ten are right there already, and 90 % are found nowhere


def test_the_way_to_more_care_is_named() -> None:
    right = np.array([True] * 5 + [False] * 2 + [True] * 5 + [False] * 9)
    said = " ".join(advice_in_words(scored(PrecisionRecall.of(np.linspace(0.9, 0.1, 21), right, 10))))
    assert "false alarm is worse than a miss, keep 0.74" in said
    hopeless = PrecisionRecall.of(np.array([0.9, 0.8, 0.7]), np.array([False, False, True]), 3)
    assert "do not let this model decide alone" in " ".join(advice_in_words(scored(hopeless)))


def test_no_hit_and_no_details() -> None:
    nothing = scored(PrecisionRecall.of(np.array([0.9]), np.array([False]), 3))
    assert "No detection is right" in advice_in_words(nothing)[0]
    assert advice_in_words(Scores("a", {"a": 1.0}, "p")) == []


def test_classes_with_thresholds_of_their_own() -> None:
    low = PrecisionRecall.of(np.array([0.2]), np.array([True]), 1)
    scores = scored(PrecisionRecall.of(np.array([0.8]), np.array([True]), 1))
    scores.details["thresholds"]["per_class"]["dog"] = advice(low)
    assert any("dog 0.20" in s and "cat" not in s for s in advice_in_words(scores))


def test_trust_of_a_classifier() -> None:
    right = np.array([True] * 18 + [False] * 2)
    scores = scored(PrecisionRecall.of(np.linspace(0.99, 0.4, 20), right, 18), "classification")
    assert "0.40 or more, at least 90 % are right" in advice_in_words(scores)[0]
    bad = scored(PrecisionRecall.of(np.array([0.9]), np.array([False]), 0), "classification")
    assert "No probability" in advice_in_words(bad)[0]


def split(**cost: float) -> ErrorSplit:
    costs = dict.fromkeys(KINDS, 0.0) | cost
    return ErrorSplit(0.5, costs, dict.fromkeys(KINDS, 0), 0.5, dict.fromkeys(KINDS, 0), 0.1, 0.1, "p")


def test_the_costliest_mistake_is_named() -> None:
    assert "“location”" in mistakes_in_words(split(location=0.2, missed=0.1))[0]
    assert "0.200 higher" in mistakes_in_words(split(location=0.2, missed=0.1))[0]
    assert "No kind" in mistakes_in_words(split())[0]


def test_notes_on_imbalance() -> None:
    per_class = {
        "a": {"AP": 0.5, "count": 90.0},
        "b": {"AP": 0.5, "count": 5.0},
        "c": {"AP": float("nan"), "count": 0.0},
    }
    notes = " ".join(imbalance_notes(Scores("AP", {"AP": 0.5}, "p", per_class)))
    assert "not measured: c." in notes
    assert "b (5)" in notes
    assert "a is 95 % of all" in notes
    assert imbalance_notes(Scores("AP", {"AP": 0.5}, "p", {"a": {"count": 3.0}})) == []
    even = {name: {"count": 50.0} for name in "abc"}
    assert imbalance_notes(Scores("AP", {"AP": 0.5}, "p", even)) == []


def test_confusions_leave_out_background_and_missed() -> None:
    counts = np.array([[5, 3, 9], [1, 8, 0], [50, 60, 0]])
    found = confusions_in_words(counts, ["a", "b", "(nothing)"], ["a", "b", "(missed)"])
    assert found == [("a", "b", 3, 3 / 17), ("b", "a", 1, 1 / 9)]
    assert confusions_in_words(np.eye(2, dtype=int), ["a", "b"], ["a", "b"]) == []


@pytest.mark.parametrize(
    ("share", "text"), [(0.5, "50 %"), (0.0, "0 %"), (1.0, "100 %"), (0.995, "99.5 %"), (0.004, "0.4 %"), (None, "-")]
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text
