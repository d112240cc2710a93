"""Graphs of the DeepLabs: sizes that several scales make of one picture, and a stride that is prediction's own."""

from pathlib import Path

import pytest
import torch
from deploy_parts import unchecked

from bestiary import zoo
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import VARIANTS, Variant
from bestiary.deploy.graphs import graph_of
from bestiary.deploy.runtimes import open_graph
from bestiary.heads.whole_picture import WholePicture
from bestiary.predictions import Segmentation
from bestiary.verbs.exporting import export

CASES = {
    "deeplab_v2_small": {"scales": (0.75, 0.5)},
    "deeplab_v3_plus_resnet18": {"predict_stride": 8},
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_file_says_what_the_model_says_at_any_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS, "resnet18", Variant(BasicBlock, (1, 1, 1, 2), width=8))
    torch.manual_seed(0)
    system = zoo.build(name, ("sky", "road", "car"), {**CASES[name], "keep_probs": True}).eval()
    assert isinstance(system, WholePicture)
    with unchecked():
        report = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert report.parity.verdict == "passed"
    pictures = [torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) for size in ((30, 47), (1, 1))]
    graph = open_graph(report.path, threads=1)
    with torch.inference_mode():
        assert torch.equal(graph_of(system)(pictures[0][None]), system.predict_logits(pictures[0][None]))
        wanted = system.predict_images(pictures)
    for one, two in zip(wanted, graph.predict_images(pictures), strict=True):
        assert isinstance(one, Segmentation)
        assert isinstance(two, Segmentation)
        assert one.probs is not None
        torch.testing.assert_close(one.probs, two.probs, atol=1e-4, rtol=0)
