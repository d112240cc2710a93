"""Graphs of the labellers that undo poolings, and of dilated ones: what the files say is what the models say."""

from pathlib import Path

import pytest
import torch
from deploy_parts import unchecked
from torch import nn

from bestiary.deploy import parity
from bestiary.deploy.agreement import Agreement
from bestiary.deploy.graphs import graph_of
from bestiary.errors import ExportError
from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.preprocess import channel_normalize
from bestiary.layers.switched import start_by_inputs
from bestiary.proposals.methods import build
from bestiary.segmentation.deconv_net import DeconvNet, WindowRules
from bestiary.segmentation.dilation import CONTEXTS, ContextModule, Dilation, FrontEnd
from bestiary.segmentation.segnet import SegNet
from bestiary.verbs.exporting import export

WIDTHS = (4, 6)
DEPTHS = (1, 1)


def segnet() -> PixelSystem:
    return SegNet(("a", "b"), channel_normalize(3), DEPTHS, WIDTHS)


def deconv_net() -> PixelSystem:
    windows = build("sliding_windows")
    net = DeconvNet(("a", "b"), channel_normalize(3), windows, depths=DEPTHS, widths=WIDTHS, hidden=8, cells=20)
    start_by_inputs(net)
    return net


def dilation() -> PixelSystem:
    front = FrontEnd(3, 2, depths=(1, 1, 1, 1, 1), widths=(4,) * 5, hidden=4, fc_size=3)
    nn.init.normal_(front.final.weight)
    return Dilation(("a", "b"), channel_normalize(3), front, ContextModule(2, CONTEXTS["basic"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("build_small", [segnet, deconv_net, dilation])
def test_the_file_says_what_the_model_says_at_odd_sizes(build_small, tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = build_small().eval()
    with unchecked():
        report = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert report.parity.verdict == "passed"
    sizes = {size for result in report.parity.results for size in result.sizes_hw}
    assert len(sizes) > 1
    assert any(height % 2 for height, _ in sizes)


@torch.inference_mode()
def test_a_graph_looks_at_the_whole_picture_and_says_so() -> None:
    torch.manual_seed(0)
    system = deconv_net().eval()
    images = torch.rand(1, 3, 70, 80, generator=torch.Generator().manual_seed(1))
    assert isinstance(system, DeconvNet)
    by_windows = system.predict_logits(images)
    graph = graph_of(system)
    assert "without the model's proposals" in graph.notes[0]
    system.rules = WindowRules(proposals=0)
    assert torch.equal(graph(images), system.predict_logits(images))
    assert not torch.allclose(graph(images), by_windows)


@pytest.mark.parametrize(
    ("build_small", "wrong", "verdict"),
    [
        (segnet, 2, "passed"),
        (segnet, 3, "failed: onnxruntime, noise: jumped"),
        (dilation, 1, "failed: onnxruntime, noise: jumped"),
    ],
    ids=["switches that flip", "switches and a wrong graph", "no switches"],
)
def test_a_network_that_jumps_has_three_tries(build_small, wrong, verdict, tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    compare, told = parity._compare, []

    def flipping(graph, opened, case, *rest):
        told.append(case)
        return Agreement(False, why="jumped") if len(told) <= wrong else compare(graph, opened, case, *rest)

    monkeypatch.setattr(parity, "_compare", flipping)
    system = build_small().eval()
    with unchecked():
        if verdict == "passed":
            found = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",)).parity
            assert found.verdict == verdict
            assert found.results[0].case == "noise, noise added"
        else:
            with pytest.raises(ExportError, match=verdict):
                export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    first, second = told[:2]
    if build_small is segnet:
        apart = (second.pictures[0] - first.pictures[0]).abs()
        assert 0 < float(apart.max()) < 0.1
    else:
        assert second.name != first.name + ", noise added"
