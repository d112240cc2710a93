"""Published files of dense labellers: found by name, fitted, and the size they were measured at taken over."""

from pathlib import Path

import pytest
import torch

from bestiary import zoo
from bestiary.verbs.models import load_weights
from bestiary.weights import store
from bestiary.weights.registry import FILES, Published, find_entry

LABELLERS = [entry for entry in FILES if entry.categories == "voc-21"]
SMALLEST = "deeplabv3_mobilenet_v3_large"


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that files are looked for in; any file of the right name passes for the published one."""
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path))
    monkeypatch.setenv("BESTIARY_OFFLINE", "1")
    monkeypatch.setattr(store, "_require_digest", lambda *_: None)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def put(entry: Published, folder: Path) -> set[str]:
    """A file with the entry's names and shapes, one number a tensor."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in zoo.build(entry.model).state_dict().items()}
    torch.save({name: torch.tensor(0.25).expand(shape) for name, shape in shapes.items()}, folder / entry.file)
    return set(shapes)


@pytest.mark.parametrize("entry", LABELLERS, ids=lambda e: e.name)
def test_every_file_fits_and_tells_its_size(entry: Published, weights: Path) -> None:
    names = put(entry, weights)
    with torch.device("meta"):
        system = zoo.build(entry.model)
    report = load_weights(system, entry.name)
    assert set(report.loaded) == names
    assert (system.predict_size, system.arguments["predict_size"]) == (520, 520)


def test_a_size_that_was_chosen_stays(weights: Path) -> None:
    put(find_entry(SMALLEST), weights)
    with torch.device("meta"):
        system = zoo.build(SMALLEST, None, {"predict_size": 64})
    load_weights(system, "published")
    assert system.predict_size == 64


def test_other_classes_and_no_auxiliary_classifier_start_from_the_rest(weights: Path) -> None:
    names = put(find_entry(SMALLEST), weights)
    with torch.device("meta"):
        system = zoo.build(SMALLEST, ["sky", "road"], {"auxiliary": False})
    report = load_weights(system, "published")
    kept = {name for name in names if not name.startswith("aux_classifier.")}
    assert set(report.loaded) == kept - {"classifier.4.weight", "classifier.4.bias"}
    assert "new head" in report.summary()
