"""Killed and resumed equals uninterrupted, bit for bit."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_parts import Accuracy, TinyClassifier, tiny, train_batches, val_batches

from bestiary.errors import CheckpointError, UsageError
from bestiary.training.checkpoint import previous_of, read_model, read_state
from bestiary.training.events import Callback, Step
from bestiary.training.loop import train
from bestiary.training.run import Run
from bestiary.training.settings import Settings

pytestmark = pytest.mark.usefixtures("no_drawing")

HERE = Path(__file__).resolve().parent
QUICK = {"device": "cpu", "precision": "fp32", "tensorboard": False, "lr": 0.1, "epochs": 3}
TIMES = {"seconds", "images_per_s"}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    root = tmp_path_factory.mktemp("killed")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    script = [sys.executable, str(HERE / "kill_runs.py"), str(root)]
    found = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=300)
    assert found.returncode == 0, found.stderr
    return root, {line["scene"]: line for line in map(json.loads, found.stdout.splitlines())}


def assert_same_run(folder: Path, whole: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        (a, facts_a), (b, facts_b) = read_model(folder / name), read_model(whole / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name
        assert facts_a == facts_b
    (a, facts_a), (b, facts_b) = (read_state(f / "last.state.safetensors") for f in (folder, whole))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert timeless(facts_a["progress"]["history"]) == timeless(facts_b["progress"]["history"])
    tables = [timeless(list(csv.DictReader((f / "results.csv").open()))) for f in (folder, whole)]
    assert tables[0] == tables[1]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.mark.parametrize(
    "scene",
    [
        *("within_an_epoch", "right_at_the_start", "while_writing_the_state", "before_the_new_file_takes_its_place"),
        *("in_validation", "after_an_epoch", "again_and_again"),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(killed: tuple[Path, dict[str, dict[str, Any]]], scene: str) -> None:
    """Dropout, augmentation, statistics, adamw, accumulation, averaging; SIGKILL at chosen and random moments."""
    root, lines = killed
    assert lines[scene]["first"] == -signal.SIGKILL, "it was not killed"
    assert lines[scene]["second"] == 0
    assert_same_run(root / scene, root / "whole")
    assert not list((root / scene).glob("*.writing"))


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: Step) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def run(out: Path, system: TinyClassifier | None = None, stop: int = 0, resume: bool = False, **fields: Any) -> Run:
    return train(
        system or tiny(dropout=0.5, norm=True),
        train_batches(),
        val_batches(),
        Settings.from_dict({**QUICK, **fields}),
        out=out,
        make_evaluator=Accuracy,
        resume=resume,
        callbacks=[StopAt(stop)],
        quiet=True,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "nesterov", "clip_norm": 0.01},
        {"optimizer": "rmsprop", "channels_last": True},
        {"optimizer": "adam", "freeze": ["stem"], "precision": "bf16"},
        {"schedule": "poly", "evaluate_every": 2, "ema": 0.99},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
@pytest.mark.parametrize("stop", [4, 6])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, fields: dict[str, Any], stop: int) -> None:
    whole = run(tmp_path / "whole", **fields)
    stopped = run(tmp_path / "stopped", stop=stop, **fields)
    assert stopped.stopped == "interrupted"
    other = tiny(seed=9, dropout=0.5, norm=True)  # what it holds before must not matter
    if "freeze" in fields:
        other = tiny(dropout=0.5, norm=True)
    resumed = run(tmp_path / "stopped", other, resume=True, **fields)
    assert resumed.stopped == "epochs"
    assert timeless(resumed.history) == timeless(whole.history)
    a, b = read_model(resumed.last)[0], read_model(whole.last)[0]
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_epochs_can_be_extended(tmp_path: Path) -> None:
    """With a constant schedule 2 + 2 epochs are 4; with a cosine the rate follows the longer one from there on."""
    whole = run(tmp_path / "a", epochs=4, schedule="constant")
    run(tmp_path / "b", epochs=2, schedule="constant")
    longer = run(tmp_path / "b", epochs=4, schedule="constant", resume=True)
    assert timeless(longer.history) == timeless(whole.history)
    a, b = read_model(longer.last)[0], read_model(whole.last)[0]
    assert all(torch.equal(a[k], b[k]) for k in b)
    run(tmp_path / "c", epochs=2)
    longer = run(tmp_path / "c", epochs=4, resume=True)
    rates = [row["lr"] for row in longer.history]
    assert rates[1] < rates[2]
    assert rates[2:] == [row["lr"] for row in run(tmp_path / "d", epochs=4).history][2:]


def test_resuming_a_run_at_its_end_only_completes_its_files(tmp_path: Path) -> None:
    finished = run(tmp_path, epochs=2)
    before = read_state(tmp_path / "last.state.safetensors")[0]
    table = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").unlink()
    again = run(tmp_path, epochs=2, resume=True)
    assert (again.history, again.stopped, again.best) == (finished.history, "epochs", finished.best)
    assert finished.scores is not None
    assert again.scores is not None
    assert again.scores.values == finished.scores.values
    assert (tmp_path / "results.csv").read_text() == table
    after = read_state(tmp_path / "last.state.safetensors")[0]
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_a_changed_setting_is_refused_and_a_free_one_is_not(tmp_path: Path) -> None:
    run(tmp_path, stop=5)
    with pytest.raises(UsageError, match=r"lr was 0\.1, is 0\.2; seed was 0, is 3.*may change only checkpoint_every"):
        run(tmp_path, lr=0.2, seed=3, resume=True)
    assert run(tmp_path, keep=1, workers=0, patience=50, resume=True).stopped == "epochs"


def test_another_model_or_data_set_is_refused(tmp_path: Path) -> None:
    run(tmp_path, stop=5)
    cats = TinyClassifier(0.5, True, ("cat", "dog"))
    with pytest.raises(CheckpointError, match=r"categories was \['dark', 'light'\], now it is \['cat', 'dog'\]"):
        run(tmp_path, cats, resume=True)
    with pytest.raises(CheckpointError, match=r"'stem\.1\..*it is of another model"):
        run(tmp_path, tiny(dropout=0.5), resume=True)
    with pytest.raises(CheckpointError, match="within an epoch of 4 batches on 1 processes"):
        train(
            tiny(dropout=0.5, norm=True),
            train_batches(20),
            None,
            Settings.from_dict(QUICK),
            out=tmp_path,
            resume=True,
            quiet=True,
        )


def test_a_broken_state_is_named_with_the_one_before_which_works(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    stopped = run(tmp_path / "run", stop=6)
    state = stopped.folder / "last.state.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"last\.state\.safetensors: the file is broken.*\.previous"):
        run(tmp_path / "run", resume=True)
    state.write_bytes(previous_of(state).read_bytes())
    resumed = run(tmp_path / "run", resume=True)
    a, b = read_model(resumed.last)[0], read_model(whole.last)[0]
    assert all(torch.equal(a[k], b[k]) for k in b)
