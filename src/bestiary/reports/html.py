"""One page on how a model does: a single HTML file that needs neither network nor script, for phone, desk and print.

write_report("report.html", title="Blood cells", scores=scores, facts={"model": "retinanet_resnet18_fpn"},
examples=examples)
"""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

import bestiary
from bestiary.errors import UsageError
from bestiary.metrics.errors import KINDS, MEANINGS, ErrorSplit
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.records import require
from bestiary.reports.charts import calibration_chart, curve_chart, history_charts
from bestiary.reports.examples import Example
from bestiary.reports.label_maps import border_chart, class_shares, label_maps_in_words, swatches
from bestiary.reports.words import advice_in_words, confusions_in_words, imbalance_notes, mistakes_in_words, percent

PICTURE_SIDE = 560
"""Longest side of a picture in the page, pixels."""

LARGEST_HEAT_MAP = 40
"""Classes up to which the confusion matrix is shown whole; beyond, only the most frequent confusions are listed."""


LONGEST_COUNT = 100_000
"""From here on a count is too long for its cell."""


def write_report(
    path: str | Path,
    *,
    title: str,
    scores: Scores,
    extra_scores: Sequence[Scores] = (),
    facts: Mapping[str, str] | None = None,
    examples: Sequence[Example] = (),
    errors: ErrorSplit | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page. What is not given, or not in the scores' details, is left out.

    Args:
        path: file to write; its folder is made, and an older file is replaced whole.
        title: heading.
        scores: the numbers to lead with; curves, confusion matrix and thresholds come from their details.
        extra_scores: the same predictions by other protocols.
        facts: of the run, in order: model, data, settings, command ... The date and version are added.
        examples: pictures, worst first (`bestiary.reports.examples`).
        errors: a detector's mistakes by kind.
        history: one row an epoch, as in results.csv.

    Returns:
        The path.

    Raises:
        UsageError: the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bestiary.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": percent, "share": _share}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = environment.get_template("report.html.jinja").render(
        title=title,
        scores=scores,
        others=[name for name in scores.values if name != scores.headline],
        extra_scores=extra_scores,
        facts={**(facts or {}), "written": now, "bestiary": bestiary.__version__},
        advice=[
            *advice_in_words(scores),
            *(mistakes_in_words(errors) if errors else []),
            *label_maps_in_words(scores, extra_scores),
        ],
        notes=imbalance_notes(scores),
        errors=_error_rows(errors) if errors else [],
        split=errors,
        curves=curve_chart(scores),
        calibration=calibration_chart(scores),
        heat=heat_map(scores),
        shares=class_shares(scores),
        borders=border_chart(scores, extra_scores),
        swatches=_swatches(scores, examples),
        classes=_class_table(scores),
        groups=_example_groups(examples),
        training=history_charts(history),
    )
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        scratch.write_text(page, encoding="utf-8")
        scratch.replace(target)
    except OSError as error:
        raise UsageError(f"the report cannot be written: {error.strerror}", where=str(target)) from error
    return target


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix ready to be shown.

    Attributes:
        rows: name of each truth, its number, and its cells: text, share of the truth 0..1, whether it is right, title.
        columns: names of the predictions.
        whole: the matrix is small enough to be shown.
        as_shares: the texts are per cent of the truth, since counts would be too long.
        frequent: most frequent confusions: truth, prediction, count, share.
        unit: what is counted.
        protocol: how it was taken.
    """

    rows: list[tuple[str, int, list[tuple[str, float, bool, str]]]]
    columns: list[str]
    whole: bool
    as_shares: bool
    frequent: list[tuple[str, str, int, float]]
    unit: str
    protocol: str


def heat_map(scores: Scores) -> HeatMap | None:
    """The confusion matrix in the details of `scores`, or None if there is none.

    Raises:
        RecordError: it does not fit its names.
    """
    if "confusion" not in scores.details:
        return None
    counts = np.asarray(scores.details["confusion"], dtype=np.int64)
    names = list(scores.per_class)
    row_names = list(scores.details.get("confusion_rows", names))
    column_names = list(scores.details.get("confusion_columns", names))
    wanted = f"{len(row_names)} x {len(column_names)}, as its names"
    require(counts.shape == (len(row_names), len(column_names)), "details.confusion", f"shape {counts.shape}", wanted)
    totals = counts.sum(1)
    unit = "pixels" if "pixels" in scores.details else "times"
    as_shares = bool(counts.max(initial=0) >= LONGEST_COUNT)
    rows = []
    for name, total, line in zip(row_names, totals.tolist(), counts.tolist(), strict=True):
        cells = []
        for column, count in zip(column_names, line, strict=True):
            share = count / total if total else 0.0
            text = "·" if not count else percent(share).removesuffix(" %") if as_shares else str(count)
            cells.append((text, share, name == column, f"{name} taken for {column}: {count:,} of {total:,}"))
        rows.append((name, total, cells))
    frequent = confusions_in_words(counts, row_names, column_names)
    protocol = str(scores.details.get("confusion_protocol", ""))
    return HeatMap(rows, column_names, len(row_names) <= LARGEST_HEAT_MAP, as_shares, frequent, unit, protocol)


def _class_table(scores: Scores) -> dict[str, Any] | None:
    """Names and rows of the classes, worst first, those not measured last; the first column rules."""
    if not scores.per_class:
        return None
    columns = list(dict.fromkeys(name for row in scores.per_class.values() for name in row))
    lead = columns[0]
    rows = sorted(
        scores.per_class.items(),
        key=lambda item: (math.isnan(item[1].get(lead, math.nan)), item[1].get(lead, math.nan), item[0]),
    )
    mean = {name: mean_of_measured(np.array([row.get(name, math.nan) for _, row in rows])) for name in columns}
    shown = [(name, [(column, row.get(column, math.nan)) for column in columns]) for name, row in rows]
    means = [
        (column, mean[column]) if column not in ("count", "best_threshold") else (column, None) for column in columns
    ]
    return {"columns": columns, "rows": shown, "mean": means}


def _error_rows(errors: ErrorSplit) -> list[dict[str, Any]]:
    """Mistakes, costliest first; `share` is of the costliest, for the bar."""
    most = max([*errors.cost.values(), 1e-9])
    rows = [
        {
            "kind": kind,
            "meaning": MEANINGS[kind],
            "cost": errors.cost[kind],
            "share": max(0.0, errors.cost[kind] / most),
            "count": errors.counts_above[kind],
        }
        for kind in KINDS
    ]
    return sorted(rows, key=lambda row: -row["cost"])


def _example_groups(examples: Sequence[Example]) -> list[dict[str, Any]]:
    headings = {"worst": "Worst pictures", "typical": "Drawn at random", "best": "Best pictures"}
    groups = []
    for group, heading in headings.items():
        cards = [
            {
                "name": example.name,
                "caption": example.caption,
                "truth": picture_uri(example.truth_picture),
                "prediction": picture_uri(example.prediction_picture),
                "mistakes": None if example.mistakes_picture is None else picture_uri(example.mistakes_picture),
            }
            for example in examples
            if example.group == group
        ]
        if cards:
            rows = any(card["mistakes"] for card in cards)
            groups.append({"heading": heading, "cards": cards, "rows": rows})
    return groups


def _swatches(scores: Scores, examples: Sequence[Example]) -> list[tuple[str, str]]:
    """The legend of the pictures, where label maps are drawn without one."""
    if not any(example.mistakes_picture is not None for example in examples):
        return []
    return swatches(list(scores.details.get("confusion_rows", scores.per_class)))


def picture_uri(picture: UInt8[Tensor, "3 H W"], side: int = PICTURE_SIDE) -> str:
    """The picture as a JPEG data URI, shrunk so that its longest side is at most `side`."""
    from PIL import Image

    image = Image.fromarray(_as_array(picture))
    if max(image.size) > side:
        factor = side / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _as_array(picture: UInt8[Tensor, "3 H W"]) -> Shaped[np.ndarray, "H W 3"]:
    return np.ascontiguousarray(picture.cpu().permute(1, 2, 0).numpy())


def _share(value: float) -> str:
    """Per cent with two digits that mean something."""
    if 0 < value < 1e-4:
        return "< 0.01 %"
    return f"{100 * value:.0f} %" if value >= 0.1 or not value else f"{100 * value:.2g} %"


def _number(value: float, name: str = "") -> str:
    """Three decimals, none for a count, a dash where nothing was measured."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if name == "count" else f"{value:.3f}"
