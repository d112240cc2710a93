"""Strides, dilations and levels from a table of strides."""

import pytest

from bestiary.backbones.levels import Level
from bestiary.backbones.stride_plan import Step, StridePlan
from bestiary.errors import UsageError

TABLE = [(2, 8), (1, 8), (2, 16), (2, 24), (1, 24), (2, 32), (2, 40), (1, 40)]


def walk(plan: StridePlan) -> list[Step]:
    return [plan.layer(stride, channels) for stride, channels in TABLE]


def test_a_level_is_the_last_map_of_its_stride() -> None:
    plan = StridePlan()
    assert [step.stride for step in walk(plan)] == [stride for stride, _ in TABLE]
    assert plan.taps() == {
        1: Level("C1", 8, 2),
        2: Level("C2", 16, 4),
        4: Level("C3", 24, 8),
        5: Level("C4", 32, 16),
        7: Level("C5", 40, 32),
    }
    assert plan.layer_names()["C3"] == "features.4"


def test_skipped_strides_keep_the_names() -> None:
    plan = StridePlan(skip_strides=2)
    assert [step.stride for step in walk(plan)] == [1, 1, 1, 2, 1, 2, 2, 1]
    assert [(level.name, level.stride) for level in plan.taps().values()] == [
        ("C1", 1),
        ("C2", 1),
        ("C3", 2),
        ("C4", 4),
        ("C5", 8),
    ]


def test_past_the_output_stride_strides_become_dilations() -> None:
    steps = walk(StridePlan(output_stride=8))
    assert [step.stride for step in steps] == [2, 1, 2, 2, 1, 1, 1, 1]
    assert [step.dilation for step in steps] == [1, 1, 1, 1, 1, 1, 2, 4]
    assert [step.dilation_after for step in steps] == [1, 1, 1, 1, 1, 2, 4, 4]


@pytest.mark.parametrize("stride", [4, 12, 64])
def test_other_output_strides_are_refused(stride: int) -> None:
    with pytest.raises(UsageError, match="8, 16 or 32"):
        StridePlan(output_stride=stride)


def test_so_is_a_negative_number_of_skipped_strides() -> None:
    with pytest.raises(UsageError, match="0 to 5"):
        StridePlan(skip_strides=-1)
