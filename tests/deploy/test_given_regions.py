"""Fast R-CNN as a graph: regions are its second input, and the predictor proposes them as the model does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from deploy_parts import unchecked
from jaxtyping import Shaped
from torch import Tensor

from bestiary.data.world import World
from bestiary.deploy.given_regions_graph import GivenRegionsGraph
from bestiary.deploy.graphs import graph_of
from bestiary.deploy.quantize import inputs_of
from bestiary.deploy.runtimes import open_graph
from bestiary.deploy.sidecar import read_sidecar
from bestiary.detection.fast_rcnn import FastRCNN, fast_rcnn_small
from bestiary.errors import UsageError
from bestiary.predictions import Detections
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.training.fitting import Samples
from bestiary.verbs.exporting import export


class Fixed(Proposer):
    """The same boxes for every picture: nothing that a sidecar could name."""

    def __init__(self, *boxes_xyxy: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.boxes = torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4)

    def settings(self) -> dict[str, Any]:
        return {"boxes": self.boxes.tolist()}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        return Proposals(self.boxes, torch.linspace(1, 0.5, len(self.boxes)))


def system(proposals: str = "random_boxes") -> FastRCNN:
    """In evaluation mode, with a head that says different things of different regions."""
    torch.manual_seed(3)
    made = fast_rcnn_small(
        ["cat", "dog", "bird"],
        min_size=96,
        max_size=160,
        proposals=proposals,
        proposal_count=80,
    ).eval()
    with torch.no_grad():
        made.roi_heads.box_predictor.cls_score.weight.mul_(60)
        made.roi_heads.box_predictor.bbox_pred.weight.mul_(100)
    return made


def drawn(height: int, width: int, seed: int = 1) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def found_by(model: Any, picture: Tensor) -> Detections:
    (found,) = model.predict_images([picture])
    assert isinstance(found, Detections)
    return found


def assert_same(got: Detections, wanted: Detections) -> None:
    assert len(got) == len(wanted)
    torch.testing.assert_close(got.boxes_xyxy, wanted.boxes_xyxy, rtol=0, atol=0.02)
    torch.testing.assert_close(got.scores, wanted.scores, rtol=0, atol=1e-4)
    assert torch.equal(got.labels, wanted.labels)


@torch.inference_mode()
def test_in_torch_it_finds_what_the_system_finds_in_each_picture_of_a_batch() -> None:
    graph = graph_of(system())
    assert isinstance(graph, GivenRegionsGraph)
    images = torch.stack([drawn(96, 128, seed) for seed in (1, 2)])  # at network scale already
    model: Any = graph.system
    regions = [model.proposer.propose(image).boxes_xyxy[:80] for image in images]
    rows = [torch.cat([torch.full((len(boxes), 1), float(i)), boxes], 1) for i, boxes in enumerate(regions)]
    boxes, scores, labels, pictures = graph(images, torch.cat(rows))
    for i, image in enumerate(images):
        wanted, mine = found_by(model, image), pictures == i
        assert len(wanted) > 10
        assert_same(Detections(boxes[mine], labels[mine], scores[mine]), wanted)


def test_the_predictor_proposes_as_the_sidecar_says(tmp_path: Path) -> None:
    model = system()
    with unchecked():
        report = export(model, tmp_path / "net.onnx", runtimes=("onnxruntime", "openvino"))
    assert report.parity.verdict == "passed"
    sidecar = read_sidecar(report.path)
    assert [port["name"] for port in sidecar.inputs] == ["images", "regions"]
    assert sidecar.inputs[1]["shape"] == ["R", 5]
    wanted_line = {"method": "random_boxes", "arguments": {}, "learned": {}, "count": 80}
    assert sidecar.preparation["proposals"] == wanted_line
    picture = drawn(180, 240)
    wanted = found_by(model, picture)
    assert len(wanted) > 10
    assert_same(found_by(open_graph(report.path, threads=1), picture), wanted)
    ((images, regions),) = inputs_of(report.path, [picture])
    assert images.shape == (1, 3, 96, 128)
    assert regions.shape == (80, 5)


def test_what_the_method_has_learned_lies_in_the_sidecar(tmp_path: Path) -> None:
    model = system("bing")
    with unchecked():
        model.proposer.fit(Samples(World(6, split="train")))
        report = export(model, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert not graph_of(model).notes
    opened = open_graph(report.path, threads=1)
    assert opened.proposer is not None
    assert opened.proposer.identity() == model.proposer.identity()
    picture = World(1, split="val")[0].image
    wanted = found_by(model, picture)
    assert len(wanted) > 10
    assert_same(found_by(opened, picture), wanted)


def test_a_method_of_ones_own_is_given_to_the_predictor(tmp_path: Path) -> None:
    model = system()
    model.proposer = Fixed((10, 10, 60, 90), (30, 5, 120, 100), (0, 40, 200, 170))
    with unchecked():
        report = export(model, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert report.parity.verdict == "passed"
    assert any("open_graph" in note for note in graph_of(model).notes)
    picture = drawn(180, 240)
    with pytest.raises(UsageError, match="names no method"):
        open_graph(report.path, threads=1).predict_images([picture])
    given = open_graph(report.path, threads=1, proposer=model.proposer)
    assert_same(found_by(given, picture), found_by(model, picture))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_where_nothing_is_proposed_nothing_is_found(runtime: str, tmp_path: Path) -> None:
    with unchecked():
        report = export(system(), tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert len(found_by(open_graph(report.path, runtime, threads=1, proposer=Fixed()), drawn(180, 240))) == 0
