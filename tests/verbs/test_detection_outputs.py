"""What detectors write: COCO results that the reference tool reads, YOLO text, crops; streamed."""

import json
from pathlib import Path

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.pictures.encode import write_image
from bestiary.predictions import Detections
from bestiary.system import System
from bestiary.verbs.predicting import Outputs, predict_source


class TwoBoxes(System):
    """Finds a sure cat in the middle and an unsure dog in the corner."""

    task = "detection"

    def predict_images(self, images):
        found = []
        for image in images:
            h, w = image.shape[-2:]
            boxes = torch.tensor([[w / 4, h / 4, 3 * w / 4, 3 * h / 4], [0, 0, 8, 6]], dtype=torch.float32)
            labels, scores = torch.tensor([0, 1]), torch.tensor([0.9, 0.2])
            found.append(Detections(boxes, labels, scores, size_hw=(h, w), categories=self.categories))
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b/ü c", "b/a"):
        write_image(tmp_path / "in" / f"{name}.png", torch.full((3, 40, 60), 128, dtype=torch.uint8))
    return tmp_path


def test_all_outputs(folder: Path) -> None:
    outputs = Outputs(folder / "out", coco=True, yolo=True, crops=True)
    model = TwoBoxes(["cat", "dog"])
    found = list(predict_source(model, str(folder / "in"), outputs, threshold=0.25))
    assert [len(p) for p in found] == [1, 1, 1]
    results = json.loads((folder / "out" / "predictions.coco.json").read_text(encoding="utf-8"))
    assert [r["image_id"] for r in results] == [1, 2, 3]
    assert results[0]["bbox"] == [15.0, 10.0, 30.0, 20.0]
    assert results[0]["category_id"] == 1
    assert {r["file_name"] for r in results} == {"a.png", "b/a.png", "b/ü c.png"}
    texts = sorted((folder / "out").rglob("*.txt"))
    assert len(texts) == 3, "the two pictures called a do not overwrite each other"
    assert texts[0].read_text().split()[1:5] == ["0.500000", "0.500000", "0.500000", "0.500000"]
    assert len(list((folder / "out" / "crops" / "cat").glob("*.jpg"))) == 3
    assert not (folder / "out" / "crops" / "dog").exists()


def test_a_low_threshold_keeps_everything_and_an_impossible_one_is_refused(folder: Path) -> None:
    outputs = Outputs(folder / "out", draw=False)
    model = TwoBoxes(["cat", "dog"])
    assert [len(p) for p in predict_source(model, str(folder / "in"), outputs, threshold=0.0)] == [2, 2, 2]
    assert not (folder / "out").exists(), "nothing was asked for, nothing is written"
    with pytest.raises(UsageError, match=r"wanted 0\.\.1"):
        list(predict_source(model, str(folder / "in"), outputs, threshold=25.0))


def test_summary_is_one_line(folder: Path) -> None:
    outputs = Outputs(folder / "out", draw=False)
    prediction = TwoBoxes(["cat", "dog"]).predict(folder / "in" / "a.png")[0]
    assert outputs.summary(prediction) == "1 cat, 1 dog"
    assert outputs.summary(prediction.above(0.95)) == "nothing found"
