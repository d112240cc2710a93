import csv
import io
import math
from pathlib import Path
from typing import Any

import cv2
import pytest
from rich.console import Console as RichConsole
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bestiary.training import console
from bestiary.training.console import Console, TimeLeft, duration, epoch_line
from bestiary.training.events import End, Epoch, Start, Step
from bestiary.training.logs import Curves, ResultsCsv, TensorBoardLog, draw_curves, panels, table_text
from bestiary.training.settings import Settings


def row(epoch: int, **more: Any) -> dict[str, Any]:
    about = {"epoch": epoch, "step": 4 * epoch, "lr": 0.1 / epoch, "images_per_s": 100.0, "seconds": 61.0}
    return {**about, "train/loss": 1.0 / epoch, "train/class": 0.9 / epoch, **more}


def start(folder: Path, step: int = 0, history: list[dict[str, Any]] | None = None) -> Start:
    return Start(folder, Settings(epochs=3), {"model": "tiny"}, {"device": "cpu"}, history or [], step, 12)


def step(number: int) -> Step:
    return Step(1 + (number - 1) // 4, number, 12, 1.0 / number, 0.1, 2.0, 4)


def test_columns_are_the_union_in_order_and_gaps_are_empty() -> None:
    rows = [row(1), row(2, **{"val/loss": 0.25, "score/AP": float("nan")}), row(3)]
    read = list(csv.DictReader(io.StringIO(table_text(rows))))
    assert list(read[0]) == [*row(1), "val/loss", "score/AP"]
    assert [r["val/loss"] for r in read] == ["", "0.25", ""]
    assert math.isnan(float(read[1]["score/AP"]))
    assert float(read[2]["lr"]) == pytest.approx(0.1 / 3, rel=1e-7)


def test_results_are_whole_after_each_epoch_and_after_a_resume(tmp_path: Path) -> None:
    log = ResultsCsv()
    log.on_start(start(tmp_path))
    assert not (tmp_path / "results.csv").exists()
    log.on_epoch(Epoch(row(1), 4, True, [row(1)]))
    log.on_epoch(Epoch(row(2), 8, True, [row(1), row(2)]))
    resumed = ResultsCsv()
    resumed.on_start(start(tmp_path, 4, [row(1)]))
    assert (tmp_path / "results.csv").read_text() == table_text([row(1)])


def test_curves_are_a_picture(tmp_path: Path) -> None:
    rows = [
        row(e, **{"val/loss": 1.1 / e, "val/class": 1.0, "score/AP": e / 10, "score/count": 7.0 * e}) for e in (1, 2, 3)
    ]
    assert panels(rows)["scores"] == ["score/AP"]
    picture = cv2.imread(str(draw_curves(tmp_path / "curves.png", rows)))
    assert picture is not None
    assert picture.shape[0] > 500
    assert len({tuple(p) for p in picture.reshape(-1, 3)[::7].tolist()}) > 10
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_panels_leave_out_what_has_no_number() -> None:
    nan = float("nan")
    assert list(panels([row(1, **{"score/AP": nan, "note": "x"})])) == ["loss", "learning rate"]
    assert panels([row(1, **{"score/n": 5.0})])["scores"] == ["score/n"]
    assert panels([row(1, **{"train/box": 1.0, "val/box": 1.0})])["terms"] == ["train/class", "train/box", "val/box"]


def test_curves_are_drawn_seldom_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("bestiary.training.logs.draw_curves", lambda _, rows: drawn.append(len(rows)))
    log = Curves(seconds=1000.0)
    log.on_start(start(tmp_path))
    for epoch in (1, 2, 3):
        log.on_epoch(Epoch(row(epoch), 4 * epoch, False, [row(e + 1) for e in range(epoch)]))
    log.on_end(End("epochs", [row(1)] * 3))
    log.on_end(End("interrupted", []))
    assert drawn == [1, 3]


def test_tensorboard_reads_the_events_and_a_resume_leaves_no_step_twice(tmp_path: Path) -> None:
    first = TensorBoardLog(every=2)
    first.on_start(start(tmp_path))
    for number in range(1, 7):
        first.on_step(step(number))
    first.on_epoch(Epoch(row(1, **{"score/AP": 0.5}), 4, True, [row(1)]))
    first.close()
    second = TensorBoardLog(every=2)
    second.on_start(start(tmp_path, step=4))
    for number in range(5, 9):
        second.on_step(step(number))
    second.on_end(End("epochs", []))
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("step/loss")] == [2, 4, 6, 8]
    assert events.Scalars("score/AP")[0].value == 0.5
    assert "epoch" not in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (187, "3:07 min"), (7500, "2:05 h"), (273600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(float(seconds)) == text


def test_time_left_is_of_this_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    left = TimeLeft(step=10, total_steps=30)
    assert math.isnan(left.after(10))
    now[0] = 110.0
    assert left.after(15) == pytest.approx(30.0)


def test_an_epochs_line() -> None:
    text = epoch_line(row(2, **{"val/loss": 0.25, "score/AP": 0.5, "score/AP50": 0.9}), 3, best=True)
    assert text == "epoch 2/3  train/loss 0.5000  val/loss 0.2500  AP 0.5000  100.0 images/s  1:01 min  *"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_says_everything_with_and_without_a_terminal(tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    shown = Console(RichConsole(file=out, force_terminal=terminal, width=100, color_system=None), seconds=0.0)
    shown.on_start(start(tmp_path))
    shown.on_step(step(1))
    shown.on_epoch(Epoch(row(1), 4, True, [row(1)]))
    shown.on_end(End("patience", [row(1)], ["step 3 [was] skipped"]))
    shown.close()
    text = out.getvalue()
    for part in (
        "device: cpu",
        "epochs=3",
        "lr=0.01",
        str(tmp_path),
        "epoch 1/3",
        "stopped: patience",
        "step 3 [was] skipped",
    ):
        assert part in text
    assert ("step 1/12" in text) is not terminal
    assert ("1/12" in text) is True


def test_a_broken_run_gives_the_terminal_back(tmp_path: Path) -> None:
    shown = Console(RichConsole(file=io.StringIO(), force_terminal=True, width=100))
    shown.on_start(start(tmp_path))
    bar = shown._bar
    assert bar.live.is_started
    shown.close()
    assert not bar.live.is_started
