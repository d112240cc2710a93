"""Two processes on one machine (gloo), started as a user would start them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_parts import Accuracy, tiny, train_batches, val_batches

from bestiary.training.checkpoint import read_model, read_state
from bestiary.training.engine import start_engine
from bestiary.training.evaluation import validate
from bestiary.training.loop import train
from bestiary.training.settings import Settings

pytestmark = pytest.mark.usefixtures("no_drawing")

HERE = Path(__file__).resolve().parent
QUICK = {"device": "cpu", "precision": "fp32", "tensorboard": False, "lr": 0.1, "epochs": 2}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={port}"]
    script = [*launch, str(HERE / "two_processes.py"), str(root)]
    ran = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return root, [json.loads((root / f"found-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("name", "accumulate"), [("plain", 1), ("accumulated", 2)])
def test_two_processes_equal_one_with_twice_the_batch(
    together: tuple[Path, list[dict[str, Any]]], tmp_path: Path, name: str, accumulate: int
) -> None:
    settings = Settings.from_dict({**QUICK, "accumulate": accumulate})
    system = tiny()
    alone = train(
        system, train_batches(16, 8), val_batches(7), settings, out=tmp_path, make_evaluator=Accuracy, quiet=True
    )
    state, _ = read_model(together[0] / name / "last.safetensors")
    for key, value in system.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(state["head.weight"], tiny().head.weight)
    if name == "plain":
        for found in together[1]:
            assert found["loss"] == pytest.approx([row["train/loss"] for row in alone.history], rel=1e-5)
            assert found["val"] == pytest.approx([row["val/loss"] for row in alone.history], rel=1e-5)


def test_every_picture_is_validated_once_and_all_know_the_scores(together: tuple[Path, list[dict[str, Any]]]) -> None:
    for found in together[1]:
        assert sorted(found["names"]) == [f"{i:03d}.png" for i in range(7)]


def test_what_is_measured_is_what_is_saved(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """Each process saw other batches, so that its running statistics differ; the file holds the first one's."""
    system = tiny(norm=True)
    system.load_state_dict(read_model(together[0] / "whole" / "last.safetensors")[0])
    engine = start_engine(Settings(device="cpu", precision="fp32"))
    alone = validate(system, val_batches(7), engine, 0, None)
    for found in together[1]:
        assert found["whole_val"] == pytest.approx(alone.loss, rel=1e-6)


def test_stopped_within_an_epoch_and_resumed_equals_uninterrupted(together: tuple[Path, list[dict[str, Any]]]) -> None:
    root, findings = together
    assert [found["stopped"] for found in findings] == ["minutes", "minutes"]
    (a, _), (b, _) = (read_state(root / name / "last.state.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    for found in findings:
        assert found["parts"] == pytest.approx(found["whole"], rel=1e-12)


def test_a_part_without_gradient_on_one_process_does_not_hang(together: tuple[Path, list[dict[str, Any]]]) -> None:
    assert (together[0] / "branches" / "last.safetensors").exists()


def test_a_loss_that_is_not_finite_on_one_process_stops_both(together: tuple[Path, list[dict[str, Any]]]) -> None:
    root, findings = together
    messages = sorted(found["error"] for found in findings)
    assert sum("extra is nan" in message and "005.png" in message for message in messages) == 1
    assert len(list((root / "unlucky").glob("nonfinite-step-*"))) == 1
