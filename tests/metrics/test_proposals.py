"""Recall of proposals: equal to COCO's without categories, to hand-worked cases, and true to identities."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.metrics.detection_cases import Picture, as_coco, random_pictures, truth

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.proposals import NEVER, ProposalScores, find_ranks
from bestiary.records import Target

EVERYTHING = np.array([[0.0, 1e10]])


def ours(pictures: list[Picture], numbers: tuple[int, ...] = (2, 5, 20)) -> ProposalScores:
    scores = ProposalScores(numbers)
    scores.update([p.boxes_xyxy for p, _ in pictures], [t for _, t in pictures])
    return scores


def reference(pictures: list[Picture], numbers: tuple[int, ...]) -> COCOeval:
    truths, results = as_coco(pictures, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = truths
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(results), "bbox")
        evaluation.params.useCats, evaluation.params.maxDets = 0, list(numbers)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(6))
def test_recall_equals_the_reference_without_categories(seed: int) -> None:
    pictures, numbers = random_pictures(seed, ties=False), (2, 5, 20)
    mine, theirs = ours(pictures, numbers), reference(pictures, numbers).eval["recall"]  # overlaps, 1, areas, numbers
    for a, area in enumerate(("all", "small", "medium", "large")):
        for m, number in enumerate(numbers):
            assert mine.average_recall(number, area) == pytest.approx(theirs[:, 0, a, m].mean(), abs=1e-12)
            assert mine.recall(number, 0.5, area) == pytest.approx(theirs[0, 0, a, m], abs=1e-12)
    values = mine.compute().values
    assert values["AR20"] == pytest.approx(theirs[:, 0, 0, 2].mean(), abs=1e-12)
    assert values["AR20_small"] == pytest.approx(theirs[:, 0, 1, 2].mean(), abs=1e-12)
    assert 0.05 < values["AR20"] < 0.95


def test_a_hand_worked_picture() -> None:
    target = truth([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]], [2, 0, 1], difficult=[False, False, True])
    boxes = [[0.0, 0, 10, 5], [0, 0, 10, 10], [20, 0, 30, 8], [100, 0, 101, 1], [0, 20, 10, 30]]
    scores = ProposalScores((1, 2, 3, 5), (0.5, 0.8))
    scores.update([torch.tensor(boxes)], [target])
    # The first box overlaps the first object by exactly .5 and takes it there; at .8 the second box does.
    assert [scores.recall(n, 0.5) for n in (1, 2, 3, 5)] == [0.5, 0.5, 1.0, 1.0]
    assert [scores.recall(n, 0.8) for n in (1, 2, 3, 5)] == [0.0, 0.5, 1.0, 1.0]  # .8 is enough for .8
    # Of ten overlaps: at one box .5 alone; at three, all for the first object and .5 to .8 for the second.
    assert scores.average_recall(1) == pytest.approx(0.1 * 0.5)
    assert scores.average_recall(3) == pytest.approx(0.5 * 1 + 0.5 * 0.7)
    assert [scores.average_best_overlap(n) for n in (1, 2, 3)] == pytest.approx([0.25, 0.5, 0.9])
    computed = scores.compute()
    assert computed.values["boxes"] == 5
    assert computed.details["objects"] == 2  # the difficult one need not be found
    assert computed.headline == "AR5"


def test_which_box_finds_which_object() -> None:
    target = truth([[0, 0, 10, 10], [0, 0, 10, 12]], [0, 1])
    found = find_ranks(
        torch.tensor([[0.0, 0, 10, 12], [0, 0, 10, 12], [0, 0, 10, 12]]), target, (3,), (0.5, 0.9), EVERYTHING
    )
    # The best box takes the object it overlaps most; the second is left with the other one, where that is enough.
    assert found.ranks[0].tolist() == [[1, 0], [NEVER, 0]]


def test_more_boxes_never_find_less_and_higher_overlaps_never_more() -> None:
    scores = ours(random_pictures(3), (25,))
    recalls = np.array([[scores.recall(n, iou) for n in range(1, 26)] for iou in scores.iou_thresholds])
    assert (np.diff(recalls, axis=1) >= 0).all()
    assert recalls[0, -1] > recalls[-1, -1] > 0
    curves = scores.compute().details["recall_curves"]
    numbers = scores.compute().details["numbers"]
    np.testing.assert_allclose(curves["recall@0.5"], recalls[0, numbers - 1])
    assert len(recalls) == 10  # 0.5 and 0.7 are among COCO's overlaps
    np.testing.assert_allclose(curves["AR"], recalls.mean(0)[numbers - 1])


def test_chunks_and_limits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = random_pictures(4)
    whole, short = ours(pictures, (3, 20)), ours([(p[:20], t) for p, t in pictures], (3, 20))
    monkeypatch.setattr("bestiary.metrics.proposals.CHUNK", 2)
    parts = ours(pictures, (3, 20))
    for scores in (short, parts):
        for name in ("AR3", "AR20", "recall20@0.7", "ABO3", "ABO20"):
            assert scores.compute().values[name] == pytest.approx(whole.compute().values[name], abs=1e-12)


def test_merging_is_gathering() -> None:
    pictures = random_pictures(5)
    first, second = ours(pictures[:11]), ours(pictures[11:])
    first.merge(second)
    assert first.compute().values == ours(pictures).compute().values
    with pytest.raises(UsageError, match="merge"):
        first.merge(ProposalScores((7,)))


def test_without_objects_nothing_is_measured() -> None:
    scores = ProposalScores((10,))
    scores.update([torch.rand(3, 2).repeat(1, 2).cumsum(1)], [truth([], [])])
    assert math.isnan(scores.compute().value)
    assert math.isnan(scores.compute().values["ABO10"])
    assert math.isnan(ProposalScores((10,)).compute().value)


def test_no_boxes_find_nothing() -> None:
    scores = ProposalScores((10,))
    scores.update([torch.zeros(0, 4)], [truth([[0, 0, 5, 5]], [0])])
    assert scores.compute().value == 0
    assert scores.compute().values["ABO10"] == 0


def test_bad_input_is_named() -> None:
    for bad in ((), (0, 5), (5, 5), (10, 5)):
        with pytest.raises(UsageError, match="numbers"):
            ProposalScores(bad)
    with pytest.raises(UsageError, match="iou_thresholds"):
        ProposalScores((10,), (0.5, 1.5))
    scores = ProposalScores((10,))
    with pytest.raises(RecordError, match="without objects"):
        scores.update([torch.zeros(0, 4)], [Target()])
    with pytest.raises(RecordError, match="one a target"):
        scores.update([], [Target()])
    with pytest.raises(UsageError, match="1 to 10"):
        scores.recall(11, 0.5)
    with pytest.raises(UsageError, match="iou"):
        scores.recall(10, 0.33)
