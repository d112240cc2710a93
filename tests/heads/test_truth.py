"""What a detector learns from a picture: objects, crowds, and how boxes match them."""

import pytest
import torch

from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE, ThresholdMatcher
from bestiary.errors import RecordError
from bestiary.heads.truth import Truth, assign, truths_of
from bestiary.records import Objects, Target


def objects(*rows: tuple[float, float, float, float, int], crowd: list[bool] | None = None) -> Objects:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    flags = None if crowd is None else torch.tensor(crowd)
    return Objects(table[:, :4].contiguous(), table[:, 4].long(), crowd=flags)


def test_crowds_stand_apart() -> None:
    truth = Truth.of(objects((0, 0, 4, 4, 1), (5, 5, 9, 9, 2), crowd=[False, True]))
    assert truth.boxes_xyxy.tolist() == [[0, 0, 4, 4]]
    assert truth.labels.tolist() == [1]
    assert truth.crowds_xyxy.tolist() == [[5, 5, 9, 9]]


def test_objects_without_area_teach_nothing() -> None:
    truth = Truth.of(objects((3, 3, 3, 9, 0), (0, 0, 1, 1, 1), (2, 2, 8, 2, 1)))
    assert truth.boxes_xyxy.tolist() == [[0, 0, 1, 1]]
    assert truth.labels.tolist() == [1]
    assert len(truth.crowds_xyxy) == 0


def test_no_object_is_legal() -> None:
    (truth,) = truths_of([Target(objects=Objects.empty())], 1, 3)
    assert truth.boxes_xyxy.shape == (0, 4)
    assignment = assign(torch.rand(7, 4), truth, ThresholdMatcher(0.7, 0.3, True))
    assert assignment.kind.tolist() == [NEGATIVE] * 7


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([Target(objects=Objects.empty()), Target()], r"targets\[1\].objects: got None.*Objects.empty"),
        ([Target(objects=Objects.empty())], "targets: got 1, wanted one a picture, 2"),
        ([Target(objects=objects((0, 0, 1, 1, 0), (0, 0, 1, 1, 3)))] * 2, r"targets\[0\].objects.labels\[1\]: got 3"),
        ([Target(objects=objects((0, 0, 1, 1, -1)))] * 2, r"labels\[0\]: got -1, wanted 0 to 2"),
    ],
)
def test_a_target_that_does_not_fit_is_named(targets: list[Target], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        truths_of(targets, 2, 3)


def test_boxes_mostly_on_a_crowd_are_ignored() -> None:
    truth = Truth.of(objects((0, 0, 10, 10, 0), (20, 0, 40, 10, 0), crowd=[False, True]))
    boxes = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],  # the object
            [22.0, 0.0, 30.0, 10.0],  # inside the crowd
            [10.0, 0.0, 30.0, 10.0],  # half of it on the crowd, not more
            [11.0, 0.0, 30.0, 10.0],  # a little more than half
            [50.0, 0.0, 60.0, 10.0],  # nowhere near
        ]
    )
    kinds = assign(boxes, truth, ThresholdMatcher(0.5, 0.5)).kind.tolist()
    assert kinds == [POSITIVE, IGNORE, NEGATIVE, IGNORE, NEGATIVE]


def test_an_object_within_a_crowd_still_counts() -> None:
    truth = Truth.of(objects((0, 0, 10, 10, 0), (0, 0, 40, 40, 0), crowd=[False, True]))
    kinds = assign(
        torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]]), truth, ThresholdMatcher(0.5, 0.5)
    ).kind
    assert kinds.tolist() == [POSITIVE, IGNORE]


def test_a_crowd_is_never_matched() -> None:
    truth = Truth.of(objects((0, 0, 10, 10, 0), crowd=[True]))
    assert assign(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), truth, ThresholdMatcher(0.5, 0.5, True)).kind.tolist() == [
        IGNORE
    ]
