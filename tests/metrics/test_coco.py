"""COCO's numbers: equal to pycocotools on nasty data and to hand-worked cases, and true to identities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.coco_reference import reference, require_equal
from tests.metrics.detection_cases import Picture, as_coco, found, random_pictures, truth

from bestiary.errors import DataError, RecordError, UsageError
from bestiary.metrics.coco import RECALLS, CocoScores, average_precision, coco_from_files
from bestiary.metrics.matching import class_cells
from bestiary.metrics.table import DetectionRows
from bestiary.records import Target

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


def ours(pictures: list[Picture], categories: int = 4, **settings: object) -> CocoScores:
    scores = CocoScores([f"c{k}" for k in range(categories)], **settings)  # type: ignore[arg-type]
    scores.update([p for p, _ in pictures], [t for _, t in pictures])
    return scores


@pytest.mark.parametrize("seed", range(12))
def test_twelve_numbers_equal_the_reference(seed: int) -> None:
    pictures = random_pictures(seed, ties=seed % 2 == 0)
    result = ours(pictures).compute()
    require_equal(result.values, reference(*as_coco(pictures, 4)).stats, NAMES)
    assert result.headline == "AP"
    assert 0.05 < result.value < 0.95  # the data are neither trivial nor hopeless


def test_every_precision_recall_and_score_equals_the_reference() -> None:
    pictures = random_pictures(99, pictures=60, categories=6)
    mine = average_precision(ours(pictures, 6).table())
    evaluation = reference(*as_coco(pictures, 6))
    for s, (area, limit) in enumerate(mine.settings):
        a, m = ["all", "small", "medium", "large"].index(area), [1, 10, 100].index(limit)
        for name in ("precision", "recall", "scores"):
            theirs = evaluation.eval[name][..., a, m]
            theirs = (
                np.where(evaluation.eval["recall"][..., a, m] == -1, np.nan, 1)[:, None] * theirs
                if theirs.ndim == 3
                else theirs
            )
            np.testing.assert_array_equal(getattr(mine, name)[..., s], np.where(theirs == -1, np.nan, theirs))


def test_more_than_a_hundred_detections_in_a_picture_equal_the_reference() -> None:
    pictures = random_pictures(7, pictures=4, categories=2, most_truths=60, most_found=260)
    assert max(len(p) for p, _ in pictures) > 110
    require_equal(ours(pictures, 2).compute().values, reference(*as_coco(pictures, 2)).stats, NAMES)


def test_other_limits_equal_the_reference() -> None:
    pictures = random_pictures(8)
    mine = average_precision(ours(pictures).table(), max_detections=(2, 5, 7))
    theirs = reference(*as_coco(pictures, 4), max_detections=(2, 5, 7)).eval["precision"][:, :, :, 0, 2]
    np.testing.assert_array_equal(mine.precision[..., 2], np.where(theirs == -1, np.nan, theirs))


@pytest.mark.usefixtures("either_reader")
def test_files_equal_the_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truths, results = as_coco(random_pictures(5), 4)
    for entry in [*truths["annotations"], *results]:
        entry["bbox"] = [round(v, 2) for v in entry["bbox"]]  # decimals that float32 cannot hold
    # Ids with gaps, in no order; pictures and results shuffled.
    new_ids = {i: int(v) for i, v in enumerate(rng.permutation(1000)[: len(truths["images"])] + 1, start=1)}
    for entry in [*truths["annotations"], *results]:
        entry["image_id"] = new_ids[entry["image_id"]]
    truths["images"] = [{"id": new_ids[image["id"]]} for image in truths["images"]]
    results = [results[i] for i in rng.permutation(len(results))]
    (tmp_path / "truth.json").write_text(json.dumps(truths))
    (tmp_path / "results.json").write_text(json.dumps(results))
    scores = coco_from_files(tmp_path / "truth.json", tmp_path / "results.json")
    require_equal(scores.values, reference(truths, results).stats, NAMES)


@pytest.mark.usefixtures("either_reader")
def test_broken_files_are_named(tmp_path: Path) -> None:
    truths, results = as_coco(random_pictures(5, pictures=3), 4)
    good, bad = tmp_path / "truth.json", tmp_path / "results.json"
    good.write_text(json.dumps(truths))
    cases = {
        "not JSON": "{",
        "wanted a list": "{}",
        "image_id 77": json.dumps([{**results[0], "image_id": 77}]),
        "category_id 9": json.dumps([{**results[0], "category_id": 9}]),
        "no 'score'": json.dumps([{k: v for k, v in results[0].items() if k != "score"}]),
        "wanted x, y": json.dumps([{**results[0], "bbox": [1, 2, 3]}]),
        "finite": json.dumps([{**results[0], "bbox": [1, 2, 3, float("nan")]}]),
    }
    for message, text in cases.items():
        bad.write_text(text)
        with pytest.raises(DataError, match=message):
            coco_from_files(good, bad)
    with pytest.raises(DataError, match="no such file"):
        coco_from_files(tmp_path / "nowhere.json", bad)


def test_truth_false_truth_of_two_by_hand() -> None:
    """Precision 1 up to recall 1/2 (51 of the 101), then 2/3 (the other 50)."""
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30]]
    pictures = [(found([boxes[0], [50, 50, 60, 60], boxes[1]], [0, 0, 0], [0.9, 0.8, 0.7]), truth(boxes, [0, 0]))]
    values = ours(pictures, 1).compute().values
    assert values["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert values["AP50"] == pytest.approx(0.8350, abs=5e-5)
    assert values["AR1"] == 0.5
    assert values["AR100"] == 1


@pytest.mark.parametrize(("said", "of", "wanted"), [("1010", 3, 0.5545), ("1101001", 5, 0.6676)])
def test_published_closed_forms(said: str, of: int, wanted: float) -> None:
    boxes = [[40.0 * i, 0, 40.0 * i + 20, 20] for i in range(of)]
    hits = iter(boxes)
    guesses = [next(hits) if c == "1" else [0, 300 + 40.0 * i, 20, 320 + 40.0 * i] for i, c in enumerate(said)]
    scores = [0.9 - 0.1 * i for i in range(len(said))]
    pictures = [(found(guesses, [0] * len(said), scores), truth(boxes, [0] * of))]
    assert ours(pictures, 1).compute().values["AP50"] == pytest.approx(wanted, abs=5e-5)


def test_an_overlap_exactly_at_the_threshold_is_found() -> None:
    pictures = [(found([[0, 0, 10, 5]], [0], [0.9]), truth([[0, 0, 10, 10]], [0]))]
    values = ours(pictures, 1).compute().values
    assert values["AP50"] == pytest.approx(1)
    assert values["AP"] == pytest.approx(0.1)  # only at the first of ten thresholds
    less = [(found([[0, 0, 10, 4.999]], [0], [0.9]), truth([[0, 0, 10, 10]], [0]))]
    assert ours(less, 1).compute().values["AP50"] == 0


def test_perfect_detections_reach_one_but_not_with_one_a_picture() -> None:
    boxes = [[0, 0, 40, 40], [100, 100, 240, 240]]
    values = ours([(found(boxes, [0, 0], [0.9, 0.8]), truth(boxes, [0, 0]))], 1).compute().values
    assert values["AP"] == pytest.approx(1)
    assert values["AR1"] == 0.5
    assert math.isnan(values["AP_small"])


def test_a_crowd_swallows_any_number_and_asks_for_none() -> None:
    target = truth([[0, 0, 100, 100], [200, 200, 240, 240]], [0, 0], crowd=[True, False])
    inside = [[0, 0, 20, 20], [30, 30, 60, 60], [50, 0, 90, 90]]
    quiet = ours([(found([*inside, [200, 200, 240, 240]], [0] * 4, [0.9, 0.8, 0.7, 0.6]), target)], 1).compute()
    assert quiet.values["AP"] == pytest.approx(1)
    assert quiet.per_class["c0"]["count"] == 1


def test_a_difficult_object_swallows_one() -> None:
    target = truth([[0, 0, 40, 40], [200, 200, 240, 240]], [0, 0], difficult=[True, False])
    hit = [200, 200, 240, 240]
    once = ours([(found([[0, 0, 40, 40], hit], [0, 0], [0.9, 0.6]), target)], 1).compute().values
    twice = ours([(found([[0, 0, 40, 40], [0, 0, 40, 40], hit], [0] * 3, [0.9, 0.8, 0.6]), target)], 1).compute().values
    assert once["AP50"] == pytest.approx(1)
    assert twice["AP50"] == pytest.approx(0.5)


def test_duplicates_lower_ap() -> None:
    pictures = [p for p in random_pictures(2) if len(p[0])]
    doubled = [(p[torch.arange(len(p)).repeat_interleave(2)], t) for p, t in pictures]
    assert ours(doubled).compute().value < ours(pictures).compute().value - 0.01


def test_order_of_pictures_matters_only_to_ties() -> None:
    pictures = random_pictures(4, ties=False)
    backwards = pictures[::-1]
    assert ours(pictures).compute().values == pytest.approx(ours(backwards).compute().values, abs=1e-12, nan_ok=True)


def test_merged_shares_equal_the_whole() -> None:
    pictures = random_pictures(6)
    first, second = ours(pictures[:11]), ours(pictures[11:])
    first.merge(second)
    merged, whole = first.compute(), ours(pictures).compute()
    assert merged.to_dict() == whole.to_dict()
    with pytest.raises(RecordError):
        first.merge(ours(pictures, 5))


def test_nothing_found_and_nothing_there() -> None:
    nothing = found([], [], [])
    empty = ours([(nothing, truth([], []))], 2).compute()
    assert all(math.isnan(v) for v in empty.values.values())
    blind = ours([(nothing, truth([[0, 0, 9, 9]], [1]))], 2).compute()
    assert blind.values["AP"] == 0
    assert blind.values["AR100"] == 0
    assert blind.details["thresholds"]["overall"]["best_f1"] is None
    only_alarms = ours([(found([[0, 0, 9, 9]], [1], [0.5]), truth([], []))], 2).compute()
    assert math.isnan(only_alarms.values["AP"])
    with pytest.raises(UsageError, match="no picture"):
        CocoScores(["a"]).compute()


def test_input_that_does_not_fit_is_refused() -> None:
    scores = CocoScores(["a"])
    with pytest.raises(RecordError, match="as many"):
        scores.update([found([], [], [])], [])
    with pytest.raises(RecordError, match="annotated"):
        scores.update([found([], [], [])], [Target()])
    scores.update([found([[0, 0, 1, 1]], [3], [0.5])], [truth([], [])])
    with pytest.raises(RecordError, match="0 to 0"):
        scores.compute()
    for wrong in ([], [0.5, 0.5], [0.9, 0.5]):
        with pytest.raises(UsageError, match="ascending"):
            CocoScores(["a"], iou_thresholds=wrong)
    with pytest.raises(RecordError, match="NaN"):
        ours([(found([[0, 0, 1, 1]], [0], [math.nan]), truth([], []))], 1).compute()


def test_records_are_not_changed_and_may_change_later() -> None:
    prediction, target = found([[0, 0, 10, 10]], [0], [0.9]), truth([[0, 0, 10, 10]], [0])
    scores = ours([(prediction, target)], 1)
    prediction.boxes_xyxy.zero_()
    assert scores.compute().value == pytest.approx(1)


def test_details_hold_curves_thresholds_and_confusion() -> None:
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30]]
    prediction = found([boxes[0], [50, 50, 60, 60], boxes[1]], [0, 0, 0], [0.875, 0.75, 0.625])
    result = ours([(prediction, truth(boxes, [0, 0]))], 1).compute()
    curve = result.details["curves"]["c0"]
    np.testing.assert_array_equal(curve["recall"], RECALLS)
    assert curve["score"][[0, 50, 51, 100]].tolist() == [0.875, 0.875, 0.625, 0.625]
    best = result.details["thresholds"]["overall"]["best_f1"]
    assert (best["threshold"], best["f1"], best["hits"]) == (0.625, 0.8, 2)
    careful = result.details["thresholds"]["per_class"]["c0"]["precision_90"]
    assert (careful["threshold"], careful["recall"]) == (0.875, 0.5)
    assert result.details["confusion"].tolist() == [[2, 0], [1, 0]]
    json.dumps(result.to_dict(), allow_nan=False)


def test_protocol_says_what_was_done() -> None:
    scores = ours(random_pictures(1, pictures=3), iou_thresholds=[0.3], max_detections=[20])
    result = scores.compute()
    assert "IoU 0.30" in result.protocol
    assert "at most 20" in result.protocol
    assert {"AR20", "AP_small"} <= set(result.values)
    assert math.isnan(result.values["AP50"])


def test_cells_hold_every_row_once() -> None:
    rows = DetectionRows([f"c{k}" for k in range(4)])
    pictures = random_pictures(3)
    rows.update([p for p, _ in pictures], [t for _, t in pictures])
    table = rows.table()
    cells = list(class_cells(table, 100))
    assert sorted(np.concatenate([c.found_rows for c in cells])) == list(range(table.found_scores.size))
    assert sorted(np.concatenate([c.truth_rows for c in cells])) == list(range(table.truth_areas.size))
    for c in cells:
        assert (np.diff(table.found_scores[c.found_rows]) <= 0).all()
        assert (table.found_labels[c.found_rows] == c.label).all()
        pairs = np.diff(c.starts[0]) * np.diff(c.starts[1])
        assert (np.cumsum(pairs) == c.starts[2, 1:]).all()


def test_any_area_ranges() -> None:
    pictures = random_pictures(10)
    coco = ours(pictures).compute().values
    ranges = {"tiny": (0, 16**2), "medium": (32**2, 96**2)}
    mine = ours(pictures, area_ranges=ranges).compute().values
    assert mine["AP_medium"] == coco["AP_medium"]
    assert {"AP_tiny", "AR_tiny"} <= set(mine)
    assert "AP_small" not in mine
    assert mine["AP"] == coco["AP"]
    only = ours(pictures, area_ranges={"all": (32**2, 96**2)}).compute().values
    assert only["AP"] == coco["AP_medium"]
    with pytest.raises(UsageError, match="smaller first"):
        CocoScores(["a"], area_ranges={"none": (9, 4)})


def test_operating_points_by_hand() -> None:
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30]]
    prediction = found([boxes[0], [50, 50, 60, 60], boxes[1]], [0, 0, 1], [0.875, 0.75, 0.625])
    curves = ours([(prediction, truth(boxes, [0, 1]))], 2).curves()
    point = curves.at_score(0.7)
    assert (point.hits, point.false_alarms, point.missed) == (1, 1, 1)
    assert curves.at_score(0.7, "c1").recall == 0
    thorough, careful = curves.at_recall(1.0), curves.at_precision(0.9)
    assert thorough is not None
    assert careful is not None
    assert (thorough.threshold, thorough.precision) == (0.625, 2 / 3)
    assert (careful.threshold, careful.recall) == (0.875, 0.5)
    assert curves.at_precision(0.9, "c1") is not None
    with pytest.raises(UsageError, match="c7"):
        curves.at_score(0.5, "c7")
    small = ours([(prediction, truth(boxes, [0, 1]))], 2).curves(area=(200, 1000))
    assert small.at_score(0.1).missed == 0
    assert small.pooled.positives == 0


def test_operating_points_agree_with_the_curves_behind_ap() -> None:
    pictures = random_pictures(11)
    scores = ours(pictures)
    curves, result = scores.curves(), average_precision(scores.table())
    for mine, theirs in zip(curves.per_class, result.curves, strict=True):
        np.testing.assert_array_equal(mine.hits, theirs.hits)
        np.testing.assert_array_equal(mine.false_alarms, theirs.false_alarms)
        assert mine.positives == theirs.positives


def test_numbers_do_not_depend_on_threads() -> None:
    pictures = random_pictures(12, pictures=60, categories=9)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            answers.append(ours(pictures, 9).compute().to_dict())
    finally:
        torch.set_num_threads(before)
    assert answers[0] == answers[1]
