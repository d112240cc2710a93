"""What every fitted detector does: reads annotated pictures, judges windows, calibrates, and answers clipped and best
first.
"""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import bestiary.heads.fitted_detection as module
from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE
from bestiary.errors import RecordError, UsageError
from bestiary.heads.fitted_detection import (
    FittedDetector,
    Found,
    ScoreScale,
    annotated,
    apart_from,
    boxes_by_category,
    judged,
)
from bestiary.heads.truth import Truth
from bestiary.records import Objects, Sample, Target

BOX = [10.0, 10.0, 30.0, 30.0]


def sample(boxes: list, labels: list[int], name: str = "a.png", **fields: Tensor) -> Sample:
    objects = Objects(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), **fields)
    return Sample(torch.full((3, 40, 60), 9, dtype=torch.uint8), Target(objects=objects), name, (40, 60))


def rows(boxes: Sequence) -> Tensor:
    return torch.tensor(boxes).float().reshape(-1, 4)


def found(boxes: list, labels: list[int], margins: list[float]) -> Found:
    return Found(rows(boxes), torch.tensor(labels, dtype=torch.int64), torch.tensor(margins).float())


def truth(boxes: list, labels: list[int], crowds: Sequence = ()) -> Truth:
    return Truth(rows(boxes), torch.tensor(labels, dtype=torch.int64), rows(crowds))


class Everywhere(FittedDetector):
    """Finds what it was told to find."""

    answers: Found

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        self.calibrate(samples, say)

    def find(self, image: Tensor) -> Found:
        assert image.dtype == torch.uint8
        return self.answers


def test_difficult_objects_and_crowds_stand_apart() -> None:
    boxes, mask = [BOX, [0, 0, 5, 5], [1, 1, 9, 9], [20, 20, 20, 30]], torch.tensor
    given = sample(boxes, [0, 1, 0, 1], crowd=mask([0, 1, 0, 0]).bool(), difficult=mask([0, 0, 1, 0]).bool())
    (picture,) = annotated([given], 2)
    assert picture.truth.boxes_xyxy.tolist() == [BOX]
    assert picture.truth.crowds_xyxy.tolist() == [[0, 0, 5, 5], [1, 1, 9, 9]]
    assert picture.size_hw == (40, 60)
    only_difficult = sample([BOX], [0], difficult=mask([True]))
    assert len(next(annotated([only_difficult], 1)).truth.boxes_xyxy) == 0


def test_each_picture_is_decoded_once_a_pass_and_the_pass_says_how_far_it_is(monkeypatch, unchecked: None) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    asked, lines = [], []

    class Counted(Sequence):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index):
            asked.append(index)
            return sample([BOX], [0])

    assert len(list(annotated(Counted(), 1, lines.append, [3, 1, 4, 1, 5, 9, 2, 6], "searched"))) == 8
    assert asked == [3, 1, 4, 1, 5, 9, 2, 6]
    assert lines == ["2 of 8 pictures searched", "5 of 8 pictures searched"]


def test_errors_name_the_picture() -> None:
    with pytest.raises(UsageError, match="at least one"):
        next(annotated([], 1))
    with pytest.raises(RecordError, match=r"objects of b\.png.*0 to 1"):
        next(annotated([sample([BOX], [2], "b.png")], 2))
    unknown = Sample(torch.zeros(3, 4, 4), Target(), "c.png", (4, 4))
    with pytest.raises(RecordError, match=r"objects of c\.png.*None"):
        next(annotated([unknown], 1))
    with pytest.raises(RecordError, match=r"d\.png"):
        next(annotated([Sample(torch.zeros(3, 0, 4), Target(), "d.png", (0, 4))], 1))


def test_boxes_by_category() -> None:
    boxes = boxes_by_category([sample([BOX, [0, 0, 2, 2]], [1, 0]), sample([], []), sample([BOX], [1])], 3)
    assert [len(b) for b in boxes] == [1, 2, 0]
    assert boxes[1].tolist() == [BOX, BOX]


