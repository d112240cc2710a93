"""Detectors' graphs run in torch: what the systems find at network scale."""

import pytest
import torch
from box_systems import MAKE, ONE_STAGE, TWO_STAGE, box_system
from torch import Tensor

from bestiary import zoo
from bestiary.deploy.box_graph import BoxGraph, plain
from bestiary.deploy.graphs import graph_of
from bestiary.deploy.runtimes import _of_picture
from bestiary.errors import ExportError
from bestiary.heads.detection import Detector
from bestiary.predictions import Detections


def found_by(system: Detector, images: Tensor) -> list[Detections]:
    return [p for p in system.predict_images(list(images)) if isinstance(p, Detections)]


def noise(graph: BoxGraph, count: int = 2) -> Tensor:
    return torch.rand(count, 3, *graph.sizes_hw[0], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name in MAKE if name != "corner_net"])
@torch.inference_mode()
def test_the_graph_finds_what_the_system_finds(name: str) -> None:
    graph = graph_of(box_system(name))
    assert isinstance(graph, BoxGraph)
    assert isinstance(graph.system, Detector)
    images = noise(graph)  # at network scale already
    boxes, scores, labels, pictures = graph(images)
    assert pictures.tolist() == sorted(pictures.tolist())
    for i, wanted in enumerate(found_by(graph.system, images)):
        rows = pictures == i
        assert len(wanted) > 10
        torch.testing.assert_close(boxes[rows], wanted.boxes_xyxy, rtol=0, atol=1e-3)
        torch.testing.assert_close(scores[rows], wanted.scores, rtol=0, atol=1e-5)
        assert torch.equal(labels[rows], wanted.labels)


@pytest.mark.parametrize("name", [name for name in ONE_STAGE if name != "corner_net"])
@torch.inference_mode()
def test_ranked_boxes_suppressed_by_the_runner_are_the_same(name: str) -> None:
    inside, outside = graph_of(box_system(name)), graph_of(box_system(name), "outside")
    assert isinstance(inside, BoxGraph)
    images = noise(inside)
    boxes, scores, labels, pictures = inside(images)
    ranked = outside(images)
    assert [port.name for port in outside.outputs] == ["boxes", "scores", "labels"]
    assert outside.decoding is not None
    for i in range(len(images)):
        got_boxes, got_scores, got_labels = _of_picture(ranked, i, outside.decoding)
        rows = pictures == i
        # The runner clips after the suppression, as the systems do that compare unclipped boxes.
        limits = torch.tensor(images.shape[:1:-1]).repeat(2)
        torch.testing.assert_close(got_boxes.clamp(min=0).minimum(limits), boxes[rows], rtol=0, atol=1e-3)
        torch.testing.assert_close(got_scores, scores[rows], rtol=0, atol=1e-6)
        assert torch.equal(got_labels, labels[rows])


@torch.inference_mode()
def test_an_overlap_that_was_asked_for_is_the_graphs() -> None:
    system = box_system("yolo_v2")
    system.take({"suppression_iou": 0.05, "max_detections": 7})
    graph = graph_of(system)
    assert isinstance(graph, BoxGraph)
    assert graph.notes == ()
    images = noise(graph, 1)
    (wanted,) = found_by(system, images)
    boxes, *_ = graph(images)
    assert len(boxes) == len(wanted) == 7
    torch.testing.assert_close(boxes, wanted.boxes_xyxy, rtol=0, atol=1e-3)


def test_what_the_graph_does_not_do_is_said_and_not_done_by_the_twin_it_is_compared_with() -> None:
    system = box_system("yolo_v2")
    system.take({"tile": 64, "test_flip": True, "suppression": "soft_gaussian"})
    graph = graph_of(system)
    tiles, views, soft = graph.notes
    assert "tiles of 64 pixels" in tiles
    assert "not the model's 2" in views
    assert "soft_gaussian" in soft
    assert isinstance(graph.system, Detector)
    assert plain(graph.system) == ()
    flips, soft = graph_of(box_system("corner_net")).notes
    assert "mirror" in flips
    assert "hard" in soft


@pytest.mark.parametrize("name", TWO_STAGE[:1])
def test_the_suppression_between_two_stages_cannot_be_left_out(name: str) -> None:
    with pytest.raises(ExportError, match="only one-stage detectors"):
        graph_of(box_system(name), "outside")


@pytest.mark.parametrize(("name", "antialias"), [("ssd300_small", True), ("ssd300_vgg16", False)])
def test_pictures_are_brought_to_the_square_as_the_system_brings_them(name: str, antialias: bool) -> None:
    with torch.device("meta"):
        system = zoo.build(name, ["a"])
    how = graph_of(system).preparation
    assert (how["kind"], how["side"], how["antialias"], how["letterbox"]) == ("square", 300, antialias, False)
    assert ("not antialiased" in how["rule"]) is not antialias
