"""The exported modules, run in torch: exactly what the systems say at network scale."""

import pytest
import torch
from deploy_parts import small_system
from torch import Tensor

from bestiary.deploy.graphs import Graph, _mirrored, graph_of
from bestiary.deploy.onnx_graph import exported_module
from bestiary.deploy.region_graph import RegionGraph
from bestiary.errors import ExportError
from bestiary.layers.overlap_tile import InputGeometry, mirror_window
from bestiary.predictions import Detections
from bestiary.system import System


class Foreign(System):
    task = "classification"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_a_classifier_gives_the_probabilities_of_its_predictions() -> None:
    system = small_system("resnet18_cifar")
    graph = graph_of(system)
    side = graph.sizes_hw[0][0]
    images = noise(2, 3, side, side)
    resized, _ = system.to_network_scale(list(images), [])
    wanted = torch.stack([p.probs for p in system.predict_images(list(images))])
    assert torch.equal(graph(torch.stack(list(resized))), wanted)


@pytest.mark.parametrize("size_hw", [(64, 80), (33, 47), (16, 1), (1, 1), (32, 32)])
@torch.inference_mode()
def test_a_padded_unet_gives_the_logits_of_its_predictions_at_any_size(size_hw: tuple[int, int]) -> None:
    system = small_system("unet_padded_small")
    images = noise(2, 3, *size_hw)
    assert torch.equal(graph_of(system)(images), system.predict_logits(images))


@pytest.mark.parametrize("side", [1, 2, 3, 15, 16, 17, 31, 32, 33, 48])
def test_mirroring_of_symbolic_sizes_is_that_of_the_systems(side: int) -> None:
    image = noise(1, 1, side, 5)
    padded = max(32, -(-side // 16) * 16)
    geometry = InputGeometry(grid=16, smallest=32)
    assert torch.equal(_mirrored(image, geometry), mirror_window(image, 0, 0, (padded, 32)))


@torch.inference_mode()
def test_the_papers_unet_gives_the_middle_of_a_tile_of_colour() -> None:
    system = small_system("unet")
    graph = graph_of(system)
    assert graph.images.shape[1] == 3  # grey is made inside
    tile = noise(1, 3, 188 + 16, 188)
    whole = system.predict_logits(tile[..., 92:-92, 92:-92])
    assert graph(tile).shape == whole.shape == (1, 2, 20, 4)
    surrounded = mirror_window(tile[..., 92:-92, 92:-92], -92, -92, (204, 188))
    assert torch.allclose(graph(surrounded), whole, atol=1e-5)


@torch.inference_mode()
def test_a_detector_gives_the_boxes_of_its_predictions_picture_by_picture() -> None:
    system = small_system("fasterrcnn_resnet18_fpn")
    graph = graph_of(system)
    images = noise(3, 3, 96, 150)  # at network scale already
    boxes, scores, labels, pictures = graph(images)
    assert pictures.tolist() == sorted(pictures.tolist())
    for i, wanted in enumerate(system.predict_images(list(images))):
        assert isinstance(wanted, Detections)
        assert len(wanted) > 10
        rows = pictures == i
        assert torch.allclose(boxes[rows], wanted.boxes_xyxy, atol=1e-4)
        assert torch.allclose(scores[rows], wanted.scores, atol=1e-6)
        assert torch.equal(labels[rows], wanted.labels)


@torch.inference_mode()
def test_a_detector_that_finds_nothing_gives_empty_tensors() -> None:
    graph = graph_of(small_system("fasterrcnn_resnet18_fpn"))
    assert isinstance(graph, RegionGraph)
    graph.min_score.fill_(2.0)
    boxes, scores, labels, pictures = graph(noise(2, 3, 96, 100))
    assert (boxes.shape, scores.shape, labels.shape, pictures.shape) == ((0, 4), (0,), (0,), (0,))


@torch.inference_mode()
def test_fewer_boxes_than_the_detector_may_keep_are_all_kept() -> None:
    system = small_system("fasterrcnn_resnet18_fpn")
    image = noise(1, 3, 40, 33)  # 3 (10 16 + 5 8 + ...) anchors, less than a thousand a level
    _, scores, _, _ = graph_of(system)(image)
    assert 0 < len(scores) <= 100
    assert torch.equal(scores, scores.sort(descending=True).values)


def test_the_ports_say_what_comes_out() -> None:
    for name in ("resnet18_cifar", "unet_padded_small", "fasterrcnn_resnet18_fpn"):
        graph = graph_of(small_system(name))
        with torch.inference_mode():
            answer = graph(noise(2, int(graph.images.shape[1]), *graph.sizes_hw[0]))
        answers = answer if isinstance(answer, tuple) else (answer,)
        for port, value in zip(graph.outputs, answers, strict=True):
            assert str(value.dtype) == f"torch.{port.type}"
            assert value.ndim == len(port.shape)
            letters = {"B": 2, "K": len(graph.system.categories)}
            for letter, length in zip(port.shape, value.shape, strict=True):
                assert letters.setdefault(letter, length) == length if isinstance(letter, str) else letter == length


def test_the_users_model_is_left_as_it_was() -> None:
    system = small_system("unet_padded_small").train().half()
    graph = exported_module(system)
    assert isinstance(graph, Graph)
    assert system.training
    assert next(system.parameters()).dtype == torch.float16
    assert next(system.parameters()).requires_grad
    inside = next(graph.parameters())
    assert inside.dtype == torch.float32
    assert not graph.system.training
    assert not inside.requires_grad
    assert graph.system.model_name == "unet_padded_small"


def test_a_system_without_a_graph_says_so() -> None:
    with pytest.raises(ExportError, match="got a Foreign, wanted one of"):
        graph_of(Foreign(("a",)))
