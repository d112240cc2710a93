import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bestiary
from bestiary.cli.main import main
from bestiary.data.feature_files import read_features
from bestiary.errors import DataError, UsageError
from bestiary.pictures.encode import write_image
from bestiary.verbs.embedding import Embedder, list_layers
from bestiary.verbs.models import save

pytestmark = pytest.mark.usefixtures("unchecked")  # a traced forward gets proxies, which no shape check lets through


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("blue", "red"):
        for i in range(3):
            image = torch.from_numpy(rng.integers(0, 255, (3, 40 + i, 50), dtype=np.uint8))
            write_image(root / "test" / name / f"{i}.png", image)
    return root


@pytest.fixture(scope="module")
def model() -> bestiary.system.System:
    torch.manual_seed(0)
    return bestiary.create("resnet18_cifar", ["blue", "red"])


def test_features_before_the_last_layer_make_the_models_own_logits(model, folder: Path) -> None:
    found = bestiary.embed(model, folder / "test", batch=4)
    assert found.values.shape == (6, 512)
    assert found.values.dtype == np.float32
    assert found.facts["layer"] == "before fc"
    with torch.no_grad():
        probs = model.fc(torch.from_numpy(found.values)).softmax(1)
    predictions = model.predict(folder / "test", batch=4)
    assert found.names == tuple(p.name for p in predictions)
    torch.testing.assert_close(probs, torch.stack([p.probs for p in predictions]))


@pytest.mark.parametrize("pool", ["mean", "max", "none"])
def test_maps_are_pooled_as_asked(model, folder: Path, pool: str) -> None:
    values = torch.from_numpy(bestiary.embed(model, folder / "test", "C4", pool=pool).values)
    maps = torch.from_numpy(bestiary.embed(model, folder / "test", "layer3", pool="none").values)
    assert maps.shape == (6, 256, 8, 8)
    torch.testing.assert_close(values, {"mean": maps.mean((2, 3)), "max": maps.amax((2, 3)), "none": maps}[pool])


def test_of_a_data_set_the_classes_are_kept(model, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    kept = bestiary.embed(model, data=folder, split="test", say=said.append)
    written = bestiary.embed(model, data=folder, split="test", out=tmp_path / "f.npy", batch=5)
    assert kept.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert kept.categories == ("blue", "red")
    np.testing.assert_allclose(written.values, kept.values, rtol=1e-5, atol=1e-6)
    assert (written.names, written.labels.tolist()) == (kept.names, kept.labels.tolist())


def test_the_model_is_left_as_it_was(folder: Path) -> None:
    model = bestiary.create("resnet18_cifar", ["a", "b"]).train()
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = Embedder(model)
    first, second = (one([torch.full((3, 32, 32), 9, dtype=torch.uint8)]) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert model.layer2.training
    assert not model.layer1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_requests(model, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both or none"):
        bestiary.embed(model)
    with pytest.raises(UsageError, match="both or none"):
        bestiary.embed(model, folder, data=folder)
    with pytest.raises(UsageError, match="no layer is called 'layr4'"):
        bestiary.embed(model, folder, "layr4")
    with pytest.raises(UsageError, match="are taken of classifiers, and unet_padded_small is none"):
        bestiary.embed(bestiary.create("unet_padded_small", ["a", "b"]), folder)
    with pytest.raises(UsageError, match="nearest_neighbour is none"):
        bestiary.embed(bestiary.create("nearest_neighbour", ["a", "b"]), folder)
    with pytest.raises(DataError):
        bestiary.embed(model, tmp_path)


def test_layers_of_models_and_checkpoints(model, tmp_path: Path) -> None:
    names = list_layers("resnet18")
    assert {"conv4_x", "C5", "pool5", "layer3.1.conv2", "fc"} <= set(names)
    assert list_layers(save(model, tmp_path / "m.safetensors")) == names


def test_from_the_command_line(model, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = save(model, tmp_path / "m.safetensors"), tmp_path / "f.npz"

    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["features", *map(str, words)])
        return int(stop.value.code or 0), capsys.readouterr().out

    code, text = call(path, folder / "test", "--layer", "conv3_x", "--out", out, "--json")
    assert (code, json.loads(text)["shape"]) == (0, [6, 128])
    assert read_features(out).facts == {"model": "resnet18_cifar", "layer": "conv3_x", "pool": "mean"}
    assert call(path, "--data", folder, "--out", out)[0] == 0
    assert read_features(out).categories == ("blue", "red")
    assert call(path, "--layers")[1].splitlines()[0] == "conv2_x"
    assert call(path, folder, "--pool", "median")[0] == 2
    assert call("none.safetensors", folder)[0] == 4
