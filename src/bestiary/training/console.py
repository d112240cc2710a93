"""What a person sees while a run goes on: a bar with the time left, or plain lines where there is no terminal."""

import time
from collections.abc import Mapping
from typing import Any

from bestiary.system import System
from bestiary.training.engine import Engine
from bestiary.training.events import Callback, End, Epoch, Start, Step


def duration(seconds: float) -> str:
    """Time as a person reads it: "48 s", "3:07 min", "2:05 h", "3 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def epoch_line(row: dict[str, Any], epochs: int, best: bool) -> str:
    """One line for one epoch: losses, headline score, speed, and a star on the best so far."""
    parts = [f"epoch {row['epoch']}/{epochs}"]
    parts += [f"{name} {row[name]:.4f}" for name in ("train/loss", "val/loss") if name in row]
    headline = next((name for name in row if name.startswith("score/")), None)
    parts += [f"{headline.removeprefix('score/')} {row[headline]:.4f}"] if headline else []
    parts += [f"{row['images_per_s']:.1f} images/s", duration(row["seconds"])]
    return "  ".join(parts) + ("  *" if best else "")


def run_facts(
    system: System, identity: Mapping[str, Any], engine: Engine, step: int, total_steps: int, steps_per_epoch: int
) -> dict[str, str]:
    """What is about to run, a sentence each: model, device and precision, schedule."""
    everything = sum(p.numel() for p in system.parameters())
    trainable = sum(p.numel() for p in system.parameters() if p.requires_grad)
    part = f", {trainable:,} of them trainable" if trainable != everything else ""
    processes = f", {engine.world} processes" if engine.world > 1 else ""
    begun = f", going on after {step}" if step else ""
    return {
        "model": f"{identity.get('model') or type(system).__name__}, {everything:,} parameters{part}",
        "device": f"{engine.device}{processes}; {engine.reason}",
        "schedule": f"{total_steps} steps, {steps_per_epoch} an epoch{begun}",
    }


class TimeLeft:
    """Seconds left, from the steps of this call and the time between epochs (validation, checkpoints)."""

    def __init__(self, step: int, total_steps: int) -> None:
        self.first, self.total = step, total_steps
        self.begun = time.monotonic()

    def after(self, step: int) -> float:
        """Seconds left once `step` steps are done, at the pace so far; NaN before the first."""
        done = step - self.first
        return (time.monotonic() - self.begun) / done * (self.total - step) if done else float("nan")


class Console(Callback):
    """Prints the settings, a line an epoch, and the time left: a bar on a terminal, else a line every `seconds`.

    Args:
        to: a `rich.console.Console`; standard error if not given, so that standard output stays for results.
        seconds: between two plain lines within an epoch.
    """

    def __init__(self, to: Any = None, seconds: float = 30.0) -> None:
        from rich.console import Console as RichConsole

        self.to = to if to is not None else RichConsole(stderr=True, highlight=False)
        self.seconds = seconds
        self._bar: Any = None

    def on_start(self, event: Start) -> None:
        """Print what is about to run, with every effective setting."""
        for name, fact in event.facts.items():
            self._say(f"{name}: {fact}")
        shown = " ".join(f"{name}={_plain(value)}" for name, value in event.settings.to_dict().items())
        self._say(f"settings: {shown}")
        self._say(f"folder: {event.folder}")
        self._epochs = event.settings.epochs
        self._left = TimeLeft(event.step, event.total_steps)
        self._due = time.monotonic() + self.seconds
        if self.to.is_terminal:
            self._bar = self._make_bar(event)

    def on_step(self, event: Step) -> None:
        """Move the bar, or print a line if the last is old enough."""
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, loss=event.loss, epoch=event.epoch)
        elif time.monotonic() >= self._due:
            left = duration(self._left.after(event.step))
            text = f"epoch {event.epoch}  step {event.step}/{event.total_steps}  loss {event.loss:.4f}  {left} left"
            self._say(text)
            self._due = time.monotonic() + self.seconds

    def on_epoch(self, event: Epoch) -> None:
        """Print the epoch's line."""
        self._say(epoch_line(event.row, self._epochs, event.best))
        self._due = time.monotonic() + self.seconds

    def on_end(self, event: End) -> None:
        """Take the bar away and say why the run stopped."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for note in event.notes:
            self._say(note)
        if event.why not in ("epochs", "steps"):
            self._say(f"stopped: {event.why}")

    def close(self) -> None:
        """Take the bar away, also when the run broke off."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _make_bar(self, event: Start) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"), console=self.to, refresh_per_second=4)
        epoch, loss = len(event.history) + 1, float("nan")
        self._task = bar.add_task("train", total=event.total_steps, completed=event.step, epoch=epoch, loss=loss)
        bar.start()
        return bar

    def _say(self, text: str) -> None:
        self.to.print(text, markup=False, soft_wrap=True)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) or "()" if isinstance(value, list) else "none" if value is None else str(value)