def test_the_best_window_finds_an_object_and_the_next_is_a_false_alarm() -> None:
    windows = found(
        [BOX, [11, 10, 31, 30], BOX, [40, 5, 50, 15], [0, 0, 8, 8]], [0, 0, 1, 0, 0], [0.2, 0.9, 0.5, 0.1, 0]
    )
    kinds = judged(windows, truth([BOX], [0], [[0, 0, 9, 9]]))
    assert kinds.tolist() == [NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE, IGNORE]
    assert judged(windows, truth([], [])).tolist() == [NEGATIVE] * 5
    assert judged(found([], [], []), truth([BOX], [0])).tolist() == []
    near = found([[10, 10, 30, 20]], [0], [1.0])  # IoU exactly one half
    assert judged(near, truth([BOX], [0])).tolist() == [POSITIVE]


def test_a_window_apart_from_the_objects_of_its_category() -> None:
    boxes = torch.tensor([BOX, [28.0, 28, 50, 50], [0, 0, 8, 8]])
    seen = truth([BOX, [28, 28, 50, 50]], [0, 1], [[0, 0, 9, 9]])
    assert apart_from(boxes, seen, 0, 0.3).tolist() == [False, True, False]
    assert apart_from(boxes, seen, 1, 0.3).tolist() == [True, False, False]
    assert apart_from(boxes, seen, 2, 0.3).tolist() == [True, True, False]


def test_probabilities_keep_the_order_and_say_how_often() -> None:
    margins = torch.linspace(-2, 2, 400)
    kinds = torch.where(torch.rand(400, generator=torch.Generator().manual_seed(0)) < (3 * margins).sigmoid(), 1, 0)
    windows = found([BOX] * 400, [1] * 400, margins.tolist())
    scale = ScoreScale(3)
    scale.fit(windows, kinds.to(torch.int8))
    assert scale.slope[1] == pytest.approx(3, rel=0.3)
    torch.testing.assert_close(scale(windows), (3 * margins).sigmoid(), atol=0.1, rtol=0)
    assert (scale.slope[[0, 2]] == 1).all()
    scale.fit(windows, 1 - kinds.to(torch.int8))  # a category whose margins say the opposite keeps their order
    assert (scale(windows).diff() >= 0).all()
    scale.fit(windows, torch.full((400,), IGNORE, dtype=torch.int8))
    assert scale.slope.tolist() == [1, 1, 1]


def test_answers_are_clipped_suppressed_and_best_first() -> None:
    system = Everywhere(["cat", "dog"], nms_overlap=0.5, max_detections=3)
    with pytest.raises(UsageError, match="not been fitted"):
        system.predict_images([torch.zeros(3, 40, 60)])
    system.answers = found(
        [[-5, -5, 20, 20], BOX, [11, 10, 31, 30], BOX, [61, 5, 90, 9], [1, 1, 4, 4]],
        [0, 0, 0, 1, 0, 1],
        [2, 1, 3, -1, 9, -9],
    )
    system.fit([sample([BOX], [0]), sample([BOX], [1])])
    (answer,) = system.predict_images([torch.zeros(1, 40, 60)])
    cats = answer.boxes_xyxy[answer.labels == 0]
    assert cats.tolist() == [[11, 10, 31, 30], [0, 0, 20, 20]]  # the third overlaps the best, the fourth is outside
    assert answer.boxes_xyxy[answer.labels == 1].tolist() == [BOX]  # its other one is the worst of four
    assert (answer.scores.diff() <= 0).all()
    assert answer.size_hw == (40, 60)
    with pytest.raises(RecordError, match=r"images\[1\]"):
        system.predict_images([torch.zeros(3, 4, 4), torch.zeros(3, 0, 4)])


def test_calibration_looks_at_no_more_pictures_than_it_is_told(unchecked: None) -> None:
    system = Everywhere(["cat"])
    system.answers, seen = found([BOX], [0], [1.0]), []

    class Counted(Sequence):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index):
            seen.append(index)
            return sample([BOX], [0])

    system.calibrate(Counted(), at_most=4)
    assert seen == [0, 3, 6, 9]


def test_arguments_that_cannot_be_are_named() -> None:
    with pytest.raises(UsageError, match="category"):
        Everywhere([])
    with pytest.raises(UsageError, match="nms_overlap"):
        Everywhere(["cat"], nms_overlap=1.5)
    with pytest.raises(UsageError, match="max_detections"):
        Everywhere(["cat"], max_detections=0)
