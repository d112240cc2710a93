import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.data.opening import open_and_say, open_index
from bestiary.data.readers import coco
from bestiary.data.readers.coco import mirror_pairs
from bestiary.errors import DataError


def picture(path: Path, width: int = 20, height: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def content(**changes: Any) -> dict[str, Any]:
    """Ids with gaps and out of order; picture 2 has no annotation."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 10, "width": 20},
            {"id": 2, "file_name": "b.png", "height": 10, "width": 20},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 7,
                "category_id": 90,
                "bbox": [1, 2, 3.5, 4],
                "area": 9.5,
                "iscrowd": 0,
                "score": 0.5,
            },
            {"id": 6, "image_id": 7, "category_id": 3, "bbox": [0, 0, 20, 10], "iscrowd": 1},
        ],
    } | changes


def write(root: Path, data: Any, name: str = "annotations.json", images: str = "") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
    for letter in "ab":
        picture(root / images / f"{letter}.png")
    return root


def rules(index: Any) -> list[str]:
    return [d.rule for d in index.defects]


def test_boxes_ids_order_and_negatives(tmp_path: Path) -> None:
    index = open_index(write(tmp_path, content()))
    assert index.format == "coco"
    assert index.categories == ["cat", "dog"]
    assert index.category_ids == [3, 90]
    first, second = index.splits["all"]
    assert first.objects is not None
    dog, cat = first.objects
    assert dog.category == "dog"
    assert dog.box_xyxy == (1, 2, 4.5, 6)
    assert dog.area == 9.5
    assert dog.id == 5
    assert dog.extra == {"score": 0.5}
    assert cat.crowd
    assert not dog.crowd
    assert second.objects == []
    assert first.size_hw == (10, 20)
    assert first.extra["id"] == 7
    assert index.defects == []


@pytest.mark.parametrize(
    ("annotation", "images", "split"),
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_val2017.json", "images/val2017", "val"),
        ("annotations/instances_train.json", "images", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test/_annotations.coco.json", "test", "test"),
        ("result.json", "images", "all"),
        ("labels.json", "data", "all"),
        ("some.json", "anywhere/deep", "all"),
    ],
)
def test_layouts(tmp_path: Path, annotation: str, images: str, split: str) -> None:
    index = open_index(write(tmp_path, content(), annotation, images))
    assert list(index.splits) == [split]
    assert [p.name for p in index.splits[split]] == [f"{images}/a.png", f"{images}/b.png"]
    assert index.defects == []


def test_several_files_are_splits_and_captions_are_left_alone(tmp_path: Path) -> None:
    for year in ("train2017", "val2017"):
        write(tmp_path, content(), f"annotations/instances_{year}.json", year)
        captions = {"images": content()["images"], "annotations": [{"id": 1, "image_id": 7, "caption": "x"}]}
        (tmp_path / f"annotations/captions_{year}.json").write_text(json.dumps(captions))
    index = open_index(tmp_path)
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 2, "val": 2}
    assert index.splits["val"][0].name == "val2017/a.png"
    one = open_index(tmp_path / "annotations" / "instances_val2017.json")
    assert list(one.splits) == ["val"]
    assert one.root == tmp_path


def test_categories_of_several_files_join_by_name(tmp_path: Path) -> None:
    write(tmp_path, content(), "train/_annotations.coco.json", "train")
    other = content(categories=[{"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}])
    write(tmp_path, other, "valid/_annotations.coco.json", "valid")
    index = open_index(tmp_path)
    assert index.categories == ["cat", "dog", "bird"]
    assert index.category_ids == [3, 90, 91]
    objects = index.splits["val"][0].objects
    assert objects is not None
    assert objects[0].category == "bird"


def test_segmentations_and_keypoints(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 4, 0, 4, 4]]},
        {
            "id": 2,
            "image_id": 7,
            "category_id": 3,
            "bbox": [0, 0, 1, 1],
            "segmentation": {"size": [10, 20], "counts": [0, 200]},
        },
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2, 0, 0, 0]},
        {"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": []},
    ]
    categories = [{"id": 3, "name": "cat", "keypoints": ["left_eye", "right_eye"], "skeleton": [[1, 2]]}]
    index = open_index(write(tmp_path, content(annotations=annotations, categories=categories)))
    objects = index.splits["all"][0].objects
    assert objects is not None
    assert objects[0].polygons == [[0, 0, 4, 0, 4, 4]]
    assert objects[1].rle == {"size": [10, 20], "counts": [0, 200]}
    assert objects[2].keypoints == [1, 2, 2, 0, 0, 0]
    assert objects[3].polygons is None
    assert index.joint_names == ["left_eye", "right_eye"]
    assert index.joint_pairs == [(0, 1)]


def test_marks_of_voc(tmp_path: Path) -> None:
    marks: list[dict[str, Any]] = [
        {"difficult": 1},
        {"truncated": True, "difficult": 0},
        {"truncated": 0.7},
        {"difficult": "1", "pose": "Left"},
        {"difficult": [1]},
        {},
    ]
    rows = [{"id": i, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], **m} for i, m in enumerate(marks)]
    found = open_index(write(tmp_path, content(annotations=rows))).splits["all"][0].objects
    assert found is not None
    assert [o.difficult for o in found] == [True, False, False, True, False, False]
    assert [o.truncated for o in found] == [False, True, False, False, False, False]
    assert [o.extra for o in found] == [{}, {"difficult": 0}, {"truncated": 0.7}, {"pose": "Left"}, marks[4], {}]


def test_whole_floats_are_ids(tmp_path: Path) -> None:
    """Tables with gaps turn whole numbers into floats."""
    images = [{"id": 7.0, "file_name": "a.png"}, {"id": "2", "file_name": "b.png"}]
    rows = [{"id": 5.0, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}]
    index = open_index(write(tmp_path, content(images=images, annotations=rows)))
    assert [p.extra["id"] for p in index.splits["all"]] == [7, "2"]
    assert [[o.id for o in p.objects or []] for p in index.splits["all"]] == [[5], []]
    assert index.defects == []


def test_mirror_pairs() -> None:
    names = ["nose", "right_ear", "left_ear", "l_knee", "r_knee", "cleft_left", "cleft_right"]
    assert mirror_pairs(names) == [(2, 1), (3, 4)]  # the first "left" of cleft_left is not a side
    assert mirror_pairs(["left_hand"]) == []


@pytest.mark.parametrize(
    ("annotation", "rule"),
    [
        ({"category_id": 4}, "unknown-category"),
        ({"category_id": "3"}, "unknown-category"),
        ({"image_id": 99}, "unknown-picture"),
        ({"image_id": None}, "unknown-picture"),
        ({"image_id": [7]}, "bad-annotation"),
        ({"image_id": {"id": 7}}, "bad-annotation"),
        ({"image_id": 7.5}, "bad-annotation"),
        ({"category_id": [3]}, "unknown-category"),
        ({"bbox": [1, 2, 3, 10**400]}, "bad-number"),
        ({"bbox": [1, 2, 3]}, "bad-number"),
        ({"bbox": [1, 2, 3, "x"]}, "bad-number"),
        ({"segmentation": [[1, 2, 3, 4]]}, "bad-mask"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "bad-mask"),
        ({"segmentation": {"counts": 3}}, "bad-mask"),
        ({"segmentation": "x"}, "bad-mask"),
        ({"keypoints": [1, 2]}, "bad-keypoints"),
        ({"id": 5}, "duplicate-id"),
    ],
)
def test_each_bad_annotation_is_a_defect_that_names_it(tmp_path: Path, annotation: dict[str, Any], rule: str) -> None:
    good = content()["annotations"]
    bad = {"id": 77, "image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 2]} | annotation
    index = open_index(write(tmp_path, content(annotations=[*good, bad])))
    assert rules(index) == [rule]
    assert index.defects[0].where.file == "annotations.json"
    assert index.defects[0].where.annotation == str(bad["id"])


def test_bad_pictures_and_categories(tmp_path: Path) -> None:
    images = [
        *content()["images"],
        {"id": 7, "file_name": "b.png"},
        {"id": 8, "file_name": "../../etc/passwd"},
        {"id": 9, "file_name": "/etc/passwd"},
        {"id": 10, "file_name": "gone.png"},
        {"file_name": "a.png"},
        {"id": [7], "file_name": "a.png"},
        {"id": {}, "file_name": "a.png"},
        "a.png",
    ]
    categories = [*content()["categories"], {"id": 3, "name": "again"}, {"name": "no id"}]
    index = open_index(write(tmp_path, content(images=images, categories=categories)))
    wanted = [
        "duplicate-id",
        "bad-category",
        "missing-picture",
        "path-outside",
        "path-outside",
        *["bad-picture"] * 4,
    ]
    assert sorted(rules(index)) == sorted([*wanted, "duplicate-id"])
    names = [p.name for p in index.splits["all"]]
    assert names[:2] == ["a.png", "b.png"]
    assert not any("passwd" in n for n in names)
    assert index.splits["all"][2].extra["missing"]


def test_broken_json(tmp_path: Path) -> None:
    write(tmp_path, content())
    file = tmp_path / "annotations.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DataError, match=r"annotations\.json:1"):
        open_index(tmp_path)
    file.write_text('["images", "annotations"]')
    with pytest.raises(DataError, match="list `images`"):
        coco.read(tmp_path)
    file.write_text("")
    assert coco.recognise(tmp_path) is None


def test_deep_json_is_a_defect_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "annotations":' + "[" * 100_000)
    with pytest.raises(DataError):
        coco.read(tmp_path)


def test_the_panoptic_fixture(real_data: Path) -> None:
    opened = open_and_say(real_data / "coco_panoptic")
    assert opened.index.format == "coco-panoptic"
    assert "coco" in opened.why
    raw = json.loads((real_data / "coco_panoptic/panoptic_examples.json").read_text())
    pictures = opened.index.splits["all"]
    assert [len(p.objects or []) for p in pictures] == [len(a["segments_info"]) for a in raw["annotations"]]
    assert len(opened.index.categories) == 133
    assert opened.index.category_ids == [c["id"] for c in raw["categories"]]
    from bestiary.pictures.decode import read_instance_map

    for p in pictures:  # every segment's area is that of its pixels, and nothing else is in the map
        assert p.instance_map is not None
        ids, counts = np.unique(read_instance_map(p.instance_map).numpy(), return_counts=True)
        areas = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        areas.pop(0, None)
        assert areas == {o.mask_id: o.area for o in p.objects or []}
        assert {o.extra["isthing"] for o in p.objects or []} == {True, False}
    boxes = open_index(real_data / "coco_panoptic", "coco")
    assert sum(len(p.objects or []) for p in boxes.splits["all"]) == 50
    assert boxes.defects == []
