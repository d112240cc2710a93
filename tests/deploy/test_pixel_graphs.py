"""Graphs of dense labellers: every kind of border, in torch and in the file, and answers back in original pixels."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from deploy_parts import unchecked
from torch import Tensor, nn

from bestiary.deploy.graphs import PixelGraph, graph_of
from bestiary.deploy.runtimes import open_graph
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture, resize_logits
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Segmentation
from bestiary.verbs.exporting import export


class Shrinking(WholePicture):
    """A valid convolution that eats two pixels on each side, and a pooling of four that is undone."""

    geometry = InputGeometry(margin=2, grid=4, smallest=4)

    def __init__(self) -> None:
        super().__init__(("sky", "road", "car"), Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
        self.fine = nn.Conv2d(3, 8, 5)
        self.coarse = nn.Conv2d(8, 3, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 1)

    def outputs(self, pixels: Tensor) -> PixelOutputs:
        fine = self.fine(pixels).relu()
        coarse = self.coarse(nn.functional.max_pool2d(fine, 4))
        return PixelOutputs(self.last(fine) + resize_logits(coarse, fine.shape[-2:]))  # type: ignore[arg-type]


class Filled(Shrinking):
    """With the mean colour around the picture."""

    padding: ClassVar[Padding] = "mean"


class Free(WholePicture):
    """Takes every size as it is."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), Normalize([0.5], [0.5]))
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def outputs(self, pixels: Tensor) -> PixelOutputs:
        return PixelOutputs(self.conv(pixels))


def made(kind: type[WholePicture]) -> WholePicture:
    torch.manual_seed(5)
    return kind().eval()  # type: ignore[call-arg]


def noise(count: int, size_hw: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *size_hw, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Shrinking, Filled, Free])
@pytest.mark.parametrize("size_hw", [(1, 1), (4, 5), (17, 31), (64, 40)])
@torch.inference_mode()
def test_a_graph_gives_the_logits_of_the_predictions_at_any_size(
    kind: type[WholePicture], size_hw: tuple[int, int]
) -> None:
    system, images = made(kind), noise(2, size_hw)
    graph = graph_of(system)
    assert isinstance(graph, PixelGraph)
    assert torch.equal(graph(images), system.predict_logits(images))


@torch.inference_mode()
def test_what_lies_outside_matters_and_is_not_the_same_for_both_paddings() -> None:
    images = noise(1, (48, 48))
    mirrored, filled = (graph_of(made(kind))(images) for kind in (Shrinking, Filled))
    assert torch.equal(mirrored[..., 16:-16, 16:-16], filled[..., 16:-16, 16:-16])
    assert not torch.allclose(mirrored[..., 0, :], filled[..., 0, :], atol=1e-3)


@pytest.mark.parametrize("kind", [Shrinking, Filled])
def test_the_file_says_what_the_model_says_at_any_size(kind: type[WholePicture], tmp_path: Path) -> None:
    system = made(kind)
    system.take({"predict_size": 20, "keep_probs": True})
    with unchecked():
        report = export(system, tmp_path / "net.onnx")
    assert report.parity.verdict == "passed"
    pictures = [noise(1, (30, 47))[0], noise(1, (1, 1))[0], noise(1, (20, 33))[0]]
    with torch.inference_mode():
        wanted = system.predict_images(pictures)
    for runtime in ("onnxruntime", "openvino"):
        for one, two in zip(wanted, open_graph(report.path, runtime, threads=1).predict_images(pictures), strict=True):
            assert isinstance(one, Segmentation)
            assert isinstance(two, Segmentation)
            assert one.size_hw == two.size_hw
            torch.testing.assert_close(one.probs, two.probs, atol=1e-4, rtol=0)


def test_overlapping_classes_come_back_as_masks_and_further_looks_are_left_out(tmp_path: Path) -> None:
    system = made(Shrinking)
    system.take({"multi_label": True, "mask_threshold": 0.3, "test_flip": True})
    with unchecked():
        report = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert report.notes == ("the graph looks once, without the model's mirror images, scales and windows at test time",)
    assert not system.test_views.is_plain, "the user's model is left as it was"
    picture = noise(1, (30, 47))[0]
    system.take({"test_flip": False})
    with torch.inference_mode():
        (wanted,) = system.predict_images([picture])
    (got,) = open_graph(report.path, threads=1).predict_images([picture])
    assert isinstance(wanted, Segmentation)
    assert isinstance(got, Segmentation)
    assert wanted.class_masks is not None
    assert 0.02 < wanted.class_masks.double().mean() < 0.98
    assert got.class_masks is not None
    assert (got.class_masks != wanted.class_masks).double().mean() < 1e-3
    assert (got.label_map != wanted.label_map).double().mean() < 1e-3
