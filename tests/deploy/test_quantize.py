"""Graphs in eight bits: what is written, that it says nearly the same in both runtimes, and what it costs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from bestiary.deploy.quantize import PRODUCTS, inputs_of, last_products, quantize_graph
from bestiary.deploy.runtimes import open_graph
from bestiary.deploy.sidecar import file_digest, read_sidecar, sidecar_path
from bestiary.errors import UsageError
from bestiary.predictions import Classification, Detections, Segmentation
from bestiary.records import Objects, Sample, Target
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


class Patches:
    """Three pictures with a bright box, as an object and as pixels of class 1."""

    def __init__(self, categories: tuple[str, ...]) -> None:
        self.categories = categories

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        image = 0.3 * torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(index))
        label_map = torch.zeros(60, 80, dtype=torch.uint8)
        image[:, 20:40, 30:60] += 0.6
        label_map[20:40, 30:60] = 1
        boxes = torch.tensor([[30.0, 20.0, 60.0, 40.0]])
        target = Target(objects=Objects(boxes, torch.tensor([0])), label_map=label_map)
        return Sample(image, target, name=f"{index}.png", original_size_hw=(60, 80))


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
    assert [given.shape for (given,) in inputs_of(graph, pictures)] == [(1, 3, crop, crop)] * 2
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


@pytest.mark.parametrize(
    ("name", "last", "headline"),
    [("unet_padded_small", 1, "mean_iou"), ("unet", 1, "mean_iou"), ("fasterrcnn_resnet18_fpn", 12, "AP")],
)
def test_what_is_read_as_it_is_stays_exact(
    exported: Callable[[str], ExportReport], tmp_path: Path, name: str, last: int, headline: str
) -> None:
    report = exported(name)
    graph = tmp_path / "net.onnx"
    shutil.copy(report.path, graph)
    shutil.copy(report.sidecar_path, graph.with_suffix(".json"))
    kept = last_products(graph)
    assert len(kept) == last
    measured = quantize(graph, Patches(read_sidecar(graph).categories), split="train", pictures=2, threads=1)
    quantised = onnx.load(str(measured.path)).graph
    ranged = {n.output[0] for n in quantised.node if n.op_type == "DequantizeLinear"}
    products = {n.name: n.input[1] in ranged for n in quantised.node if n.op_type in PRODUCTS}
    assert sorted(n for n, is_quantised in products.items() if not is_quantised) == sorted(kept)
    assert sum(products.values()) >= 15
    written = json.loads(measured.accuracy_path.read_text(encoding="utf-8"))
    assert written["headline"] == headline
    assert set(written["lost"]) == {"bfloat16", "int8"}
    picture = Patches(("a",))[0].image
    exact, small = (open_graph(path, threads=1).predict_images([picture])[0] for path in (graph, measured.path))
    if isinstance(exact, Segmentation):
        assert isinstance(small, Segmentation)
        assert (exact.label_map != small.label_map).double().mean() < 0.05
    else:
        assert isinstance(exact, Detections)
        assert isinstance(small, Detections)
        assert (exact.boxes_xyxy[0] - small.boxes_xyxy[0]).abs().max() < 3
