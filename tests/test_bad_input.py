"""What users bring: broken, hostile and wrong data. Loading mends, skips and counts, or says clearly what is wrong;
`check` finds every case; nothing ends in a traceback, nothing is lost silently.
"""

import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.data.check import Report, check
from bestiary.data.dataset import Dataset, load
from bestiary.data.index import Defect
from bestiary.errors import BestiaryError, DataError, PictureError
from bestiary.records import Objects

NAN = float("nan")


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize((60, 40)).save(path)
    return path


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def of_rule(report: Report, rule: str) -> list[Defect]:
    """The defects of a rule; each tells where, what, what was wanted and how to mend it."""
    found = report.by_rule().get(rule, [])
    for defect in found:
        assert defect.where.file
        assert defect.got
        assert defect.wanted
        assert defect.mend
    return found


def objects_of(data: Dataset, i: int) -> Objects:
    objects = data[i].target.objects
    assert objects is not None
    return objects


def coco(root: Path, annotations: list[Any], **changes: Any) -> Path:
    """Two pictures of 60x40, `a.png` (id 1) and `b.png` (id 2)."""
    for i, name in enumerate("ab"):
        save(root / "images" / f"{name}.png", i)
    document = {
        "images": [{"id": i, "file_name": name, "height": 40, "width": 60} for i, name in ((1, "a.png"), (2, "b.png"))],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
        **changes,
    }
    file = root / "annotations" / "instances_train.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))
    return file


def boxed(box: Any = (5, 5, 20, 20), number: int = 1, image: Any = 1, category: Any = 1) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(box)}


# pictures


def png_bomb(path: Path) -> None:
    """A valid header of 60,000 x 60,000 pixels in a file of a hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:120] = bytes(60)
    path.write_bytes(bytes(data))


PICTURES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "zero bytes": ("bad.png", lambda p: p.write_bytes(b""), "empty-picture"),
    "text": ("bad.png", lambda p: p.write_text("<html>404</html>"), "broken-picture"),
    "truncated png": ("bad.png", lambda p: cut(p, 0.7), "truncated-picture"),
    "truncated jpeg": ("bad.jpg", lambda p: cut(p, 0.6), "truncated-picture"),
    "damaged png": ("bad.png", damage, "broken-picture"),
    "header alone": ("bad.png", lambda p: p.write_bytes(p.read_bytes()[:20]), "broken-picture"),
    "bomb": ("bad.png", png_bomb, "oversized-picture"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_broken_pictures(case: str, tmp_path: Path) -> None:
    name, spoil, rule = PICTURES[case]
    save(tmp_path / "cat" / "good.png", 1)
    spoil(save(tmp_path / "cat" / name, 2))
    data = load(tmp_path)
    assert len(data) == 2
    started = time.perf_counter()
    with pytest.raises(PictureError, match=name) as raised:
        data[data.names.index(f"cat/{name}")]
    assert raised.value.mend
    assert data[data.names.index("cat/good.png")].image.shape == (3, 40, 60)
    report = check(tmp_path)
    assert time.perf_counter() - started < 20
    (found,) = of_rule(report, rule)
    assert found.where.file == f"cat/{name}"
    assert len(report.errors) == 1
    assert "1 of these cannot be decoded" in report.text()


@pytest.mark.parametrize("case", ["zero bytes", "truncated png", "bomb"])
def test_broken_pictures_among_boxes(case: str, tmp_path: Path) -> None:
    _, spoil, rule = PICTURES[case]
    coco(tmp_path, [boxed(image=1), boxed(number=2, image=2)])
    spoil(tmp_path / "images" / "b.png")
    assert [d.where.file for d in of_rule(check(tmp_path), rule)] == ["images/b.png"]
    data = load(tmp_path)
    assert len(objects_of(data, 0)) == 1
    with pytest.raises(PictureError, match=r"b\.png"):
        data[1]


# annotation files


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"images": [], "annotations": ', '{"images": 3, "annotations": []}', "[" * 100_000, "\0\1\2"],
    ids=["empty", "open", "cut off", "wrong", "deep", "bytes"],
)
def test_one_broken_json_does_not_hide_the_others(text: str, tmp_path: Path) -> None:
    coco(tmp_path, [boxed()])
    broken = tmp_path / "annotations" / "instances_val.json"
    broken.write_text(text)
    data = load(tmp_path)
    assert len(data) == 2
    if '"images"' in text:
        (found,) = of_rule(check(tmp_path), "bad-json")
        assert found.where.file == "annotations/instances_val.json"
        assert any("met while reading" in note for note in data.notes)


def test_broken_json_alone_is_a_clear_error(tmp_path: Path) -> None:
    file = coco(tmp_path, [boxed()])
    cut(file, 0.8)
    for ask in (load, check):
        with pytest.raises(DataError, match=r"no picture could be read as COCO.*instances_train\.json"):
            ask(tmp_path)


def voc(root: Path, name: str, text: str) -> None:
    save(root / "JPEGImages" / f"{name}.png", len(name))
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(text)


GOOD = """<annotation><filename>{name}.png</filename><object><name>cat</name>
<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""

LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">{rest}]>
<annotation><filename>&j;</filename></annotation>""".format(
    rest="".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
)
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<annotation><filename>&e;</filename><object><name>&e;</name></object></annotation>"""


@pytest.mark.parametrize("text", ["", "<annotation>", "<a></b>", "nonsense", LAUGHS, OUTSIDE])
def test_broken_and_hostile_xml(text: str, tmp_path: Path) -> None:
    voc(tmp_path, "good", GOOD.format(name="good"))
    voc(tmp_path, "bad", text)
    started = time.perf_counter()
    data = load(tmp_path)
    report = check(tmp_path)
    assert time.perf_counter() - started < 20
    assert data.categories == ("cat",)
    assert [Path(n).stem for n in data.names] == ["good"]
    assert any("met while reading" in note for note in data.notes)
    (found,) = of_rule(report, "bad-xml")
    assert found.where.file == "Annotations/bad.xml"
    assert "root:" not in report.text(100)


def test_broken_yaml(tmp_path: Path) -> None:
    save(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat\nval: images/train: x\n")
    (found,) = of_rule(check(tmp_path), "bad-yaml")
    assert found.where.line is not None
    assert len(load(tmp_path)) == 1
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: !!python/object/apply:os.system ['touch x']\n")
    assert len(of_rule(check(tmp_path), "bad-yaml")) == 1
    assert not Path("x").exists()


# paths


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "images/../../secret.png",
        "/etc/hostname",
        "..\\..\\secret.png",
        "..\\secret.png",
        "images\\../..\\secret.png",
        "\\etc\\hostname",
    ],
)
def test_paths_that_lead_outside(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(tmp_path / "secret.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": name}]
    coco(root, [boxed(), boxed(number=2, image=2)], images=images)
    data = load(root)
    report = check(root)
    assert [Path(n).name for n in data.names] == ["a.png"]
    assert all(root in p.parents for p in report.probes)
    found = of_rule(report, "path-outside") + of_rule(report, "missing-picture")
    assert len(found) == 1
    assert found[0].where.annotation == "image 2"
    assert any("met while reading" in note or "left out" in note for note in data.notes)


