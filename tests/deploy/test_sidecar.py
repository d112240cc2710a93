"""The file beside the graph, and what is said when it does not fit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.backbones.resnet import resnet18_cifar
from bestiary.deploy.graphs import graph_of
from bestiary.deploy.onnx_graph import describe_graph
from bestiary.deploy.runtimes import GraphPredictor
from bestiary.deploy.sidecar import Sidecar, file_digest, read_sidecar, sidecar_path
from bestiary.errors import CheckpointError


class Silent:
    """A session that is never run."""

    runtime, version = "onnxruntime", "0"

    def run(self, images: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
        raise NotImplementedError


PORT = {"name": "images", "type": "float32", "shape": ["B", 3, "H", "W"], "meaning": "RGB"}


def write(folder: Path, **changes: Any) -> Path:
    graph = folder / "net.onnx"
    graph.write_bytes(b"graph")
    sidecar = Sidecar(
        "resnet18", "classification", ("Hund", "Katze ü"), (PORT,), (PORT,), {"kind": "whole"}, {"inside": True}, {},
        "0.1.0", file_digest(graph), {"verdict": "passed"},
    )  # fmt: skip
    sidecar.write(sidecar_path(graph))
    if changes:
        document = json.loads(sidecar_path(graph).read_text(encoding="utf-8"))
        sidecar_path(graph).write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return graph


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    graph = write(tmp_path)
    sidecar = read_sidecar(graph)
    assert sidecar.categories == ("Hund", "Katze ü")
    sidecar.write(tmp_path / "again.json")
    first, second = (json.loads((tmp_path / n).read_text(encoding="utf-8")) for n in ("net.json", "again.json"))
    assert first == second
    assert {f.name for f in dataclasses.fields(Sidecar)} | {"schema"} == set(first)


def test_what_taught_the_model_is_known_of_its_graph(tmp_path: Path) -> None:
    system, path = resnet18_cifar(["a", "b"]), tmp_path / "net.onnx"
    path.write_bytes(b"graph")
    assert describe_graph(graph_of(system), path).learned is None
    system.learned = {"data": "photographs", "split": "train", "set_aside": False}
    describe_graph(graph_of(system), path).write(sidecar_path(path))
    session = Silent()
    assert GraphPredictor(session, read_sidecar(path)).learned == system.learned
    assert GraphPredictor(session, dataclasses.replace(read_sidecar(path), learned=None)).learned == {}


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2, B.1
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_graph_and_a_missing_sidecar_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such graph"):
        read_sidecar(tmp_path / "net.onnx")
    graph = write(tmp_path)
    sidecar_path(graph).unlink()
    with pytest.raises(CheckpointError, match=r"sidecar net\.json is missing.*export again"):
        read_sidecar(graph)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"task": "detection"}', "null"])
def test_a_broken_sidecar_is_named(tmp_path: Path, text: str) -> None:
    graph = write(tmp_path)
    sidecar_path(graph).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"net\.json.*(broken|not the sidecar)"):
        read_sidecar(graph)


@pytest.mark.parametrize(
    ("field", "value"), [("categories", "cat"), ("task", None), ("preparation", [1]), ("inputs", {})]
)
def test_a_field_of_another_type_is_named(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"net\.json: {field}: got"):
        read_sidecar(write(tmp_path, **{field: value}))


def test_a_newer_sidecar_asks_for_a_newer_version(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"schema 99.*Upgrade"):
        read_sidecar(write(tmp_path, schema=99))


def test_another_graph_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    graph = write(tmp_path)
    graph.write_bytes(b"another")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        read_sidecar(graph)
