"""Graphs of the labellers before FCN: windows at once, a pyramid of contrasts, rounds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deploy_parts import unchecked

from bestiary import zoo
from bestiary.deploy.runtimes import open_graph
from bestiary.errors import ExportError
from bestiary.heads.whole_picture import WholePicture
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Segmentation
from bestiary.segmentation.farabet import Farabet
from bestiary.segmentation.pixel_windows import PixelWindows
from bestiary.segmentation.recurrent_cnn import RecurrentCNN
from bestiary.verbs.exporting import export

CATEGORIES = ("a", "b", "c")
COLOUR = Normalize([0.5] * 3, [0.5] * 3)
SYSTEMS: dict[str, Callable[[], WholePicture]] = {
    "windows": lambda: PixelWindows(CATEGORIES, COLOUR, (4, 2), maps=6, hidden=8, last=2, evaluation="windows"),
    "pyramid": lambda: Farabet(CATEGORIES, COLOUR, maps=(4, 6, 8), fans=(2, 3), hidden=8),
    "rounds": lambda: RecurrentCNN(CATEGORIES, COLOUR, maps=(4, 6), kernel=4),
}
NOTES = {"pyramid": ("the graph's answers are not averaged over the model's superpixels",)}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_file_says_what_the_model_says_at_any_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = SYSTEMS[name]().eval()
    system.take({"keep_probs": True})
    with unchecked():
        report = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",))
    assert report.parity.verdict == "passed"
    assert report.notes == NOTES.get(name, ())
    # the user's model is left as it was
    if isinstance(system, Farabet):
        assert system.superpixels
        system.superpixels = False
    if isinstance(system, PixelWindows):
        assert system.evaluation == "windows"
        system.evaluation = "dense"
    opened = open_graph(report.path, "onnxruntime", threads=1)
    pictures = [torch.rand(3, 21, 18), torch.rand(3, 1, 1), torch.rand(3, 13, 30)]
    with torch.inference_mode():
        wanted = system.predict_images(pictures)
    for one, two in zip(wanted, opened.predict_images(pictures), strict=True):
        assert isinstance(one, Segmentation)
        assert isinstance(two, Segmentation)
        assert one.probs is not None
        assert float(one.probs.std()) > 0
        torch.testing.assert_close(one.probs, two.probs, atol=1e-4, rtol=0)


def test_superpixels_of_features_are_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="got a ZoomOut"):
        export(zoo.build("zoom_out_small", ("a", "b")), tmp_path / "net.onnx")
