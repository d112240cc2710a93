"""Ctrl-C in a training by the command line: it says how to go on, ends with its own code, and goes on."""

import json
import os
import signal
from pathlib import Path

import pytest

from bestiary.cli.main import main
from bestiary.data.world import World
from bestiary.records import Sample
from bestiary.verbs.datasets import WORLD_SIZES

WORDS = ["train", "unet_padded_small", "--data", "world", "--width", "2", "--short-side", "48", "--batch", "2"]
QUICK = ["--epochs", "1", "--steps", "4", "--workers", "0", "--val-split", "none", "--test-split", "val", "--json"]


@pytest.mark.usefixtures("no_drawing", "unchecked")
def test_an_interrupted_training_is_not_measured_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen, read = list[int](), World.__getitem__

    def interrupting(world: World, index: int) -> Sample:
        seen.append(index)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return read(world, index)

    monkeypatch.setattr(World, "__getitem__", interrupting)
    monkeypatch.setitem(WORLD_SIZES, "val", 4)
    words = [*WORDS, *QUICK, "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as first:
        main(words)
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert first.value.code == 130
    assert (found["stopped"], found["scores"], found["report"]) == ("interrupted", [], None)
    assert f"the same command with --out {tmp_path / 'run'} --resume goes on" in err
    with pytest.raises(SystemExit) as second:
        main([*words, "--resume"])
    out, _ = capfd.readouterr()
    found = json.loads(out)
    assert second.value.code == 0
    assert found["stopped"] in ("steps", "epochs")
    assert found["scores"]
    assert Path(found["report"]).exists()