@pytest.mark.parametrize("name", ["../../secret", "../secret", "..\\secret", "..\\..\\secret", "x/../../secret"])
def test_a_voc_file_that_names_a_picture_outside(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(tmp_path / "secret.png")
    root.mkdir()
    voc(root, "good", GOOD.format(name="good"))
    voc(root, "bad", GOOD.format(name=name))
    assert [Path(n).stem for n in load(root).names] == ["good"]
    assert [d.where.file for d in of_rule(check(root), "path-outside")] == ["Annotations/bad.xml"]


# boxes


@pytest.mark.parametrize(
    ("box", "rule", "served"),
    [
        ((NAN, 5, 20, 20), "box-not-finite", None),
        ((5, 5, float("inf"), 20), "box-not-finite", None),
        ((30, 30, -10, -10), "box-inverted", None),
        ((5, 5, 0, 20), "box-empty", None),
        ((100, 100, 20, 20), "box-outside", None),
        ((-50, -50, 20, 20), "box-outside", None),
        ((-5, -5, 20, 20), "box-beyond-edge", (0, 0, 15, 15)),
        ((50, 30, 30, 30), "box-mostly-outside", (50, 30, 60, 40)),
        ((1e300, 5, 20, 20), "box-empty", None),
        (("5", "5", "wide", "20"), "bad-number", None),
        ((5, 5, 20), "bad-number", None),
    ],
)
def test_bad_boxes(box: Any, rule: str, served: Any, tmp_path: Path) -> None:
    coco(tmp_path, [boxed(box), boxed((1, 1, 9, 9), 2), boxed((2, 2, 30, 30), 3, image=2)])
    report = check(tmp_path)
    (found,) = of_rule(report, rule)
    assert found.where.annotation == "1"
    data = load(tmp_path)
    boxes = [tuple(b) for b in objects_of(data, 0).boxes_xyxy.tolist()]
    assert boxes == ([served] if served else []) + [(1, 1, 10, 10)]
    assert len(objects_of(data, 1)) == 1
    assert len(data.notes) > 1


# ids


def test_unknown_ids(tmp_path: Path) -> None:
    rows = [boxed(), boxed(number=2, category=3), boxed(number=3, category="cat"), boxed(number=4, image=9)]
    coco(tmp_path, rows)
    report = check(tmp_path)
    assert [d.where.annotation for d in of_rule(report, "unknown-category")] == ["2", "3"]
    assert [d.where.annotation for d in of_rule(report, "unknown-picture")] == ["4"]
    data = load(tmp_path)
    assert len(objects_of(data, 0)) == 1
    assert any("2 objects of unknown category" in note for note in data.notes)


def test_duplicate_ids(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
    kinds = [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]
    coco(tmp_path, [boxed(), boxed((9, 9, 20, 20))], images=images, categories=kinds)
    found = of_rule(check(tmp_path), "duplicate-id")
    assert [str(d.where).split("(")[1] for d in found] == [
        "annotation category 1)",
        "annotation image 1)",
        "annotation 1)",
    ]
    data = load(tmp_path)
    assert len(data) == 1
    assert len(objects_of(data, 0)) == 2


@pytest.mark.parametrize(
    ("annotations", "changes"),
    [
        ([None, 3, "x", []], {}),
        ([boxed()], {"images": [None, 3, {"id": 1}, {"file_name": "a.png"}, {"id": 1, "file_name": "a.png"}]}),
        ([boxed()], {"categories": [None, {"id": "x"}, {"id": 1, "name": "cat"}]}),
        ([boxed()], {"categories": None}),
        ([{**boxed(), "segmentation": "?"}, {**boxed(number=2), "keypoints": ["?"]}], {}),
        ([boxed(image=[1])], {}),
        ([boxed(image={"a": 1})], {}),
        ([{**boxed(), "id": [1]}], {}),
        ([boxed(category=[1])], {}),
        ([boxed()], {"images": [{"id": [1], "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}]}),
        ([boxed()], {"categories": [{"id": float("inf"), "name": "cat"}]}),
        ([boxed((10**400, 5, 20, 20))], {}),
        ({"a": 1}, {}),
        (3, {}),
        ([boxed()], {"categories": 3}),
    ],
    ids=[
        *("annotations", "images", "categories", "no categories", "masks and joints", "list id", "object id"),
        *("own list id", "category list id", "image list id", "infinite id", "huge box", "no list", "number"),
        "categories number",
    ],
)
def test_entries_that_are_no_entries(annotations: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    coco(tmp_path, annotations, **changes)
    report = check(tmp_path)
    assert report.errors
    assert json.dumps(report.to_dict())
    try:
        data = load(tmp_path)
    except BestiaryError:
        return
    assert data[0].image.shape == (3, 40, 60)


@pytest.mark.parametrize(
    "line", ["x 0.5 0.5 0.1 0.1", "0 0.5", "-1 0.5 0.5 0.1 0.1", "9 0.5 0.5 0.1 0.1", "0 nan 0 0 0"]
)
def test_bad_lines_of_yolo(line: str, tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    (error,) = check(tmp_path).errors
    assert (error.where.file, error.where.line) == ("labels/a.txt", 2)
    data = load(tmp_path)
    assert len(objects_of(data, 0)) == 1
    assert len(data.notes) > 1


def test_masks_that_cannot_be_read_name_their_annotation(tmp_path: Path) -> None:
    bad = {**boxed(), "segmentation": {"size": [40, 60], "counts": [0, 7]}}
    coco(tmp_path, [bad])
    (found,) = of_rule(check(tmp_path), "bad-mask")
    assert found.where.annotation == "1"
    assert len(objects_of(load(tmp_path), 0)) == 1
    with pytest.raises(DataError, match=r"instances_train\.json \(annotation 1\)"):
        load(tmp_path, fields=["boxes", "masks"])[0]


def test_maps_of_another_size_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    for i, name in enumerate("ab"):
        save(tmp_path / "images" / f"{name}.png", i)
        Image.fromarray(np.zeros((40, 60 + i), np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    assert [d.where.file for d in of_rule(check(tmp_path), "map-size")] == ["labels/b.png"]
    data = load(tmp_path)
    assert data[0].target.label_map is not None
    with pytest.raises(DataError, match=r"b\.png"):
        data[1]


def test_ids_that_are_none_are_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = [boxed(), boxed(number=2, image=[1]), {**boxed(), "id": {"a": 1}}, boxed((1, 1, 9, 9), 4, image=2.0)]
    images = [{"id": [3], "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco(tmp_path, rows, images=images)
    report = check(tmp_path)
    assert [d.where.annotation for d in of_rule(report, "bad-annotation")] == ["2", None]
    assert [d.got for d in of_rule(report, "bad-annotation")] == ["image_id [1]", "id {'a': 1}"]
    assert len(of_rule(report, "bad-picture")) == 1
    data = load(tmp_path)
    assert [len(objects_of(data, i)) for i in range(2)] == [1, 1]
    assert any("3 errors met while reading" in note for note in data.notes)


def test_an_id_beyond_64_bits_is_served_as_a_place(tmp_path: Path) -> None:
    coco(tmp_path, [boxed(number=2**63 - 1), boxed((1, 1, 9, 9), 2**64)])
    ids = objects_of(load(tmp_path), 0).ids
    assert ids is not None
    assert ids.tolist() == [2**63 - 1, 2]


def test_boxes_are_counted_where_no_size_is_claimed(tmp_path: Path) -> None:
    """The pictures are 60 wide and 40 high, but only their headers say so."""
    boxes = [(-5, -5, 20, 20), (50, 30, 30, 30), (100, 100, 20, 20), (5, 5, 20, 20)]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco(tmp_path, [boxed(b, i) for i, b in enumerate(boxes)], images=images)
    data = load(tmp_path)
    assert objects_of(data, 0).boxes_xyxy.tolist() == [[0, 0, 15, 15], [50, 30, 60, 40], [5, 5, 25, 25]]
    assert any("2 boxes mended: beyond the picture's border" in note for note in data.notes)
    assert any("1 box dropped" in note for note in data.notes)
    assert data.class_counts() == {"cat": 3, "dog": 0}
    assert data.raw(0).size_hw is None


def test_a_broken_picture_of_no_claimed_size_stops_only_itself(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco(tmp_path, [boxed((50, 30, 30, 30)), boxed(number=2, image=2)], images=images)
    (tmp_path / "images" / "b.png").write_bytes(b"nonsense")
    data = load(tmp_path)
    assert any("1 box mended" in note for note in data.notes)
    with pytest.raises(PictureError, match=r"b\.png"):
        data[1]


def test_a_voc_picture_that_is_missing_below_a_folder(tmp_path: Path) -> None:
    voc(tmp_path, "good", GOOD.format(name="good"))
    (tmp_path / "Annotations" / "gone.xml").write_text(GOOD.format(name="sub/gone"))
    assert [d.where.file for d in of_rule(check(tmp_path), "missing-picture")] == ["Annotations/gone.xml"]
    assert [Path(n).stem for n in load(tmp_path).names] == ["good"]


def test_a_voc_file_may_name_its_picture_from_where_it_lies(tmp_path: Path) -> None:
    voc(tmp_path, "a", GOOD.format(name="../JPEGImages/a"))
    assert load(tmp_path).names == ["JPEGImages/a.png"]
    assert check(tmp_path).errors == []
