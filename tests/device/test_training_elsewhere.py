"""The training loop on a device that is not the CPU: the same run, and checkpoints that every machine can read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bestiary.data.world import World
from bestiary.training import loop
from bestiary.training.engine import Engine
from bestiary.training.settings import Settings
from bestiary.verbs.models import load
from bestiary.verbs.training import train

FIELDS: dict[str, Any] = {
    "epochs": 2,
    "steps": 4,
    "batch": 2,
    "precision": "fp32",
    "ema": 0.9,
    "clip_norm": 1.0,
    "workers": 0,
    "width": 2,
    "short_side": 48,
}


def run(out: Path, device: str) -> dict[str, Tensor]:
    """What was learned, read where there is nothing but a CPU."""
    finished = train(
        "unet_padded_small",
        World(4, split="train"),
        validation=World(2, split="val"),
        out=out,
        **FIELDS,
        device=device,
    )
    assert "mean_iou" in finished.scores[0].values
    model = load(finished.best)
    assert isinstance(model, nn.Module)
    state = model.state_dict()
    assert all(value.device.type == "cpu" for value in state.values())
    return dict(state)


@pytest.mark.usefixtures("no_drawing")
def test_a_run_there_is_the_run_here(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = run(tmp_path / "here", "cpu")
    if device.type != "cuda":
        start = loop.start_engine

        def elsewhere(settings: Settings) -> Engine:
            """Settings take no device of such a name: it is set afterwards."""
            engine = start(settings)
            engine.accelerator.state.device = device
            return replace(engine, device=device)

        monkeypatch.setattr(loop, "start_engine", elsewhere)
    found = run(tmp_path / "there", "cuda" if device.type == "cuda" else "cpu")
    assert f"device: {device.type}" in capsys.readouterr().err
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, wanted[name], rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
