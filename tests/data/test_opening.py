import json
from pathlib import Path

import pytest
from PIL import Image

from bestiary.data.opening import FORMATS, open_and_say, open_index, recognise
from bestiary.errors import DataError, UsageError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path)


def test_every_format_has_its_reader() -> None:
    from importlib import import_module

    for module, recognises, read in FORMATS.values():
        reader = import_module(f"bestiary.data.readers.{module}")
        assert callable(getattr(reader, recognises))
        assert callable(getattr(reader, read))


def test_no_reader_recognises_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found nothing; coco wants .*\n?.*pictures wants pictures") as error:
        open_index(tmp_path)
    for word in ("Annotations", "data.yaml", "CSV", "docs/data.md"):
        assert word in str(error.value)


def test_what_is_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.odt").write_text("x")
    with pytest.raises(DataError, match=r"found notes\.odt"):
        open_index(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_index(tmp_path / "gone")
    with pytest.raises(DataError, match=r"notes\.odt"):
        open_index(tmp_path / "notes.odt")


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean folders"):
        open_index(tmp_path, "folder")


def test_ambiguity_follows_the_documented_order_and_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 1 1\n")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    opened = open_and_say(tmp_path)
    assert opened.index.format == "yolo"
    assert opened.why == "read as yolo: images beside labels (also looks like coco: ask for it with format=)"
    assert open_index(tmp_path, "coco").format == "coco"
    assert open_and_say(tmp_path, "coco").why == "read as coco, as asked"


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("bccd", "voc"),
        ("bsds", "pictures"),
        ("camvid", "label-masks"),
        ("cifar10", "folders"),
        ("coco_panoptic", "coco-panoptic"),
        ("graffiti", "views"),
        ("isbi2012", "label-masks"),
        ("kitti3d", "kitti"),
        ("lspet", "poses"),
        ("middlebury", "stereo"),
        ("orl_faces", "folders"),
        ("outline_pairs", "pairs"),
        ("pennfudan", "instance-masks"),
        ("reid_mars", "reid"),
        ("scene15", "folders"),
        ("sevenscenes", "rgbd"),
    ],
)
def test_every_real_set_is_recognised_by_itself(real_data: Path, name: str, format_name: str) -> None:
    assert next(iter(recognise(real_data / name))) == format_name


@pytest.mark.parametrize(
    "name", ["camvid", "coco_panoptic", "kitti3d", "lspet", "pennfudan", "reid_mars", "sevenscenes"]
)
def test_names_are_unique_and_files_lie_inside(real_data: Path, name: str) -> None:
    index = open_index(real_data / name)
    for pictures in index.splits.values():
        names = [p.name for p in pictures]
        assert len(set(names)) == len(names)
        assert all(p.path.is_file() and index.root in p.path.parents for p in pictures)


def test_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "data" / "cat" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_index("data").root == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_index("~/data").splits["all"][0].path.is_file()
