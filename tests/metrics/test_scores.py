"""Scores print their protocol, survive JSON, and refuse to be without a headline."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bestiary.errors import RecordError
from bestiary.metrics.scores import Scores, format_number, mean_of_measured, plain


def example() -> Scores:
    values = {"loss": 0.25, "AP": 0.5, "AP_small": math.nan}
    per_class = {"cat": {"AP": 0.5, "count": 3.0}, "dog": {"AP": math.nan}}
    return Scores("AP", values, "COCO boxes", per_class, {"curve": np.array([0.5, np.nan]), "points": (1, None)})


def test_lines_lead_with_the_headline_and_end_with_the_protocol() -> None:
    lines = example().lines()
    assert lines[0].split() == ["AP", "0.5000"]
    assert lines[1:3] == ["loss      0.2500", "AP_small  -"]
    assert lines[-1] == "(COCO boxes)"
    assert "cat  AP 0.5000  count 3" in example().lines(per_class=True)
    assert str(example()) == "\n".join(lines)


def test_table_shows_numbers_and_protocol() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(example().table())
    console.print(example().table(per_class=True))
    text = console.export_text()
    for piece in ("COCO boxes", "0.5000", "cat", "count", "dog", " 3 "):
        assert piece in text


def test_round_trip_through_json() -> None:
    text = json.dumps(example().to_dict(), allow_nan=False)
    again = Scores.from_dict(json.loads(text))
    assert again.to_dict() == example().to_dict()
    assert again.value == 0.5
    assert math.isnan(again.values["AP_small"])
    assert again.details["curve"] == [0.5, None]


def test_a_headline_must_be_among_the_values_and_a_protocol_said() -> None:
    with pytest.raises(RecordError, match="headline"):
        Scores("AP", {"mAP": 1.0}, "x")
    with pytest.raises(RecordError, match="protocol"):
        Scores("AP", {"AP": 1.0}, " ")
    with pytest.raises(RecordError, match="values"):
        Scores.from_dict({"headline": "AP", "protocol": "x"})


def test_plain_is_json_or_an_error() -> None:
    value = {1: torch.tensor([1, 2]), "p": Path("a") / "b", "x": np.float64("inf"), "b": np.bool_(True), "s": {3}}
    assert plain(value) == {"1": [1, 2], "p": "a/b", "x": None, "b": True, "s": [3]}
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_mean_leaves_out_what_was_not_measured() -> None:
    assert mean_of_measured({"a": 1.0, "b": math.nan, "c": 0.0}) == 0.5
    assert math.isnan(mean_of_measured(np.array([np.nan])))
    assert math.isnan(mean_of_measured({}))


def test_numbers_are_printed_alike() -> None:
    assert [format_number(v) for v in (1.0, 0.12345, -2.0, math.nan)] == ["1.0000", "0.1235", "-2.0000", "-"]
    assert format_number(12.0, "count") == "12"
