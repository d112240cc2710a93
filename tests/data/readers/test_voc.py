from pathlib import Path

import pytest
from PIL import Image

from bestiary.data.index import Index, RawPicture
from bestiary.data.opening import open_index
from bestiary.errors import DataError

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>
"""
XML = """<annotation>
<filename>{filename}</filename><size><width>20</width><height>10</height><depth>3</depth></size>
{objects}</annotation>
"""


def annotate(
    root: Path, stem: str, objects: str = "", folder: str = "Annotations", filename: str | None = None
) -> None:
    xml = root / folder / f"{stem}.xml"
    xml.parent.mkdir(parents=True, exist_ok=True)
    xml.write_text(XML.format(filename=filename or f"{stem}.jpg", objects=objects), encoding="utf-8")


def picture(root: Path, stem: str, folder: str = "JPEGImages") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(root / folder / f"{stem}.jpg")


def dog(box: tuple[object, ...] = (1, 1, 20, 10), name: str = "dog", difficult: int = 0) -> str:
    return OBJECT.format(name=name, box=box, difficult=difficult)


def lists(root: Path, **splits: str) -> None:
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for name, text in splits.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(text)


def only(index: Index) -> RawPicture:
    [[found]] = index.splits.values()
    return found


def test_boxes_are_one_based_and_inclusive(tmp_path: Path) -> None:
    annotate(tmp_path, "a", dog((1, 1, 20, 10)) + dog((3, 4, 3, 4), difficult=1))
    picture(tmp_path, "a")
    index = open_index(tmp_path)
    found = only(index)
    assert found.objects is not None
    whole, pixel = found.objects
    assert whole.box_xyxy == (0, 0, 20, 10)
    assert pixel.box_xyxy == (2, 3, 3, 4)
    assert (whole.difficult, pixel.difficult) == (False, True)
    assert whole.truncated
    assert whole.extra == {"pose": "Left"}
    assert found.size_hw == (10, 20)
    assert (whole.where.line, pixel.where.line) == (3, 5)
    assert index.categories == ["dog"]
    assert index.defects == []


@pytest.mark.parametrize("above", ["", "VOC2007", "VOCdevkit/VOC2007"])
def test_the_folder_may_lie_below(tmp_path: Path, above: str) -> None:
    root = tmp_path / above
    for stem in "abc":
        annotate(root, stem, dog())
        picture(root, stem)
    lists(root, train="a\n", val="b\n", trainval="a\nb\n", test="c\n\n", dog_train="a 1\nb -1\n")
    index = open_index(tmp_path)
    assert {k: [p.path.stem for p in v] for k, v in index.splits.items()} == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }


def test_years_are_joined_and_trainval_alone_is_train(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        annotate(tmp_path / year, year, dog())
        picture(tmp_path / year, year)
        lists(tmp_path / year, trainval=f"{year}\n")
    index = open_index(tmp_path)
    assert [p.name for p in index.splits["train"]] == [f"{y}/JPEGImages/{y}.jpg" for y in ("VOC2007", "VOC2012")]


def test_loose_xml_beside_pictures_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        annotate(tmp_path, split, dog(), folder=split)
        picture(tmp_path, split, folder=split)
    index = open_index(tmp_path)
    assert {k: [p.name for p in v] for k, v in index.splits.items()} == {
        "train": ["train/train.jpg"],
        "val": ["valid/valid.jpg"],
    }


def test_category_order_is_alphabetical_unless_a_file_says_otherwise(tmp_path: Path) -> None:
    annotate(tmp_path, "a", dog(name="zebra") + dog(name="ant"))
    picture(tmp_path, "a")
    assert open_index(tmp_path).categories == ["ant", "zebra"]
    (tmp_path / "classes.txt").write_text("zebra\nyak\nant\n")
    assert open_index(tmp_path).categories == ["zebra", "yak", "ant"]


def test_no_object_is_a_negative(tmp_path: Path) -> None:
    annotate(tmp_path, "a")
    picture(tmp_path, "a")
    assert only(open_index(tmp_path)).objects == []


@pytest.mark.parametrize(
    ("objects", "rule"),
    [
        (dog(("x", 1, 2, 3)), "bad-number"),
        ("<object><name>dog</name></object>", "bad-number"),
        (dog(name=""), "missing-name"),
    ],
)
def test_bad_objects_are_defects_with_a_line(tmp_path: Path, objects: str, rule: str) -> None:
    annotate(tmp_path, "a", dog() + objects)
    picture(tmp_path, "a")
    index = open_index(tmp_path)
    assert [d.rule for d in index.defects] == [rule]
    assert str(index.defects[0].where) == "Annotations/a.xml:5"


def test_entity_bombs_and_broken_xml_are_defects(tmp_path: Path) -> None:
    annotate(tmp_path, "good", dog())
    picture(tmp_path, "good")
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>'
    (tmp_path / "Annotations/bomb.xml").write_text(bomb)
    (tmp_path / "Annotations/leak.xml").write_text(
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'
    )
    (tmp_path / "Annotations/cut.xml").write_text("<annotation>\n<object>\n")
    (tmp_path / "Annotations/empty.xml").write_text("")
    index = open_index(tmp_path)
    assert [p.path.stem for p in index.splits["all"]] == ["good"]
    assert {d.where.file for d in index.defects} == {f"Annotations/{n}.xml" for n in ("bomb", "leak", "cut", "empty")}
    assert {d.rule for d in index.defects} == {"bad-xml"}
    assert next(d.where.line for d in index.defects if "cut" in d.where.file) == 3


def test_names_that_lead_outside_are_never_followed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(tmp_path, "secret", folder=".")
    annotate(root, "good", dog())
    picture(root, "good")
    annotate(root, "evil", dog(), filename="../../secret.jpg")
    lists(root, train="good\n../../secret\n", val="evil\n")
    index = open_index(root)
    assert [p.name for p in index.splits["train"]] == ["JPEGImages/good.jpg"]
    assert index.splits["val"] == []
    assert [(d.rule, str(d.where)) for d in index.defects] == [
        ("path-outside", "ImageSets/Main/train.txt:2"),
        ("path-outside", "Annotations/evil.xml"),
    ]


def test_listed_without_xml_and_xml_without_picture(tmp_path: Path) -> None:
    picture(tmp_path, "a")
    annotate(tmp_path, "b", dog())
    annotate(tmp_path, "c", dog(), filename="other name.jpg")
    picture(tmp_path, "c")
    lists(tmp_path, train="a\nb\nc\nd\n")
    index = open_index(tmp_path)
    assert [(p.path.stem, p.objects is None, "missing" in p.extra) for p in index.splits["train"]] == [
        ("a", True, False),
        ("b", False, True),
        ("c", False, False),
    ]
    assert [(d.rule, str(d.where)) for d in index.defects] == [
        ("missing-annotation", "ImageSets/Main/train.txt:1"),
        ("missing-picture", "Annotations/b.xml"),
        ("missing-annotation", "ImageSets/Main/train.txt:4"),
    ]


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"no picture could be read as VOC: Annotations/a\.xml"):
        open_index(tmp_path)


def test_bccd(real_data: Path) -> None:
    index = open_index(real_data / "bccd")
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 205, "val": 87, "test": 72}
    names = [o.category for split in index.splits.values() for p in split for o in p.objects or []]
    assert {n: names.count(n) for n in index.categories} == {"Platelets": 361, "RBC": 4155, "WBC": 372}
    assert index.defects == []
