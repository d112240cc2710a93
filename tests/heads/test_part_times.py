"""Seconds by part."""

import time

import pytest
from torch import nn

from bestiary.heads.part_times import PartTimes


def test_parts_add_up_until_they_are_cleared_also_when_they_fail() -> None:
    times = PartTimes()
    with times.of("features", nn.Linear(1, 1)):
        time.sleep(0.02)
    with times.of("heads"):
        pass
    first = dict(times.seconds)
    assert list(first) == ["features", "heads"]
    assert first["features"] >= 0.02
    assert 0 <= first["heads"] < first["features"]
    with pytest.raises(KeyError):
        fail(times)
    assert times.seconds["features"] >= first["features"] + 0.01
    times.clear()
    assert times.seconds == {}


def fail(times: PartTimes) -> None:
    with times.of("features"):
        time.sleep(0.01)
        raise KeyError
