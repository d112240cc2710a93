"""Which pictures are kept, and what their costs and captions say."""

import numpy as np
import pytest
import torch

from bestiary.errors import UsageError
from bestiary.predictions import Classification, Detections, Prediction, Segmentation
from bestiary.records import IGNORE_LABEL, Objects, Target
from bestiary.reports.examples import ExampleCollector, collect_examples, match_picture, picture_cost, picture_iou

SIZE = (20, 30)
PICTURE = torch.zeros(3, *SIZE, dtype=torch.uint8)


def detections(boxes: list[list[float]], labels: list[int], scores: list[float], name: str = "a") -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), torch.tensor(scores), size_hw=SIZE,
        categories=("cat", "dog"), name=name,
    )  # fmt: skip


def objects(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Target:
    flags = None if difficult is None else torch.tensor(difficult)
    return Target(
        objects=Objects(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), difficult=flags)
    )


def classified(prob: float, name: str = "a") -> Classification:
    return Classification(torch.tensor([prob, 1 - prob]), SIZE, ("cat", "dog"), name)


LEFT, RIGHT = [0.0, 0.0, 10.0, 10.0], [15.0, 0.0, 25.0, 10.0]


def test_cost_of_a_detection_by_hand() -> None:
    truth = objects([LEFT, RIGHT], [0, 1])
    assert picture_cost(detections([LEFT, RIGHT], [0, 1], [1.0, 1.0]), truth) == 0
    # A hit at .75, a false alarm of the wrong class at .5, a miss.
    assert picture_cost(detections([LEFT, RIGHT], [0, 0], [0.75, 0.5]), truth) == pytest.approx(0.25 + 0.5 + 1)
    assert picture_cost(detections([], [], []), truth) == 2
    assert picture_cost(detections([], [], []), objects([], [])) == 0
    assert picture_cost(detections([LEFT], [0], [0.5]), objects([], [])) == 0.5


def test_matching_ignores_difficult_objects_and_low_scores() -> None:
    truth = objects([LEFT, RIGHT], [0, 0], [True, False])
    found = detections([LEFT, LEFT, RIGHT, RIGHT], [0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6])
    assert match_picture(found, truth) == ([2], [3], 0)
    assert match_picture(found, truth, 0.65) == ([2], [], 0)
    assert match_picture(found, truth, 0.95) == ([], [], 1)


def test_cost_of_a_class_puts_confident_mistakes_first() -> None:
    costs = [picture_cost(classified(p), Target(label=0)) for p in (0.01, 0.4, 0.6, 0.99)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx(0.98)


def test_iou_of_one_picture_by_hand() -> None:
    truth = torch.zeros(SIZE, dtype=torch.uint8)
    truth[:, 15:], truth[0] = 1, IGNORE_LABEL
    said = torch.zeros(SIZE, dtype=torch.uint8)
    found = Segmentation(said, SIZE, categories=("a", "b"))
    assert picture_iou(found, Target(label_map=truth)) == pytest.approx((0.5 + 0) / 2)
    assert picture_cost(found, Target(label_map=truth)) == pytest.approx(0.75)
    unknown = torch.full(SIZE, IGNORE_LABEL, dtype=torch.uint8)
    assert picture_iou(found, Target(label_map=unknown)) == 1


def test_targets_that_cannot_judge_are_refused() -> None:
    cases: list[Prediction] = [
        detections([], [], []),
        classified(0.5),
        Segmentation(torch.zeros(SIZE, dtype=torch.uint8), SIZE),
    ]
    for prediction in cases:
        with pytest.raises(UsageError):
            picture_cost(prediction, Target())
    with pytest.raises(UsageError, match="picture"):
        ExampleCollector().add(classified(0.5), Target(label=0))
    with pytest.raises(UsageError):
        ExampleCollector(worst=-1)


def test_worst_and_best_equal_a_sort_of_everything() -> None:
    probs = np.random.default_rng(0).permutation(200) / 200
    collector = ExampleCollector(worst=5, typical=0, best=3)
    for i, p in enumerate(probs):
        collector.add(classified(float(p), str(i)), Target(label=0), PICTURE)
    shown = collector.examples(("cat", "dog"))
    order = [str(i) for i in np.argsort(probs)]
    assert [e.name for e in shown if e.group == "worst"] == order[:5]
    assert [e.name for e in shown if e.group == "best"] == order[::-1][:3]
    assert collector.seen == 200
    assert len(collector._worst) + len(collector._best) + len(collector._drawn) == 8


def test_of_equals_the_earlier_stay_and_no_picture_is_shown_twice() -> None:
    collector = ExampleCollector(worst=2, typical=2, best=2)
    for i in range(4):
        collector.add(classified(0.5, str(i)), Target(label=0), PICTURE)
    shown = collector.examples(("cat", "dog"))
    assert [e.name for e in shown if e.group == "worst"] == ["0", "1"]
    assert len({e.name for e in shown}) == len(shown)


def test_the_draw_is_fair_and_repeatable() -> None:
    def drawn(seed: int) -> list[str]:
        collector = ExampleCollector(worst=0, typical=3, best=0, seed=seed, cost=lambda prediction, target: 0.0)
        for i in range(12):
            collector.add(classified(i / 12, str(i)), Target(label=0), PICTURE)
        return sorted(kept.prediction.name for kept in collector._drawn)

    assert drawn(1) == drawn(1)
    counts = np.bincount([int(name) for seed in range(400) for name in drawn(seed)], minlength=12)
    # 400 x 3 / 12 = 100 each; six standard deviations of a binomial are 52.
    assert counts.min() > 48
    assert counts.max() < 152


def test_captions_and_pictures() -> None:
    found = detections([LEFT, RIGHT], [0, 0], [0.9, 0.1])
    collector = ExampleCollector(worst=1, typical=0, best=0)
    collector.add(found, objects([LEFT, RIGHT], [0, 1]), PICTURE)
    example = collector.examples(("cat", "dog"), threshold=0.5)[0]
    assert example.caption == "1 hit, 1 missed, 0 false alarms"
    assert example.truth_picture.shape == example.prediction_picture.shape == PICTURE.shape
    assert not torch.equal(example.truth_picture, example.prediction_picture)
    with_picture = Classification(torch.tensor([0.25, 0.75]), SIZE, ("cat", "dog"), "b", PICTURE)
    shown = collect_examples([(with_picture, Target(label=0))], ("cat", "dog"))
    assert [e.caption for e in shown] == ["dog, 0.75; it is cat (0.25)"]
    assert "right" in collect_examples([(with_picture, Target(label=1))], ("cat", "dog"))[0].caption
    both = Segmentation(torch.zeros(SIZE, dtype=torch.uint8), SIZE, categories=("a",), image=PICTURE)
    truth = Target(label_map=torch.zeros(SIZE, dtype=torch.uint8))
    assert collect_examples([(both, truth)], ("a",))[0].caption == "mean IoU 1.00, 0.0 % of the pixels wrong"
