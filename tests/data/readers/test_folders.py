from pathlib import Path

import pytest
import torch
from PIL import Image

from bestiary.data.opening import open_index
from bestiary.data.readers import folders, pairs
from bestiary.errors import DataError


def picture(path: Path, width: int = 4, height: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name in ("zebra/1.png", "ant/2.png", "ant/deep/3.jpg", "ant/.hidden.png", "ant/readme.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        else:
            picture(tmp_path / name)
    index = open_index(tmp_path)
    assert index.format == "folders"
    assert index.categories == ["ant", "zebra"]
    assert [(p.name, p.label) for p in index.splits["all"]] == [
        ("ant/2.png", "ant"),
        ("ant/deep/3.jpg", "ant"),
        ("zebra/1.png", "zebra"),
    ]
    assert index.splits["all"][0].objects is None


def test_splits_share_their_categories(tmp_path: Path) -> None:
    picture(tmp_path / "train/cat/1.png")
    picture(tmp_path / "valid/dog/1.png")
    index = open_index(tmp_path)
    assert list(index.splits) == ["train", "val"]
    assert index.categories == ["cat", "dog"]


def test_empty_classes_and_strays_are_reported(tmp_path: Path) -> None:
    picture(tmp_path / "train/cat/1.png")
    picture(tmp_path / "train/stray.png")
    (tmp_path / "train/dog").mkdir()
    index = folders.read(tmp_path)
    assert index.categories == ["cat", "dog"]
    assert [(d.rule, d.where.file) for d in index.defects] == [
        ("empty-category", "train/dog"),
        ("stray-picture", "train/stray.png"),
    ]


def test_plain_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    index = open_index(tmp_path)
    assert index.format == "pictures"
    assert [p.name for p in index.splits["all"]] == ["a.png", "b.png"]


def test_nothing(tmp_path: Path) -> None:
    for read in (folders.read, folders.read_plain):
        with pytest.raises(DataError, match="no picture"):
            read(tmp_path)


def test_pairs_side_by_side(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"train/{i}.png", 8, 4)
    picture(tmp_path / "train/odd.png", 9, 4)
    index = open_index(tmp_path)
    assert index.format == "pairs"
    assert [(d.rule, d.where.file) for d in index.defects] == [("odd-pair", "train/odd.png")]
    picture(tmp_path / "train/odd2.png", 9, 4)
    assert pairs.recognise(tmp_path) is None  # 3 of 5 is less than three quarters
    left, right = pairs.split_pair(torch.arange(7).expand(3, 2, 7))
    assert left[0, 0].tolist() == [0, 1, 2]
    assert right[0, 0].tolist() == [4, 5, 6]


def test_real_folders(real_data: Path) -> None:
    cifar = open_index(real_data / "cifar10")
    assert {k: len(v) for k, v in cifar.splits.items()} == {"train": 10000, "test": 2000}
    assert len(cifar.categories) == 10
    scenes = open_index(real_data / "scene15")
    assert len(scenes.categories) == 15
    assert len(scenes.splits["train"]) == 1500
    faces = open_index(real_data / "orl_faces")
    assert len(faces.categories) == 40
    assert len(faces.splits["all"]) == 400
    plain = open_index(real_data / "bsds")
    assert (plain.format, len(plain.splits["train"]), len(plain.splits["test"])) == ("pictures", 80, 30)
    outlines = open_index(real_data / "outline_pairs")
    assert (outlines.format, len(outlines.splits["train"]), len(outlines.splits["val"])) == ("pairs", 100, 55)
    assert len(outlines.defects) == 15
