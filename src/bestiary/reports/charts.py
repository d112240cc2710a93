"""The plots of a report: precision and recall, how far to trust a probability, and how training went."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.reports.svg import STYLES, Line, line_plot
from bestiary.training.logs import panels


@dataclass(frozen=True)
class Chart:
    """A plot and its legend.

    Attributes:
        title: heading.
        svg: the plot, safe to put into the page as it is.
        legend: class of the swatch, name and note of each line.
        remark: a sentence under it.
    """

    title: str
    svg: str
    legend: list[tuple[str, str, str]]
    remark: str = ""


def curve_chart(scores: Scores) -> Chart | None:
    """Precision against recall: the mean over the classes strong, and the classes, the worst `STYLES` if there are
    more.
    """
    curves = scores.details.get("curves")
    if not curves:
        return None
    quality = {name: _area(curve) for name, curve in curves.items()}
    shown = sorted(curves, key=lambda name: quality[name])[:STYLES]
    lines = []
    recalls = np.linspace(0, 1, 101)
    if len(curves) > 1:
        heights = np.stack([_height_at(curve, recalls) for curve in curves.values()]).mean(0)
        lines.append(Line("mean", list(zip(recalls.tolist(), heights.tolist(), strict=True)), -1))
    for style, name in enumerate(shown):
        lines.append(Line(name, _reached(curves[name]), style))
    legend = [
        (line.css, line.name, f"{quality[line.name]:.3f}" if line.style >= 0 else f"{mean_of_measured(quality):.3f}")
        for line in lines
    ]
    worst = f"the mean and the {len(shown)} worst of {len(curves)} classes"
    described = "Precision against recall of " + (worst if len(curves) > STYLES else ", ".join(shown))
    svg = line_plot(lines, "recall", "precision", described, (0.0, 1.0), (0.0, 1.0))
    remark = "Numbers are mean precision over 101 recalls." + (f" Shown are {worst}." if len(curves) > STYLES else "")
    return Chart("Precision and recall", svg, legend, remark)


def _reached(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Points of the curve up to the highest recall reached, then straight down."""
    points = [(float(r), float(p)) for r, p in zip(curve["recall"], curve["precision"], strict=True)]
    kept = [point for point in points if point[1] > 0] or points[:1]
    return [*kept, (kept[-1][0], 0.0)] if kept else []


def _height_at(curve: Mapping[str, Any], recalls: np.ndarray) -> np.ndarray:
    """Precision at given recalls, monotone from the right; 0 beyond the last."""
    recall, precision = np.asarray(curve["recall"], float), np.asarray(curve["precision"], float)
    if not recall.size:
        return np.zeros(len(recalls))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, recalls - 1e-12)
    return np.where(at < len(recall), envelope[np.minimum(at, len(recall) - 1)], 0.0)


def _area(curve: Mapping[str, Any]) -> float:
    return float(_height_at(curve, np.linspace(0, 1, 101)).mean())


def calibration_chart(scores: Scores) -> Chart | None:
    """How often answers of a given probability are right, against that probability."""
    bins = scores.details.get("calibration")
    if not bins:
        return None
    points = [(row["confidence"], row["accuracy"]) for row in bins]
    svg = line_plot(
        [Line("this model", points, 0)], "probability it gives", "share that is right",
        "How often answers of a given probability are right", (0.0, 1.0), (0.0, 1.0), diagonal=True,
    )  # fmt: skip
    over = sum(row["count"] * (row["confidence"] - row["accuracy"]) for row in bins) / sum(row["count"] for row in bins)
    kind = "more sure of itself than it should be" if over > 0 else "less sure of itself than it could be"
    remark = (
        "On the broken line a probability can be taken at its word. "
        f"On average the model is {kind}, by {abs(over):.3f}."
    )
    return Chart(
        "Can its probabilities be trusted?", svg, [("s0", "this model", "")], remark if abs(over) > 0.005 else ""
    )


def history_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Losses, terms, scores and learning rate by epoch."""
    rows = [dict(row) for row in history]
    if not rows:
        return []
    charts = []
    for title, names in panels(rows, most=STYLES).items():
        lines = []
        for style, name in enumerate(names):
            measured = [(float(row.get("epoch", i + 1)), _as_number(row.get(name))) for i, row in enumerate(rows)]
            # A number taken every few epochs is still one line.
            points = [(x, y) for x, y in measured if math.isfinite(y)]
            lines.append(Line(name, points, style))
        svg = line_plot(lines, "epoch", "", f"{title} by epoch: {', '.join(names)}")
        legend = [(line.css, line.name, f"{line.points[-1][1]:.4g}") for line in lines if line.points]
        charts.append(Chart(title.capitalize(), svg, legend))
    return charts


def _as_number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
