"""What a report says of label maps: how unequal their classes are, in which colours they are drawn, and what becomes of
them near borders.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from bestiary.draw import colour_of
from bestiary.metrics.scores import Scores
from bestiary.reports.charts import Chart
from bestiary.reports.svg import Line, line_plot
from bestiary.reports.words import listed, percent

UNEQUAL = 20
"""How many times as many pixels the most frequent class must have as the rarest to be worth a sentence."""

SHOWN = 5
"""Classes whose lines are drawn near borders: those that lose most."""


@dataclass(frozen=True)
class ClassShare:
    """One class's part of all pixels.

    Attributes:
        name: of the class.
        colour: in which pictures show it, as a page writes it; "" for none.
        true: share of the true pixels that are of it. said: share of the predicted ones.
        true_bar: width of a bar, per cent of the widest. said_bar: likewise.
        pictures: how many hold it; None if that was not counted.
        iou: of the class.
    """

    name: str
    colour: str
    true: float
    said: float
    true_bar: float
    said_bar: float
    pictures: int | None
    iou: float


def class_shares(scores: Scores) -> list[ClassShare]:
    """The classes of label maps, the most frequent first; none where `scores` are of something else."""
    found = _counts(scores)
    if found is None or not found[0].sum():
        return []
    counts, names = found
    true, said = counts.sum(1) / counts.sum(), counts.sum(0) / counts.sum()
    widest = max(true.max(), said.max())
    pictures = scores.details.get("pictures_with") or [None] * len(names)
    rows = [
        ClassShare(
            name=name,
            colour=colour_in_page(k, name),
            true=float(true[k]),
            said=float(said[k]),
            true_bar=float(100 * true[k] / widest),
            said_bar=float(100 * said[k] / widest),
            pictures=pictures[k],
            iou=scores.per_class.get(name, {}).get("iou", math.nan),
        )
        for k, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -row.true)


def colour_in_page(label: int, name: str) -> str:
    """`#rrggbb`; nothing for the background, which is not tinted."""
    return "" if name == "background" else "#{:02x}{:02x}{:02x}".format(*colour_of(label))


def swatches(categories: Sequence[str]) -> list[tuple[str, str]]:
    """Name and colour of every class that is drawn."""
    return [(name, colour) for k, name in enumerate(categories) if (colour := colour_in_page(k, name))]


def label_maps_in_words(scores: Scores, others: Sequence[Scores] = ()) -> list[str]:
    """Sentences on frequencies, classes never named, the costliest confusions and borders; none of other scores."""
    found = _counts(scores)
    if found is None or not found[0].sum():
        return []
    counts, names = found
    return [*_imbalance(counts, names), *_confusion(counts, names), *_borders(scores, others)]


def _imbalance(counts: Int64[np.ndarray, "K K"], names: Sequence[str]) -> list[str]:
    true, said, total = counts.sum(1), counts.sum(0), counts.sum()
    present = np.flatnonzero(true)
    most, least = int(present[true[present].argmax()]), int(present[true[present].argmin()])
    sentences = []
    if true[most] > UNEQUAL * true[least]:
        sentences.append(
            f"The classes are unequal: {names[most]} has {percent(true[most] / total)} of the pixels, {names[least]} "
            f"{100 * true[least] / total:.2g} %. Judge by mean IoU, not by pixel accuracy."
        )
    silent = [names[k] for k in present.tolist() if not said[k]]
    if silent:
        sentences.append(
            f"Never named: {listed(silent)}. Train longer, or make rare classes count for more "
            "(--class-balance median_frequency)."
        )
    return sentences


def _confusion(counts: Int64[np.ndarray, "K K"], names: Sequence[str]) -> list[str]:
    wrong = counts - np.diag(np.diag(counts))
    if wrong.sum() < 0.001 * counts.sum():
        return []
    truth, said = np.unravel_index(int(wrong.argmax()), wrong.shape)
    share = wrong[truth, said] / wrong.sum()
    return [
        f"{percent(wrong.sum() / counts.sum())} of the pixels are wrong; {percent(share)} of those are "
        f"{names[int(truth)]} taken for {names[int(said)]}."
    ]


def _borders(scores: Scores, others: Sequence[Scores]) -> list[str]:
    bands = next((table for other in others if (table := _bands(other.values, "mean_iou"))), None)
    if bands is None or math.isnan(scores.value):
        return []
    width = min(bands, key=lambda w: abs(w - 4))
    near = bands[width]
    if math.isnan(near):
        return []
    comparison = f"mean IoU is {near:.2f}, over whole pictures {scores.value:.2f}"
    if near > 0.85 * scores.value:
        return [f"Borders are met nearly as well as the rest: within {width} pixels of them {comparison}."]
    return [f"Much is lost at borders: within {width} pixels of them {comparison}."]


def border_chart(scores: Scores, others: Sequence[Scores]) -> Chart | None:
    """IoU of the pixels near true borders against the width of the band; None where that was not measured."""
    trimap = next((other for other in others if _bands(other.values, "mean_iou")), None)
    if trimap is None:
        return None
    lines = [Line("mean", _points(_bands(trimap.values, "mean_iou")), -1)]
    losses = {}
    for name, row in trimap.per_class.items():
        whole = scores.per_class.get(name, {}).get("iou", math.nan)
        points = [point for point in _points(_bands(row, "iou")) if math.isfinite(point[1])]
        if points and whole - points[0][1] > 0.005:
            losses[name] = whole - points[0][1], points
    worst = sorted(losses, key=lambda name: -losses[name][0])[:SHOWN]
    lines += [Line(name, losses[name][1], style) for style, name in enumerate(worst)]
    legend = [
        (line.css, line.name, f"{line.points[0][1]:.3f} to {line.points[-1][1]:.3f}") for line in lines if line.points
    ]
    described = "IoU of the pixels near borders, by their distance: " + ", ".join(line.name for line in lines)
    svg = line_plot(lines, "pixels from a true border, at most", "IoU", described, None, (0.0, 1.0))
    which = f" Beside the mean, the {len(worst)} classes that lose most at borders." if worst else ""
    return Chart("Near borders", svg, legend, f"Over whole pictures the mean is {scores.value:.3f}.{which}")


def _bands(values: Mapping[str, float], stem: str) -> dict[int, float]:
    """Width of the band -> IoU in it."""
    found = {}
    for name, value in values.items():
        match = re.fullmatch(rf"{stem}_(\d+)", name)
        if match:
            found[int(match[1])] = value
    return found


def _points(bands: Mapping[int, float]) -> list[tuple[float, float]]:
    return [(float(width), value) for width, value in bands.items()]


def _counts(scores: Scores) -> tuple[Int64[np.ndarray, "K K"], list[str]] | None:
    """The confusion matrix of pixels, and the names of its rows; None of scores that have none."""
    if "confusion" not in scores.details or "pixels" not in scores.details:
        return None
    names = list(scores.details.get("confusion_rows", scores.per_class))
    return np.asarray(scores.details["confusion"], np.int64), names
