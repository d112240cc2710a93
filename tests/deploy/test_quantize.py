"""Graphs in eight bits: what is written, that it says nearly the same in both runtimes, and what it costs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bestiary.deploy.quantize import inputs_of, quantize_graph
from bestiary.deploy.runtimes import open_graph
from bestiary.deploy.sidecar import file_digest, read_sidecar, sidecar_path
from bestiary.errors import UsageError
from bestiary.predictions import Classification
from bestiary.records import Sample, Target
from bestiary.verbs.exporting import ExportReport
from bestiary.verbs.quantizing import quantize

NAMES = ("cat", "dog", "bird")


class Noise:
    """Six pictures with a class each."""

    categories = NAMES

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(index))
        return Sample(image, Target(label=index % 3), name=f"{index}.png", original_size_hw=(40, 50))


@pytest.fixture
def graph(exported: Callable[[str], ExportReport], tmp_path: Path) -> Path:
    """A classifier's, in a folder of its own."""
    report = exported("resnet18_cifar")
    shutil.copy(report.path, tmp_path / "net.onnx")
    shutil.copy(report.sidecar_path, tmp_path / "net.json")
    return tmp_path / "net.onnx"


def test_eight_bits_are_a_quarter_and_say_nearly_the_same(graph: Path) -> None:
    pictures, to = [Noise()[i].image for i in range(4)], graph.with_name("small.onnx")
    sidecar = quantize_graph(graph, pictures, to)
    assert to.stat().st_size < 0.3 * graph.stat().st_size
    assert read_sidecar(to) == sidecar
    assert sidecar.sha256 == file_digest(to) != read_sidecar(graph).sha256
    exact = open_graph(graph, threads=1).predict_images(pictures)
    for runtime in ("onnxruntime", "openvino"):
        for wanted, got in zip(exact, open_graph(to, runtime, threads=1).predict_images(pictures), strict=True):
            assert isinstance(wanted, Classification)
            assert isinstance(got, Classification)
            assert 0 < float((wanted.probs - got.probs).abs().max()) < 0.02


def test_ranges_are_seen_on_what_the_graph_is_given(graph: Path) -> None:
    pictures = [torch.rand(3, 40, 50), torch.rand(3, 32, 32)]
    crop = read_sidecar(graph).preparation["crop"]
    assert [given.shape for given in inputs_of(graph, pictures)] == [(1, 3, crop, crop)] * 2
    with pytest.raises(UsageError, match="no picture"):
        quantize_graph(graph, [], graph.with_name("small.onnx"))


def test_what_fewer_bits_cost_is_written_beside_the_graph(graph: Path) -> None:
    said: list[str] = []
    report = quantize(graph, Noise(), pictures=4, threads=1, say=said.append)
    assert report.path == graph.with_name("net.int8.onnx")
    assert sidecar_path(report.path).is_file()
    written = json.loads(report.accuracy_path.read_text(encoding="utf-8"))
    assert list(written["scores"]) == ["float32", "bfloat16", "int8"]
    assert (written["split"], written["calibration_pictures"]) == ("val", 4)
    headline = written["headline"]
    for name in ("bfloat16", "int8"):
        lost = written["scores"]["float32"][headline] - written["scores"][name][headline]
        assert written["lost"][name] == pytest.approx(lost)
    assert said[0] == "int8: ranges from 4 pictures of train"
    assert report.table().splitlines()[0].startswith("precision")
    with pytest.raises(UsageError, match="got 0"):
        quantize(graph, Noise(), pictures=0)
