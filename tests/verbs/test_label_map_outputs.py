"""What dense labellers write: ids, colours, polygons, pictures in several styles; read back by others and by us."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bestiary.cli.output_flags import outputs_of
from bestiary.draw import colour_of
from bestiary.errors import UsageError
from bestiary.geometry.polygons import polygons_to_mask
from bestiary.pictures.decode import read_image
from bestiary.pictures.encode import write_image, write_map
from bestiary.predictions import Detections, Segmentation
from bestiary.system import System
from bestiary.verbs.predicting import Outputs, predict_source
from bestiary.verbs.scoring import Formats, score

NAMES = ("background", "cell", "ring")


def label_map() -> Tensor:
    labels = torch.zeros(24, 30, dtype=torch.uint8)
    labels[2:20, 3:21] = 2
    labels[7:15, 8:16] = 0  # a hole
    labels[9:12, 10:13] = 1
    labels[21, 28] = 1
    return labels


class Drawn(System):
    """Says the same of every picture."""

    task = "segmentation"

    def predict_images(self, images):
        return [Segmentation(label_map(), (24, 30), categories=NAMES) for _ in images]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "in" / "a.png", torch.full((3, 24, 30), 100, dtype=torch.uint8))
    return tmp_path


def run(folder: Path, **fields: object) -> Path:
    outputs = Outputs(folder / "out", **fields)  # type: ignore[arg-type]
    list(predict_source(Drawn(NAMES), str(folder / "in"), outputs))
    return folder / "out"


def test_ids_and_colours_hold_the_same_map(folder: Path) -> None:
    out = run(folder, colours=True)
    assert sorted(p.name for p in out.iterdir()) == ["a.colours.png", "a.jpg", "a.labels.png", "colours.json"]
    ids, coloured = Image.open(out / "a.labels.png"), Image.open(out / "a.colours.png")
    assert (ids.mode, coloured.mode) == ("L", "P")
    for picture in (ids, coloured):
        assert np.array_equal(np.asarray(picture), label_map().numpy())
    rgb = np.asarray(coloured.convert("RGB"))
    legend = json.loads((out / "colours.json").read_text())
    for k, name in enumerate(NAMES):
        assert legend[name] == {"id": k, "rgb": [0, 0, 0] if k == 0 else list(colour_of(k))}
        assert (rgb[label_map().numpy() == k] == legend[name]["rgb"]).all()


def test_polygons_give_the_map_back(folder: Path) -> None:
    document = json.loads((run(folder, polygons=True, draw=False) / "a.json").read_text())
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("a.png", 24, 30)
    assert [shape["label"] for shape in document["shapes"]] == ["cell", "cell", "ring"]
    assert {shape["shape_type"] for shape in document["shapes"]} == {"polygon"}
    for k, name in enumerate(NAMES[1:], 1):
        outlines = [np.array(s["points"]).reshape(-1) for s in document["shapes"] if s["label"] == name]
        assert torch.equal(polygons_to_mask(outlines, (24, 30)), label_map() == k)


def test_simpler_polygons_have_fewer_points_and_lose_specks() -> None:
    rows, columns = torch.meshgrid(torch.arange(80), torch.arange(80), indexing="ij")
    disc = ((rows - 40) ** 2 + (columns - 40) ** 2 < 900).to(torch.uint8)
    disc[2, 2] = 1
    prediction = Segmentation(disc, (80, 80), categories=("background", "cell"))
    exact, simple = (prediction.to_labelme(tolerance)["shapes"] for tolerance in (0, 1.0))
    assert (len(exact), len(simple)) == (2, 1)
    assert len(simple[0]["points"]) < 0.3 * len(exact[0]["points"])
    filled = polygons_to_mask([np.array(simple[0]["points"]).reshape(-1)], (80, 80))
    away = (filled != (disc == 1)).nonzero()
    assert 0 < len(away) < 0.1 * int(disc.sum())


def test_objects_become_boxes_or_the_parts_of_their_masks() -> None:
    boxes = torch.tensor([[1.0, 2.0, 9.0, 7.5]])
    plain = Detections(boxes, torch.tensor([1]), torch.tensor([0.5]), size_hw=(24, 30), categories=NAMES, name="x.jpg")
    (shape,) = plain.to_labelme()["shapes"]
    assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("cell", "rectangle", None)
    assert shape["points"] == [[1.0, 2.0], [9.0, 7.5]]
    masks = (label_map() == 1)[None]
    parts = Detections(
        boxes, torch.tensor([1]), torch.tensor([0.5]), masks=masks, size_hw=(24, 30), categories=NAMES
    ).to_labelme()["shapes"]
    assert [(part["label"], part["group_id"]) for part in parts] == [("cell", 0), ("cell", 0)]


def test_pictures_are_drawn_in_the_style_asked_for(folder: Path) -> None:
    beside = read_image(run(folder, style="side_by_side") / "a.jpg")
    assert beside.shape == (3, 24, 60)
    assert int((beside[:, :, :24].int() - 100).abs().max()) < 8
    with pytest.raises(UsageError, match="got 'wild', wanted overlay"):
        outputs_of({"style": "wild"}, None, True, False, False, False)


def test_flags_become_outputs_and_the_others_stay() -> None:
    fields = {"colours": "true", "polygon_tolerance": "0.5", "test_flip": "true"}
    outputs = outputs_of(fields, Path("there"), False, True, False, False)
    assert outputs == Outputs(Path("there"), draw=False, coco=True, colours=True, tolerance=0.5)
    assert fields == {"test_flip": "true"}
    with pytest.raises(UsageError, match="--polygon-tolerance"):
        outputs_of({"polygon_tolerance": "-1"}, None, True, False, False, False)


def test_what_is_written_can_be_scored(folder: Path) -> None:
    truth = folder / "truth"
    write_image(truth / "images" / "test" / "a.png", torch.full((3, 24, 30), 100, dtype=torch.uint8))
    write_map(truth / "labels" / "test" / "a.png", label_map())
    (truth / "classes.txt").write_text("\n".join(NAMES))
    out = run(folder, colours=True, polygons=True, coco=True)
    measured = score(truth, out, formats=Formats(split="test"))
    assert measured.scores[0].value == 1.0
