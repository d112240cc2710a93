"""Methods of proposing boxes side by side: one page, as a report's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import bestiary
from bestiary.errors import UsageError
from bestiary.metrics.scores import Scores
from bestiary.pictures.encode import write_bytes
from bestiary.reports.charts import Chart
from bestiary.reports.svg import Line, line_plot


@dataclass(frozen=True)
class MethodRow:
    """One method of the page.

    Attributes:
        name: as it was asked for.
        scores: of `bestiary.metrics.proposals.ProposalScores`.
        milliseconds: a picture; None where nothing was timed.
    """

    name: str
    scores: Scores
    milliseconds: float | None


def write_proposals_page(path: str | Path, rows: Sequence[MethodRow], facts: Mapping[str, str]) -> Path:
    """Write the page: a table, and recall over the number of boxes at every overlap.

    Raises:
        UsageError: no method, or the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if not rows:
        raise UsageError("got no method, wanted at least one", where=str(path))
    environment = Environment(
        loader=PackageLoader("bestiary.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    page = environment.get_template("proposals.html.jinja").render(
        rows=rows,
        columns=list(rows[0].scores.values),
        facts={
            **facts,
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "bestiary": bestiary.__version__,
        },
        charts=recall_charts(rows),
        protocol=rows[0].scores.protocol,
    )
    try:
        write_bytes(Path(path), page.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"the report cannot be written: {error.strerror}", where=str(path)) from error
    return Path(path)


def recall_charts(rows: Sequence[MethodRow]) -> list[Chart]:
    """Recall against the number of boxes: AR, and recall at each overlap."""
    kinds = list(rows[0].scores.details["recall_curves"])
    charts = []
    for kind in sorted(kinds, key=lambda k: k != "AR"):
        lines, legend = [], []
        for style, row in enumerate(rows):
            numbers, curve = row.scores.details["numbers"], row.scores.details["recall_curves"][kind]
            points = [(math.log10(n), float(r)) for n, r in zip(numbers, curve, strict=True)]
            lines.append(Line(row.name, points, style))
            legend.append((lines[-1].css, row.name, f"{points[-1][1]:.3f}"))
        furthest = max(line.points[-1][0] for line in lines) or 1.0
        title = "Average recall, IoU .50 to .95" if kind == "AR" else f"Recall at IoU {kind.partition('@')[2]}"
        described = f"{title} by the number of boxes: {', '.join(row.name for row in rows)}"
        ends = (0.0, furthest), (0.0, 1.0)
        svg = line_plot(lines, "boxes a picture", "recall", described, *ends, x_powers=True)
        charts.append(Chart(title, svg, legend, "Numbers are those of the most boxes."))
    return charts


def _number(value: float | None, name: str = "") -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if name == "boxes" else f"{value:.1f}" if name == "ms" else f"{value:.3f}"
