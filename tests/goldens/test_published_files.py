"""Files made in the layout of the published ones, found by their names, checked, read and fitted."""

import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import bestiary
from bestiary import zoo
from bestiary.errors import CheckpointError
from bestiary.verbs.models import load_weights, save
from bestiary.weights import store
from bestiary.weights.registry import FILES, Published, find_entry

CLASSIFIERS = [entry for entry in FILES if entry.categories == "imagenet-1k"]
SMALL = ["squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
States = dict[str, tuple[int, list[str]]]


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that files are looked for in; any file of the right name passes for the published one."""
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path))
    monkeypatch.setenv("BESTIARY_OFFLINE", "1")
    monkeypatch.setattr(store, "_require_digest", lambda *_: None)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def one_number_each(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every entry one number of its own, spread over its shape: a file of any net in a few kilobytes."""
    return {n: torch.tensor(float(zlib.crc32(n.encode()) % 1000)).expand(shape) for n, shape in shapes.items()}


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda e: e.name)
def test_every_published_classifier_fits(entry: Published, states: States, weights: Path) -> None:
    with torch.device("meta"):
        system = zoo.build(entry.model)
    lines = states[entry.model][1] if entry.model in states else None
    if lines is None:  # torchvision's, but not among the reference states: the number of parameters is in its own test
        shapes = {n: tuple(v.shape) for n, v in system.state_dict().items()}
    else:
        split = [line.split(" ") for line in lines]
        shapes = {name: tuple(int(v) for v in shape.split(",") if v) for name, shape in split}
    torch.save(one_number_each(shapes), weights / entry.file)
    report = load_weights(system, entry.name)
    assert set(report.loaded) == set(system.state_dict())
    assert not report.missing
    assert system.arguments["resize"] == entry.resize == system.resize
    for name, value in entry.arguments.items():
        assert system.arguments[name] == value


@pytest.mark.parametrize("name", SMALL)
def test_from_the_public_file_to_the_published_logits(
    name: str, rule: ModuleType, states: States, outputs: dict[str, np.ndarray], weights: Path, tmp_path: Path
) -> None:
    split = [line.split(" ") for line in states[name][1]]
    state = {}
    for key, shape in split:
        lengths = tuple(int(v) for v in shape.split(",") if v)
        counts = key.endswith("num_batches_tracked")
        drawn = 0 if counts else rule.values(key, lengths, "reference", 1.0)
        state[key] = torch.from_numpy(np.asarray(drawn, dtype=np.int64 if counts else np.float32))
    torch.save(state, weights / find_entry(name).file)
    system = bestiary.create(name, weights="published")
    with torch.inference_mode():
        logits = system(rule.picture((2, 3, 224, 224))).numpy()
    assert np.abs(logits - outputs[name]).max() <= 1e-4 * np.abs(outputs[name]).max()
    again = bestiary.load(save(system, tmp_path / "x.safetensors"))
    assert (again.resize, again.crop) == (find_entry(name).resize, 224)


def test_a_file_of_one_part_leaves_the_rest_alone(weights: Path) -> None:
    entry = find_entry("vgg16.imagenet1k_features")
    with torch.device("meta"):
        system = zoo.build("vgg16")
    shapes = {n: tuple(v.shape) for n, v in system.state_dict().items() if n.startswith("features.")}
    torch.save(one_number_each(shapes), weights / entry.file)
    assert set(load_weights(system, entry.name).loaded) == set(system.state_dict())
    torch.save(one_number_each(dict(list(shapes.items())[:-1])), weights / entry.file)
    with pytest.raises(CheckpointError, match=r"1 missing \(features.28.bias"):
        load_weights(system, entry.name)


def test_a_head_for_other_classes_starts_fresh_and_chosen_sizes_stay(states: States, weights: Path) -> None:
    split = [line.split(" ") for line in states["mobilenet_v3_small"][1]]
    shapes = {name: tuple(int(v) for v in shape.split(",") if v) for name, shape in split}
    torch.save(one_number_each(shapes), weights / find_entry("mobilenet_v3_small").file)
    system = zoo.build("mobilenet_v3_small", ["a", "b"], {"resize": 140, "crop": 128})
    fresh = {n: v.clone() for n, v in system.state_dict().items() if n.startswith("classifier.3.")}
    report = load_weights(system, "published")
    assert "new head for other categories, at its initial values: classifier.3.weight 1000 -> 2" in report.summary()
    assert all(torch.equal(system.state_dict()[n], v) for n, v in fresh.items())
    number = float(zlib.crc32(b"features.0.0.weight") % 1000)
    assert bool((system.state_dict()["features.0.0.weight"] == number).all())
    assert (system.resize, system.crop) == (140, 128)
