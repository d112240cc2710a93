"""Plots: points land where they belong, ticks are round, texts are escaped."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bestiary.metrics.scores import Scores
from bestiary.reports.charts import calibration_chart, curve_chart, history_charts
from bestiary.reports.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_plot, ticks


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [3]),
        (1.2, 1.31, [1.2, 1.25, 1.3]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(float(low), float(high)) == pytest.approx(wanted)


def test_corners_of_the_plot() -> None:
    svg = parse(line_plot([Line("a", [(0.0, 0.0), (1.0, 1.0)])], "x", "y", "d", (0.0, 1.0), (0.0, 1.0)))
    points = next(e.attrib["points"] for e in svg.iter("polyline")).split()
    assert points == [f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f}", f"{WIDTH - RIGHT:.1f},{TOP:.1f}"]


def test_an_axis_of_powers_says_the_numbers() -> None:
    svg = line_plot([Line("a", [(0.0, 0.0), (3.3, 1.0)])], "boxes", "", "what", (0.0, 3.3), (0.0, 1.0), x_powers=True)
    found = [number for number in ("1", "10", "100", "1,000") if f'text-anchor="middle">{number}</text>' in svg]
    assert found == ["1", "10", "100", "1,000"]
    assert "10,000" not in svg


def test_lines_break_where_nothing_was_measured() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0)]
    svg = parse(line_plot([Line("a", points, 2)], "x", "", "d"))
    assert len(list(svg.iter("polyline"))) == 1
    assert [e.attrib["class"] for e in svg.iter("circle")] == ["dot s2"]
    assert len([e for e in svg.iter("text") if e.attrib.get("class") == "label"]) == 1


def test_texts_are_escaped_and_no_data_is_no_error() -> None:
    svg = line_plot([Line("<b>", [])], "<x>", "&", '"<d>')
    assert parse(svg).attrib["aria-label"] == '"<d>'
    assert "<x>" not in svg
    constant = parse(line_plot([Line("a", [(1.0, 5.0)])], "x", "y", "d"))
    assert len(list(constant.iter("circle"))) == 1


def test_curves_show_the_worst_classes_and_the_mean() -> None:
    def curve(height: float) -> dict[str, list[float]]:
        return {"recall": [0.0, 0.5, 1.0], "precision": [1.0, height, 0.0]}

    scores = Scores("AP", {"AP": 0.5}, "p", {}, {"curves": {f"c{i}": curve(i / 10) for i in range(10)}})
    chart = curve_chart(scores)
    assert chart is not None
    assert [name for _, name, _ in chart.legend] == ["mean", *(f"c{i}" for i in range(8))]
    # Height 1 at recall 0 only, i/10 up to one half, nothing beyond.
    assert chart.legend[3][2] == f"{(1 + 50 * 0.2) / 101:.3f}"
    assert "8 worst of 10" in chart.remark
    assert curve_chart(Scores("AP", {"AP": 0.5}, "p")) is None
    empty = Scores("AP", {"AP": 0.0}, "p", {}, {"curves": {"a": {"recall": np.zeros(0), "precision": np.zeros(0)}}})
    assert curve_chart(empty) is not None


def test_calibration_says_which_way_it_errs() -> None:
    def chart(confidence: float, accuracy: float) -> str:
        bins = [{"count": 10.0, "confidence": confidence, "accuracy": accuracy}]
        made = calibration_chart(Scores("a", {"a": 1.0}, "p", {}, {"calibration": bins}))
        assert made is not None
        return made.remark

    assert "more sure" in chart(0.9, 0.6)
    assert "by 0.300" in chart(0.9, 0.6)
    assert "less sure" in chart(0.6, 0.9)
    assert chart(0.7, 0.7) == ""
    assert calibration_chart(Scores("a", {"a": 1.0}, "p", {}, {"calibration": []})) is None


def test_history_joins_what_is_measured_now_and_then() -> None:
    rows = [{"epoch": i, "train/loss": 1.0 / i, "lr": 0.1} for i in range(1, 5)]
    rows[1]["score/AP"], rows[3]["score/AP"] = 0.25, 0.5
    charts = {chart.title: chart for chart in history_charts(rows)}
    assert list(charts) == ["Loss", "Scores", "Learning rate"]
    assert charts["Scores"].legend == [("s0", "score/AP", "0.5")]
    assert len(re.findall("<polyline", charts["Scores"].svg)) == 1
    assert history_charts([]) == []
