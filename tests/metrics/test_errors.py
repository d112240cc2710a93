"""The error split and the confusion matrix: a hand-made picture for each mistake, and what must always hold."""

import numpy as np
import pytest
from tests.metrics.detection_cases import Picture, found, random_pictures, truth

from bestiary.errors import UsageError
from bestiary.metrics.coco import CocoScores
from bestiary.metrics.confusion import detection_confusion
from bestiary.metrics.errors import KINDS, MEANINGS, error_split
from bestiary.metrics.matching import pair_free, picture_cells
from bestiary.metrics.table import DetectionTable

HOME = [100.0, 100.0, 200.0, 200.0]
SHIFTED = [100.0, 140.0, 200.0, 240.0]  # IoU 60 / 140 = 0.43 with HOME
AWAY = [300.0, 300.0, 400.0, 400.0]


def table_of(pictures: list[Picture], categories: int = 2) -> DetectionTable:
    scores = CocoScores([f"c{k}" for k in range(categories)])
    scores.update([p for p, _ in pictures], [t for _, t in pictures])
    return scores.table()


def counts_of(*pictures: Picture) -> dict[str, int]:
    return {kind: n for kind, n in error_split(table_of(list(pictures))).counts.items() if n}


def test_each_kind_alone() -> None:
    one = truth([HOME], [0])
    assert counts_of((found([HOME], [0], [0.9]), one)) == {}
    assert counts_of((found([HOME], [1], [0.9]), one)) == {"class": 1}
    assert counts_of((found([SHIFTED], [0], [0.9]), one)) == {"location": 1}
    assert counts_of((found([SHIFTED], [1], [0.9]), one)) == {"both": 1, "missed": 1}
    assert counts_of((found([HOME, HOME], [0, 0], [0.9, 0.8]), one)) == {"duplicate": 1}
    assert counts_of((found([AWAY], [0], [0.9]), one)) == {"background": 1, "missed": 1}
    assert counts_of((found([], [], []), one)) == {"missed": 1}
    assert counts_of((found([AWAY], [0], [0.9]), truth([], []))) == {"background": 1}


def test_bounds_are_where_they_are_said_to_be() -> None:
    """Overlaps of exactly 0.5 and, in float64, just about 0.1."""
    square = truth([[0, 0, 64, 64]], [0])
    half, tenth, less = [0, 0, 64, 32], [0, 0, 64, 6.4], [0, 0, 64, 6.39]
    assert counts_of((found([half], [1], [0.9]), square)) == {"class": 1}
    assert counts_of((found([tenth], [0], [0.9]), square)) == {"location": 1}
    assert counts_of((found([less], [0], [0.9]), square)) == {"background": 1, "missed": 1}


def test_a_box_too_far_off_goes_before_a_wrong_category() -> None:
    two = truth([HOME, SHIFTED], [0, 1])
    assert counts_of((found([HOME, SHIFTED, SHIFTED], [0, 1, 0], [0.9, 0.8, 0.7]), two)) == {"location": 1}


def test_crowds_and_difficult_objects_are_no_mistakes() -> None:
    assert counts_of((found([HOME, HOME], [0, 0], [0.9, 0.8]), truth([HOME], [0], crowd=[True]))) == {}
    assert counts_of((found([], [], []), truth([HOME], [0], difficult=[True]))) == {}


def test_mending_the_only_mistake_gives_everything() -> None:
    boxes = [HOME, AWAY]
    right = found(boxes, [0, 1], [0.9, 0.8])
    cases = {
        "class": found(boxes, [1, 1], [0.9, 0.8]),
        "location": found([SHIFTED, AWAY], [0, 1], [0.9, 0.8]),
        "duplicate": found([HOME, HOME, AWAY], [0, 0, 1], [0.9, 0.85, 0.8]),
        "background": found([[0, 0, 50, 50], HOME, AWAY], [0, 0, 1], [0.95, 0.9, 0.8]),
        "both": found([SHIFTED, HOME, AWAY], [1, 0, 1], [0.95, 0.9, 0.8]),
        "missed": found([AWAY], [1], [0.8]),
    }
    perfect = error_split(table_of([(right, truth(boxes, [0, 1]))]))
    assert perfect.ap50 == pytest.approx(1)
    assert set(perfect.cost.values()) == {0}
    for kind, prediction in cases.items():
        split = error_split(table_of([(prediction, truth(boxes, [0, 1]))]))
        assert split.counts[kind] == 1, kind
        assert split.ap50 + split.cost[kind] == pytest.approx(1 if kind != "duplicate" else perfect.ap50), kind
        others = [cost for name, cost in split.cost.items() if name != kind]
        assert max(others) == pytest.approx(0, abs=1e-12), kind


