"""Label maps and instance maps: layouts, value tables, and the real sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bestiary.data.dataset import Dataset
from bestiary.data.opening import open_index
from bestiary.data.readers import label_masks
from bestiary.errors import DataError


def picture(path: Path, values: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3, 3), np.uint8) if values is None else np.array(values, np.uint8)).save(path)


def ids(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (2, 3))


@pytest.mark.parametrize(
    ("images", "maps", "split"),
    [
        ("images", "labels", "all"),
        ("images/train", "masks/train", "train"),
        ("val/images", "val/labels", "val"),
        ("JPEGImages", "SegmentationClass", "all"),
        ("imgs", "annotations", "all"),
    ],
)
@pytest.mark.parametrize("tail", ["", "_mask"])
def test_layouts(tmp_path: Path, images: str, maps: str, split: str, tail: str) -> None:
    picture(tmp_path / images / "a.jpg")
    picture(tmp_path / maps / f"a{tail}.png", ids(0, 1, 2))
    (tmp_path / "classes.txt").write_text("sky\nroad\nvoid\n")
    index = open_index(tmp_path)
    assert index.format == "label-masks"
    [found] = index.splits[split]
    assert found.label_map == tmp_path / maps / f"a{tail}.png"
    assert index.categories == ["sky", "road"]
    assert index.ignore_label == 2
    assert found.extra["label_values"] == {0: 0, 1: 1}


def test_panoptic_entries_that_are_none_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "panoptic/m.png", ids(0, 1, 1))
    segments = [{"id": 1, "category_id": 4}, {"id": [2], "category_id": 4}, {"id": 3, "category_id": [4]}, "x"]
    document = {
        "images": [{"id": 1.0, "file_name": "a.png"}, {"id": [1], "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "file_name": "m.png", "segments_info": segments},
            {"image_id": [1], "file_name": "m.png", "segments_info": 3},
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": [4], "name": "dog"}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    index = open_index(tmp_path)
    assert index.format == "coco-panoptic"
    rules = ["bad-annotation"] * 2 + ["bad-category", "bad-picture", "unknown-category", "unknown-picture"]
    assert sorted(d.rule for d in index.defects) == rules
    data = Dataset(index)
    target = data[0].target  # no segment has a box: it is drawn around the mask
    assert target.objects is not None
    assert target.objects.boxes_xyxy.tolist() == [[1, 0, 3, 2]]
    assert data.class_counts() == {"cat": 1}


def test_a_void_class_in_the_middle_moves_the_rest_down(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "labels/a.png", ids(0, 1, 2))
    (tmp_path / "classes.txt").write_text("sky\nvoid\nroad\n")
    index = open_index(tmp_path)
    assert index.categories == ["sky", "road"]
    assert index.splits["all"][0].extra["label_values"] == {0: 0, 2: 1}


@pytest.mark.parametrize(
    ("values", "categories", "table"),
    [
        ((0, 255), ["background", "foreground"], {0: 0, 255: 1}),
        ((0, 128), ["background", "foreground"], {0: 0, 128: 1}),
        ((0, 1), ["background", "foreground"], {0: 0, 1: 1}),
        ((0, 1, 255), ["background", "foreground"], {0: 0, 1: 1}),
        ((0, 2, 255), ["class_0", "class_1", "class_2"], {0: 0, 1: 1, 2: 2}),
    ],
)
def test_values_without_names_are_counted(
    tmp_path: Path, values: tuple[int, ...], categories: list[str], table: dict[int, int]
) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "labels/a.png", ids(*values))
    index = open_index(tmp_path)
    assert index.categories == categories
    assert index.splits["all"][0].extra["label_values"] == table


def test_colour_tables(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "labels/a.png", [[[128, 0, 0], [0, 0, 128]]])
    (tmp_path / "colors.txt").write_text("# name r g b\nvoid 0 0 0\nroad 128 0 0\ntraffic light: 0,0,128\nbad 1 2\n")
    index = open_index(tmp_path)
    assert index.categories == ["road", "traffic light"]
    assert index.splits["all"][0].extra["label_colors"] == {(0, 0, 0): 255, (128, 0, 0): 0, (0, 0, 128): 1}
    assert [str(d.where) for d in index.defects] == ["colors.txt:5"]


def test_missing_and_broken_maps_are_defects(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"images/{name}.png")
    picture(tmp_path / "labels/a.png", ids(0, 1))
    (tmp_path / "labels/c.png").write_bytes(b"nonsense")
    index = open_index(tmp_path)
    assert [(d.rule, d.where.file) for d in index.defects] == [
        ("missing-map", "images/b.png"),
        ("broken-map", "labels/c.png"),
        ("unnamed-categories", "."),
    ]


def test_yolo_texts_are_no_maps(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 1 1\n")
    assert label_masks.recognise(tmp_path) is None
    with pytest.raises(DataError):
        label_masks.read(tmp_path)


def test_instances_take_boxes_from_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "instances").mkdir()
    Image.fromarray(np.array([[0, 7, 7], [3, 0, 7]], np.uint16)).save(tmp_path / "instances/a.png")
    index = open_index(tmp_path)
    assert index.format == "instance-masks"
    assert index.categories == ["object"]
    objects = index.splits["all"][0].objects
    assert objects is not None
    assert [(o.mask_id, o.box_xyxy, o.area) for o in objects] == [(3, (0, 1, 1, 2), 1), (7, (1, 0, 3, 2), 3)]


def test_the_same_folder_can_be_read_as_instances_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "masks/a.png", ids(0, 1, 2))
    (tmp_path / "classes.txt").write_text("cell\n")
    assert open_index(tmp_path).format == "label-masks"
    index = open_index(tmp_path, "instance-masks")
    assert index.categories == ["cell"]
    assert len(index.splits["all"][0].objects or []) == 2


def test_pennfudan(real_data: Path) -> None:
    index = open_index(real_data / "pennfudan")
    assert index.format == "instance-masks"
    assert index.categories == ["person"]
    pictures = index.splits["all"]
    assert len(pictures) == 170
    first = pictures[0]
    assert first.name == "images/FudanPed00001.jpg"
    assert first.size_hw == (536, 559)
    assert sum(len(p.objects or []) for p in pictures) == 423
    for p in pictures[:20]:
        assert p.instance_map is not None
        stored = set(np.unique(np.asarray(Image.open(p.instance_map))).tolist()) - {0}
        assert stored == {o.mask_id for o in p.objects or []}
    assert index.defects == []


def test_camvid_and_isbi(real_data: Path) -> None:
    index = open_index(real_data / "camvid")
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert len(index.categories) == 11
    assert (index.categories[0], index.categories[-1], index.ignore_label) == ("sky", "bicyclist", 11)
    assert all(p.label_map for split in index.splits.values() for p in split)
    cells = open_index(real_data / "isbi2012")
    assert len(cells.splits["all"]) == 30
    assert cells.splits["all"][0].extra["label_values"] == {0: 0, 255: 1}
