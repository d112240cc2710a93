from pathlib import Path

import pytest
from PIL import Image

from bestiary.data.opening import open_index
from bestiary.data.readers import csv_boxes
from bestiary.errors import DataError


def write(root: Path, text: str, name: str = "boxes.csv") -> Path:
    for letter in "ab":
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", (20, 10)).save(root / f"images/{letter}.png")
    (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "text",
    [
        "image,xmin,ymin,xmax,ymax,label\na.png,1,2,3.5,4,dog\n",
        "label;ymax;xmax;ymin;xmin;image\ndog;4;3.5;2;1;a.png\n",
        "\ufefffilename\twidth\theight\tclass\txmin\tymin\txmax\tymax\na.png\t20\t10\tdog\t1\t2\t3.5\t4\n",
        "image_id,x,y,w,h,category\na.png,1,2,2.5,2,dog\n",
        "image,x,y,width,height,name\na.png,1,2,2.5,2,dog\n",
        "images/a.png,1,2,3.5,4,dog\n",
        '"Image", "X1", "Y1", "X2", "Y2", "Class"\na.png,1,2,3.5,4,dog\n',
    ],
)
def test_spellings_and_delimiters(tmp_path: Path, text: str) -> None:
    index = open_index(write(tmp_path, text))
    assert index.format == "csv"
    [picture] = index.splits["all"]
    assert picture.name == "images/a.png"
    assert picture.objects is not None
    [found] = picture.objects
    assert found.box_xyxy == (1, 2, 3.5, 4)
    assert found.category == "dog"
    assert index.defects == []
    if "\t" in text:
        assert picture.size_hw == (10, 20)


def test_lines_without_a_box_are_negatives(tmp_path: Path) -> None:
    index = open_index(write(tmp_path, "images/a.png,,,,,\nimages/b.png,1,1,2,2,dog\nimages/b.png,2,2,3,3,cat\n"))
    assert [len(p.objects or []) for p in index.splits["all"]] == [0, 2]
    assert index.categories == ["cat", "dog"]


def test_one_file_a_split(tmp_path: Path) -> None:
    header = "image,xmin,ymin,xmax,ymax,label\n"
    write(tmp_path, header + "a.png,1,1,2,2,dog\n", "train.csv")
    write(tmp_path, header + "b.png,1,1,2,2,dog\n", "valid.csv")
    index = open_index(tmp_path)
    assert {k: [p.path.name for p in v] for k, v in index.splits.items()} == {"train": ["a.png"], "val": ["b.png"]}
    assert list(open_index(tmp_path / "train.csv").splits) == ["train"]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    text = "image,xmin,ymin,xmax,ymax,label\na.png,1,2\na.png,1,2,x,4,dog\na.png,1,2,3,4,\ngone.png,1,2,3,4,dog\n"
    text += "../../etc/x.png,1,2,3,4,dog\na.png,5,5,9,9,dog\n"
    index = open_index(write(tmp_path, text))
    assert [(d.rule, d.where.line) for d in index.defects] == [
        ("bad-line", 2),
        ("bad-number", 3),
        ("missing-name", 4),
        ("missing-picture", 5),
        ("path-outside", 6),
    ]
    assert [p.path.name for p in index.splits["all"]] == ["a.png", "gone.png"]


def test_a_table_without_boxes_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "epoch,loss\n1,2\n")
    assert csv_boxes.recognise(tmp_path) is None
    with pytest.raises(DataError, match="CSV"):
        csv_boxes.read(tmp_path)
    (tmp_path / "boxes.csv").write_text("")
    assert csv_boxes.recognise(tmp_path) is None
