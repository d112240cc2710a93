"""Classifiers as graphs: networks that take one size only, colours in Caffe's order, and what a graph leaves out."""

from pathlib import Path

import pytest
import torch
from deploy_parts import unchecked

from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.deploy.onnx_graph import exported_module
from bestiary.heads.views import Views
from bestiary.verbs.exporting import ExportReport, export


@pytest.fixture(scope="module")
def system() -> VGGClassifier:
    """Its last map is 3x3, which is spread over 2x2 places: unequal windows. In Caffe's colours, with ten crops."""
    torch.manual_seed(0)
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=1 / 8)
    network = VGGClassifier(
        trunk,
        ("ant", "bee", "crab"),
        hidden=(8,),
        grid=2,
        resize=112,
        crop=100,
        mean=(0.5, 0.25, 0.125),
        std=(0.2, 0.2, 0.2),
        channel_order="bgr",
    )
    with torch.no_grad():
        network.classifier[-1].get_parameter("weight").mul_(300)
    network.take({"views": "ten_crop"})
    return network.eval()


@pytest.fixture(scope="module")
def report(system: VGGClassifier, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    with unchecked():
        return export(system, tmp_path_factory.mktemp("graph") / "vgg.onnx")


def test_a_network_of_one_size_is_exported_with_that_size(system: VGGClassifier, report: ExportReport) -> None:
    import onnx

    assert report.parity.verdict == "passed"
    batches = {len(r.sizes_hw) for r in report.parity.results}
    assert batches == {1, 2, 3}
    shape = onnx.load(str(report.path)).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape][1:] == [3, 100, 100]
    assert shape[0].dim_param, "the batch is free"
    # the answers differ from picture to picture, so that their agreement says something
    with torch.no_grad():
        probs = [system(system.normalize(torch.rand(1, 3, 100, 100) * f)).softmax(1)[0] for f in (0.2, 1.0)]
    assert float((probs[0] - probs[1]).abs().max()) > 1e-3


def test_the_graph_says_that_it_sees_one_crop(system: VGGClassifier, report: ExportReport, tmp_path: Path) -> None:
    assert report.notes == ("the graph sees the centre crop, not the model's ten_crop views at test time",)
    assert report.table().endswith(f"note: {report.notes[0]}")
    assert report.to_dict()["notes"] == list(report.notes)
    assert system.views == Views("ten_crop"), "the model itself keeps its own"


def test_networks_that_take_any_size_stay_free() -> None:
    from bestiary import zoo

    graph = exported_module(zoo.build("darknet19_cifar", ("ant", "bee")))
    assert graph.sizes_hw == ((32, 32), (64, 96))
    assert graph.notes == ()
