"""Systems without gradients through the same verbs as the others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bestiary
from bestiary.errors import DataError, ExportError, PictureError, TrainingError, UsageError
from bestiary.pictures.encode import write_image
from bestiary.training.fitting import FitSettings, Samples, fit
from bestiary.verbs.exporting import export
from bestiary.verbs.models import identity_of
from bestiary.verbs.training import Splits, TrainedRun

NAME = "nearest_neighbour"


def put(folder: Path, channel: int, seed: int, size_hw: tuple[int, int] = (12, 14)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 90, (3, *size_hw), dtype=np.uint8)
    pixels[channel] += 140
    write_image(folder / f"{seed}.png", torch.from_numpy(pixels))


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "test"), per_class: int = 5) -> Path:
    """Pictures of different sizes; a colour tells the two classes apart."""
    for split in splits or ("",):
        for channel, name in ((0, "red"), (2, "blue")):
            for i in range(per_class):
                put(root / split / name, channel, i, (12 + i, 14 - i))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, Path]:
    folder = make_folder(tmp_path_factory.mktemp("data"))
    return bestiary.train(NAME, folder, out=tmp_path_factory.mktemp("runs") / "one", k=3), folder


def test_a_folder_of_pictures_becomes_a_measured_system(run) -> None:
    finished, folder = run
    assert finished.scores[0].values["top1"] == 1.0
    assert finished.stopped == "fitted"
    assert {p.name for p in finished.folder.iterdir()} == {
        "best.safetensors", "last.safetensors", "results.csv", "settings.json", "report.html",
    }  # fmt: skip
    settings = json.loads((finished.folder / "settings.json").read_text(encoding="utf-8"))
    assert settings["identity"]["arguments"] == {"k": 3}
    assert settings["facts"]["pictures"] == "10"
    assert "nearest_neighbour" in finished.report.read_text(encoding="utf-8")
    rows = (finished.folder / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2
    assert rows[0].split(",")[0] == "epoch"
    system = bestiary.load(finished.folder)
    assert system.k == 3
    assert system.predict(folder / "test" / "red" / "0.png")[0].top(1)[0][0] == "red"


def test_it_goes_on_from_nothing_and_is_no_graph(run, tmp_path: Path) -> None:
    finished, folder = run
    with pytest.raises(UsageError, match="nothing to resume"):
        bestiary.train(NAME, folder, out=finished.folder, resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        bestiary.train(NAME, folder, out=finished.folder)
    with pytest.raises(ExportError, match=r"nearest_neighbour is no network.*bestiary\.load"):
        export(finished.folder, tmp_path)


def test_data_in_one_piece_are_divided_to_be_measured(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = make_folder(tmp_path / "data", splits=(), per_class=10)
    finished = bestiary.train(NAME, folder, out=tmp_path / "run", say=lines.append)
    assert any("one piece" in line for line in lines)
    assert any("set aside" in line for line in lines)
    assert finished.scores[0].values["top1"] == 1.0
    assert len(bestiary.load(finished.best).labels) < 20


def test_validation_pictures_serve_only_where_there_are_no_test_pictures(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = make_folder(tmp_path / "data", splits=("train", "val"))
    finished = bestiary.train(NAME, folder, out=tmp_path / "run", say=lines.append)
    assert any("measuring best.safetensors on val" in line for line in lines)
    assert len(bestiary.load(finished.best).labels) == 10


def test_nothing_is_measured_where_nothing_is_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", splits=("train",))
    finished = bestiary.train(NAME, folder, out=tmp_path / "run", splits=Splits(val=None, test=None))
    assert finished.scores == []
    assert finished.report is None


@pytest.mark.parametrize("name", ["nearest_neighbour", "colour_histogram", "eigenfaces"])
def test_one_class_is_learned_too(name: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i in range(3):
            put(tmp_path / "data" / split / "only", 0, i)
    finished = bestiary.train(name, tmp_path / "data", out=tmp_path / "run")
    assert finished.scores[0].values["top1"] == 1.0


def test_one_picture_is_too_few_to_span_a_space(tmp_path: Path) -> None:
    put(tmp_path / "data" / "train" / "only", 0, 0)
    with pytest.raises(UsageError, match="all alike"):
        bestiary.train("eigenfaces", tmp_path / "data", out=tmp_path / "run", splits=Splits(val=None, test=None))
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_pictures_without_class_and_broken_ones_are_errors(unchecked: None, tmp_path: Path) -> None:
    put(tmp_path / "flat", 0, 0)
    with pytest.raises(DataError):
        bestiary.train(NAME, tmp_path / "flat", out=tmp_path / "run")
    folder = make_folder(tmp_path / "data")
    (folder / "train" / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"0\.png"):
        bestiary.train(NAME, folder, out=tmp_path / "run2")


def test_a_field_that_it_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no field is called 'epochs'"):
        bestiary.train(NAME, make_folder(tmp_path / "data"), out=tmp_path / "run", epochs=3)


def test_no_pictures_and_bad_seeds_are_refused(tmp_path: Path) -> None:
    system = bestiary.create(NAME, categories=["a"])
    with pytest.raises(TrainingError, match="no picture"):
        fit(system, [], FitSettings(), out=tmp_path / "run", identity=identity_of(system))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="seed"):
        FitSettings(seed=-1)


def test_a_data_set_is_a_sequence() -> None:
    samples = Samples(["a", "b", "c"])  # type: ignore[arg-type]
    assert (list(samples), samples[-1], samples[1:]) == (["a", "b", "c"], "c", ["b", "c"])
    with pytest.raises(IndexError):
        samples[3]