def test_a_truth_is_mended_once_and_by_the_best() -> None:
    """Two boxes too far off mean the same truth: one becomes its hit, the other falls away; AP 1 needs both."""
    split = error_split(table_of([(found([SHIFTED, SHIFTED], [0, 0], [0.9, 0.8]), truth([HOME], [0]))], 1))
    assert split.ap50 == 0
    assert split.cost["location"] == pytest.approx(1)
    taken = found([HOME, SHIFTED, AWAY], [0, 0, 0], [0.9, 0.8, 0.7])
    assert error_split(table_of([(taken, truth([HOME, AWAY], [0, 0]))], 1)).cost["location"] == pytest.approx(
        1 - (51 + 50 * 2 / 3) / 101
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_holds_on_any_data(seed: int) -> None:
    pictures = random_pictures(seed, pictures=40)
    table = table_of(pictures, 4)
    split = error_split(table)
    scores = CocoScores(table.categories)
    scores.update([p for p, _ in pictures], [t for _, t in pictures])
    result = scores.compute()
    assert split.ap50 == pytest.approx(result.values["AP50"], abs=1e-12)
    assert set(split.cost) == set(split.counts) == set(KINDS) == set(MEANINGS)
    for kind in ("location", "both", "duplicate", "background", "missed", "class"):
        assert split.cost[kind] >= -1e-12, kind
    best = result.details["thresholds"]["overall"]["best_f1"]
    assert split.threshold == best["threshold"]
    assert sum(split.counts_above[kind] for kind in KINDS[:5]) == best["false_alarms"]
    assert split.counts_above["missed"] <= best["missed"]
    assert split.cost_of_false_alarms >= max(split.cost[kind] for kind in ("both", "duplicate", "background")) - 1e-12
    assert split.to_dict()["protocol"]


def test_nonsense_thresholds_are_refused() -> None:
    table = table_of([(found([], [], []), truth([], []))])
    with pytest.raises(UsageError, match="background"):
        error_split(table, 0.5, 0.6)


def test_confusion_by_hand() -> None:
    target = truth([HOME, AWAY, [0, 0, 50, 50]], [0, 1, 1])
    prediction = found([HOME, AWAY, [450, 450, 480, 480], [0, 0, 50, 50]], [0, 0, 1, 1], [0.9, 0.8, 0.7, 0.2])
    matrix = detection_confusion(table_of([(prediction, target)]), threshold=0.5)
    # c0 found; one c1 taken for c0, one c1 missed since 0.2 is below the threshold; one c1 seen where nothing is.
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert matrix.row_names[-1] == "(nothing there)"
    assert matrix.column_names[-1] == "(missed)"


def test_confusion_prefers_the_right_category_to_the_higher_score() -> None:
    prediction = found([HOME, HOME], [1, 0], [0.9, 0.8])
    matrix = detection_confusion(table_of([(prediction, truth([HOME], [0]))]), threshold=0.5)
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 1.1])
def test_confusion_accounts_for_everything(threshold: float) -> None:
    table = table_of(random_pictures(3, pictures=40), 4)
    counts = detection_confusion(table, threshold).counts
    assert counts[:-1].sum() == table.truth_counts.sum()
    np.testing.assert_array_equal(counts[:-1].sum(1), table.truth_counts)
    assert counts[-1, -1] == 0
    assert counts[:, :-1].sum() <= (table.found_scores >= threshold).sum()
    if threshold > 1:
        assert counts[:, :-1].sum() == 0


def test_confusion_without_truths_or_detections() -> None:
    assert detection_confusion(table_of([(found([], [], []), truth([], []))])).counts.sum() == 0
    alarms = detection_confusion(table_of([(found([HOME], [1], [0.9]), truth([], []))]))
    assert alarms.counts.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    ignored = detection_confusion(table_of([(found([HOME], [1], [0.9]), truth([HOME], [1], difficult=[True]))]))
    assert ignored.counts.sum() == 0


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    both = float(sides.clip(0).prod())
    return both / float(a[2:].prod() + b[2:].prod() - both)


def test_pairs_across_categories_equal_a_plain_loop() -> None:
    table = table_of(random_pictures(7, pictures=20), 4)
    some = np.arange(0, len(table.found_scores), 2)
    taken, free = table.truth_ignored.copy(), ~table.truth_ignored
    rows, paired = pair_free(table, some, taken, 0.5)
    assert sorted(rows) == some.tolist()
    assert (np.diff(table.found_scores[rows]) <= 0).all()
    for row, got in zip(rows, paired, strict=True):
        there = np.flatnonzero(free & (table.truth_images == table.found_images[row]))
        shares = [iou(table.found_boxes_xywh[row], table.truth_boxes_xywh[i]) for i in there]
        wanted = there[int(np.argmax(shares))] if shares and max(shares) >= 0.5 else -1
        assert got == wanted
        free[wanted] &= wanted < 0
    np.testing.assert_array_equal(taken, ~free)
    cells = picture_cells(table, some)
    assert cells.label == -1
    assert set(cells.truth_rows) == set(np.flatnonzero(~table.truth_ignored))
