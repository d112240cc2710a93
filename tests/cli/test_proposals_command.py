"""`bestiary proposals` as a person and as a script use it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bestiary.cli import proposals_command
from bestiary.errors import UsageError

app = typer.Typer()
proposals_command.register(app)
app.callback()(lambda: None)  # or a single verb would need no name


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["proposals", *map(str, words)])


def test_methods_are_listed() -> None:
    shown = call()
    assert shown.exit_code == 0
    assert "selective_search_fast" in shown.stdout
    assert "bing" in shown.stdout
    names = [entry["name"] for entry in json.loads(call("--json").stdout)]
    assert names[0] == "sliding_windows"


def test_table_page_and_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary.verbs.datasets.WORLD_SIZES", {"train": 3, "val": 2, "test": 3})
    words = ["sliding_windows", "random_boxes", "--data", "world", "--counts", "10,50", "--iou", "0.5"]
    first = call(*words, "--cache", tmp_path / "kept", "--report", tmp_path / "page.html", "--out", tmp_path / "b.json")
    assert first.exit_code == 0, first.exception
    assert "recall50@0.5" in first.stdout
    assert "random_boxes" in first.stdout
    assert "<html" in (tmp_path / "page.html").read_text()
    assert len(json.loads((tmp_path / "b.json").read_text())["random_boxes"]) == 3
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 6
    again = call(*words, "--cache", tmp_path / "kept")
    assert "cached" in again.stdout
    document = json.loads(call(*words, "--no-cache", "--json", "--option", "random_boxes.count=5").stdout)
    assert [m["settings"]["count"] for m in document["methods"]] == [2000, 5]
    assert document["methods"][0]["pictures_timed"] == 3


def test_the_cache_is_the_users_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path))
    monkeypatch.setattr("bestiary.verbs.datasets.WORLD_SIZES", {"test": 1})
    assert call("random_boxes", "--data", "world", "--no-cache").exit_code == 0
    assert not list(tmp_path.rglob("*.npz"))
    assert call("random_boxes", "--data", "world").exit_code == 0
    assert len(list(tmp_path.rglob("*.npz"))) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "world"], "METHOD is missing"),
        (["bing"], "--data is missing"),
        (["bing", "--data", "world", "--counts", "ten"], "--counts"),
        (["bing", "--data", "world", "--counts", "100,10"], "ascending"),
        (["bing", "--data", "world", "--iou", "1.5"], "iou_thresholds"),
        (["bing", "--data", "world", "--option", "cost"], "wanted name=value"),
        (["bing", "--data", "world", "--option", "csot=1"], "Did you mean 'cost'"),
        (["bign", "--data", "world"], "Did you mean 'bing'"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str) -> None:
    failed = call(*words)
    assert isinstance(failed.exception, UsageError)
    assert said in str(failed.exception)
