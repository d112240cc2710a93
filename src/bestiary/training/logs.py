"""Where a run is written down: results.csv, curves.png, TensorBoard events. Each is a callback of the loop."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from bestiary.training.checkpoint import write_atomically
from bestiary.training.events import Callback, End, Epoch, Start, Step
from bestiary.training.run import RunFolder


class ResultsCsv(Callback):
    """results.csv: one row an epoch, written whole each time, so that a resumed run leaves no row twice.

    Columns are the union of all rows' keys in the order in which they first came; a number that an epoch does not have
    is empty.
    """

    def on_start(self, event: Start) -> None:
        """Write the rows that an earlier call finished."""
        self.path = RunFolder(event.folder).results
        if event.history:
            write_atomically(self.path, table_text(event.history))

    def on_epoch(self, event: Epoch) -> None:
        """Write all rows."""
        write_atomically(self.path, table_text(event.history))


def table_text(rows: list[dict[str, Any]]) -> str:
    """Rows as comma-separated text with a header."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.8g}" if isinstance(value, float) else value


class TensorBoardLog(Callback):
    """TensorBoard scalars: loss and learning rate every `every` steps, the epoch's numbers against its last step."""

    def __init__(self, every: int = 20) -> None:
        self.every = every

    def on_start(self, event: Start) -> None:
        """Open the run's event file."""
        from torch.utils.tensorboard import SummaryWriter

        # What a killed run wrote after the checkpoint it is resumed from would otherwise stand there twice.
        self.writer = SummaryWriter(
            str(RunFolder(event.folder).events), purge_step=event.step + 1 if event.step else None
        )

    def on_step(self, event: Step) -> None:
        """Write the step, every so often."""
        if event.step % self.every == 0:
            self.writer.add_scalar("step/loss", event.loss, event.step)
            self.writer.add_scalar("step/lr", event.lr, event.step)
            self.writer.add_scalar("step/gradient_norm", event.gradient_norm, event.step)

    def on_epoch(self, event: Epoch) -> None:
        """Write the epoch's numbers."""
        for name, value in event.row.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                self.writer.add_scalar(name, value, event.step)
        self.writer.flush()

    def on_end(self, event: End) -> None:
        """Close the event file."""
        self.writer.close()


class Curves(Callback):
    """curves.png: losses, scores and learning rate over the epochs; drawn at most every `seconds` and at the end."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._drawn = -math.inf

    def on_start(self, event: Start) -> None:
        """Where to draw."""
        self.path = RunFolder(event.folder).curves

    def on_epoch(self, event: Epoch) -> None:
        """Draw, if the last drawing is old enough."""
        import time

        if time.monotonic() - self._drawn >= self.seconds:
            draw_curves(self.path, event.history)
            self._drawn = time.monotonic()

    def on_end(self, event: End) -> None:
        """Draw the whole run."""
        if event.history:
            draw_curves(self.path, event.history)


def draw_curves(path: Path, history: list[dict[str, Any]]) -> Path:
    """Draw the history's losses, scores and learning rate side by side.

    Args:
        path: a PNG file.
        history: rows of results.csv, at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    groups = panels(history)
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.4 * rows), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    for place, (title, names) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for name in names:
            points = [(row["epoch"], row[name]) for row in history if _is_number(row.get(name))]
            style = "--" if name.startswith("val/") else "-"
            label = name if title in ("loss", "terms") else name.rpartition("/")[2]
            axes.plot(*zip(*points, strict=True), style, label=label, marker="." if len(points) < 30 else None)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
    scratch = path.with_name(path.name + ".writing")
    figure.savefig(scratch, format="png")
    scratch.replace(path)
    return path


def panels(history: list[dict[str, Any]], most: int = 10) -> dict[str, list[str]]:
    """Which columns go into which panel: "loss", "terms" (where there are several), "scores", "learning rate"."""
    names = [n for n in dict.fromkeys(k for row in history for k in row) if any(_is_number(r.get(n)) for r in history)]
    losses = [n for n in names if n in ("train/loss", "val/loss")]
    terms = [n for n in names if n.startswith(("train/", "val/")) and n not in losses]
    scores = [n for n in names if n.startswith("score/")]
    # Counts among the scores would flatten the shares, if they shared an axis.
    shares = [n for n in scores if all(abs(r[n]) <= 1 for r in history if _is_number(r.get(n)))]
    groups = {
        "loss": losses,
        "terms": terms if len(terms) > 2 else [],
        "scores": shares or scores,
        "learning rate": ["lr"],
    }
    return {title: group[:most] for title, group in groups.items() if group}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
