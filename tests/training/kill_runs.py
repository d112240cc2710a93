"""Started by test_resume.py: runs that are killed (SIGKILL), each in its own process. Prints a line of JSON a run."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loop_parts import Accuracy, tiny, train_batches, val_batches

from bestiary.training import checkpoint, evaluation, logs, loop
from bestiary.training.events import Callback, Epoch, Step
from bestiary.training.settings import Settings

FIELDS = {"device": "cpu", "precision": "fp32", "tensorboard": False, "lr": 0.1, "epochs": 3, "ema": 0.9}
FIELDS |= {"optimizer": "adamw", "accumulate": 2, "checkpoint_minutes": 1e-9, "patience": 5}


def go(folder: Path, callbacks: tuple[Callback, ...] = ()) -> None:
    logs.draw_curves = lambda path, _: path.touch()  # type: ignore[assignment]
    loop.train(
        tiny(dropout=0.5, norm=True),
        train_batches(22),
        val_batches(),
        Settings.from_dict(FIELDS),
        out=folder,
        make_evaluator=Accuracy,
        resume=(folder / "last.state.safetensors").exists(),
        callbacks=callbacks,
        quiet=True,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt(Callback):
    """Dies in the given step, or after the given epoch."""

    def __init__(self, step: int = 0, epoch: int = 0) -> None:
        self.step, self.epoch = step, epoch

    def on_step(self, event: Step) -> None:
        if event.step == self.step:
            die()

    def on_epoch(self, event: Epoch) -> None:
        if event.row["epoch"] == self.epoch:
            die()


def dying_nth(module: Any, name: str, call: int, before: Callable[..., None] = lambda *_: None) -> None:
    """Replace a function by one that dies in its n-th call, after `before`."""
    true, calls = getattr(module, name), [0]

    def replaced(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            before(*args)
            die()
        return true(*args, **keywords)

    setattr(module, name, replaced)


def half_a_file(_tensors: Any, path: Path, _metadata: Any) -> None:
    path.write_bytes(b"\x10\x00\x00\x00")


def within_an_epoch(folder: Path) -> None:
    go(folder, (DieAt(step=2),))


def right_at_the_start(folder: Path) -> None:
    dying_nth(checkpoint, "save_file", 1, half_a_file)
    go(folder)


def while_writing_the_state(folder: Path) -> None:
    dying_nth(checkpoint, "save_file", 6, half_a_file)
    go(folder)


def before_the_new_file_takes_its_place(folder: Path) -> None:
    dying_nth(os, "replace", 12)
    go(folder)


def in_validation(folder: Path) -> None:
    dying_nth(evaluation, "batch_seed", 3)
    go(folder)


def after_an_epoch(folder: Path) -> None:
    go(folder, (DieAt(epoch=2),))


SCENES = (within_an_epoch, right_at_the_start, while_writing_the_state, before_the_new_file_takes_its_place)
SCENES += (in_validation, after_an_epoch)


def in_a_child(work: Callable[[Path], None], folder: Path, seconds: float | None = None) -> int:
    """Exit status of a child that does `work`; it is killed after `seconds`."""
    child = os.fork()
    if child == 0:
        work(folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: Path) -> None:
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    go(root / "whole")  # also warms up what all children inherit
    for scene in SCENES:
        first = in_a_child(scene, root / scene.__name__)
        second = in_a_child(go, root / scene.__name__)
        print(json.dumps({"scene": scene.__name__, "first": first, "second": second}), flush=True)
    folder, kills, rng = root / "again_and_again", 0, random.Random(0)
    while in_a_child(go, folder, 0.002 + 0.02 * rng.random() + 0.002 * kills) < 0:
        kills += 1
    print(json.dumps({"scene": folder.name, "first": -signal.SIGKILL if kills > 3 else 0, "second": 0}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
