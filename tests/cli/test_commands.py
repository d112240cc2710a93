"""The command line as a person and as a script use it: text, JSON, exit codes, no tracebacks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bestiary.cli.main import main
from bestiary.pictures.encode import write_image


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("cli"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, channel in (("red", 0), ("blue", 2)):
            for i in range(6):
                picture = rng.integers(0, 90, (3, 32, 32), dtype=np.uint8)
                picture[channel] += 140
                write_image(root / split / name / f"{i}.png", torch.from_numpy(picture))
    return root


def test_the_whole_road(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["--epochs", 1, "--batch", 4, "--precision", "fp32", "--no-tensorboard", "--warmup-steps=0"]
    assert call("train", "resnet18_cifar", "--data", folder, "--out", run, *words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(run)
    assert document["scores"][0]["headline"] == "top1"

    assert call("eval", run, "--data", folder, "--split", "test", "--json") == 0
    assert json.loads(capsys.readouterr().out)["scores"] == document["scores"]

    assert call("eval", run, "--data", folder, "--views", "ten_crop", "--view-sides", "32,36", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["scores"][0]["values"]) == set(document["scores"][0]["values"])
    assert call("eval", run, "--data", folder, "--views", "everywhere") == 2
    assert "wanted centre|ten_crop|dense" in capsys.readouterr().err

    assert call("eval", run, "--data", folder, "--report", tmp_path / "page.html") == 0
    assert "top1" in capsys.readouterr().out
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")

    assert call("predict", run, folder / "test" / "red", "--out", tmp_path / "drawn", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == [f"{i}.png" for i in range(6)]
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 6

    assert call("info", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["categories"] == ["blue", "red"]

    assert call("train", "resnet18_cifar", "--data", folder, "--out", run, *words) == 2, "a run is never overwritten"
    assert str(run) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "resnet5"], 2, "resnet50"),
        (["train", "resnet18_cifar"], 2, "--data"),
        (["train", "resnet18_cifar", "--data", "x", "--epoch", "3"], 2, "Did you mean --epochs?"),
        (["train", "resnet18_cifar", "--dta", "x"], 2, "Did you mean --data?"),
        (["train", "resnet18_cifar", "--data", "x", "--lr", "fast"], 2, "wanted float"),
        (["train", "resnet18_cifar", "--data", "/nowhere/at/all"], 3, "/nowhere/at/all"),
        (["eval", "none.safetensors", "--data", "x"], 4, "none.safetensors"),
        (["predict", "none.safetensors", "x"], 4, "none.safetensors"),
        (["predict", "none.safetensors"], 2, "SOURCE"),
        (["info", "resnet5O"], 2, "resnet50"),
        (["models", "--task", "detektion"], 2, "detection"),
        (["models", "--jsn"], 2, "--json"),
        (["chek"], 2, "chek"),
    ],
)
def test_mistakes_end_in_one_plain_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == code
    captured = capsys.readouterr()
    assert said.lower() in captured.err.lower()
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "resnet5O", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"


def test_models_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models", "--task", "detection", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"fasterrcnn_resnet50_fpn", "fasterrcnn_resnet18_fpn"} <= {r["name"] for r in rows}
    assert call("info", "resnet50") == 0
    text = capsys.readouterr().out
    assert "25,557,032" in text
    assert "He, Zhang, Ren, Sun" in text


def test_help_of_a_model_lists_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "fasterrcnn_resnet18_fpn", "--help") == 0
    text = capsys.readouterr().out
    for flag in ("--lr", "--short-side", "--vertical-flip", "--ema", "--data"):
        assert flag in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from bestiary.cli import main\n"
        "heavy = {'torch', 'numba', 'cv2', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
