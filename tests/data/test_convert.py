import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from bestiary.data.check import check
from bestiary.data.convert import convert, convert_index
from bestiary.data.dataset import load
from bestiary.data.index import Index, RawObject, RawPicture, Where
from bestiary.data.opening import open_index
from bestiary.errors import DataError, PictureError, UsageError

HERE = Where("here")


def save(path: Path, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def index_of(root: Path, splits: dict[str, list[list[RawObject] | None]], **fields: Any) -> Index:
    pictures = {
        split: [
            RawPicture(save(root / split / f"{split}{i}.png"), f"{split}/{split}{i}.png", HERE, None, found)
            for i, found in enumerate(listed)
        ]
        for split, listed in splits.items()
    }
    return Index(root, "test", ["zebra", "ant", "cat"], pictures, **fields)


def thing(category: str | None = "ant", box: Any = (1, 2, 30, 20), **fields: Any) -> RawObject:
    corners: Any = None if box is None else tuple(float(v) for v in box)
    return RawObject(category, HERE, corners, **fields)


def objects_of(index: Index) -> dict[str, list[list[RawObject]]]:
    return {split: [p.objects or [] for p in pictures] for split, pictures in index.splits.items()}


def boxes_of(index: Index) -> list[tuple[float, ...]]:
    return [o.box_xyxy or () for listed in objects_of(index).values() for found in listed for o in found]


VOC = """<annotation><filename>{name}</filename><size><width>60</width><height>40</height></size>
<object><name>zebra</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>
<object><name>ant &amp; bee</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
<occluded>1</occluded><bndbox><xmin>7</xmin><ymin>8</ymin><xmax>7</xmax><ymax>19</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for split, stem in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        save(root / "JPEGImages" / f"{stem}.png")
        text = VOC.format(name=f"{stem}.png") if stem != "b" else "<annotation><filename>b.png</filename></annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)
        with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
            file.write(f"{stem}\n")
    (root / "classes.txt").write_text("zebra\nant & bee\n")
    return root


def test_voc_to_coco_and_back_loses_nothing(voc: Path, tmp_path: Path) -> None:
    there = convert(voc, "coco", tmp_path / "coco")
    assert there.lost == {}
    assert (there.splits, there.objects) == ({"train": 2, "val": 1, "test": 1}, 6)
    assert "Nothing was lost." in there.text()
    convert(tmp_path / "coco", "voc", tmp_path / "back")
    first, last = open_index(voc), open_index(tmp_path / "back")
    assert last.categories == first.categories == ["zebra", "ant & bee"]
    assert list(last.splits) == ["train", "val", "test"]
    for split in first.splits:
        for a, b in zip(first.splits[split], last.splits[split], strict=True):
            assert Path(b.name).name == Path(a.name).name
            assert b.size_hw == (40, 60)
            kept = [(o.category, o.box_xyxy, o.difficult, o.truncated, o.extra) for o in a.objects or []]
            assert kept == [(o.category, o.box_xyxy, o.difficult, o.truncated, o.extra) for o in b.objects or []]
            assert b.path.read_bytes() == a.path.read_bytes()


def test_difficult_marks_train_after_the_way_through_coco(voc: Path, tmp_path: Path) -> None:
    convert(voc, "coco", tmp_path / "coco")
    marks = []
    for root in (voc, tmp_path / "coco"):
        objects = load(root, "val")[0].target.objects
        assert objects is not None
        assert objects.difficult is not None
        marks.append(objects.difficult.tolist())
    assert marks == [[True, False]] * 2


def test_voc_writes_whole_numbers_whole(voc: Path, tmp_path: Path) -> None:
    convert(voc, "voc", tmp_path / "out")
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax>" in text
    assert "<xmin>7</xmin><ymin>8</ymin><xmax>7</xmax><ymax>19</ymax>" in text
    assert "ant &amp; bee" in text


def test_voc_keeps_fractions_and_says_so(tmp_path: Path) -> None:
    index = index_of(tmp_path / "in", {"train": [[thing(box=(0.1, 0.2, 30.3, 20.7))]]})
    said = convert_index(index, "", "voc", tmp_path / "out")
    assert [what.split(" (")[0] for what in said.lost] == ["boxes with fractions of pixels"]
    assert boxes_of(open_index(tmp_path / "out")) == [pytest.approx((0.1, 0.2, 30.3, 20.7), abs=1e-12)]


COCO_FILE = {
    "info": {"year": 2020},
    "licenses": [{"id": 1, "name": "CC"}],
    "images": [
        {"id": 7, "file_name": "sub/x.png", "height": 40, "width": 60, "license": 1, "date_captured": "today"},
        {"id": 3, "file_name": "y.png", "height": 40, "width": 60},
    ],
    "annotations": [
        {
            "id": 90,
            "image_id": 7,
            "category_id": 18,
            "bbox": [1.5, 2.25, 30.125, 20.5],
            "area": 123.5,
            "iscrowd": 0,
            "segmentation": [[1.5, 2.25, 31.625, 2.25, 31.625, 22.75], [3.0, 3.0, 5.0, 3.0, 5.0, 5.0]],
            "keypoints": [5.0, 6.0, 2.0, 0.0, 0.0, 0.0],
            "num_keypoints": 1,
            "attributes": {"occluded": True},
        },
        {
            "id": 12,
            "image_id": 7,
            "category_id": 2,
            "bbox": [0, 0, 60, 40],
            "area": 2400,
            "iscrowd": 1,
            "segmentation": {"size": [40, 60], "counts": [0, 2400]},
        },
    ],
    "categories": [
        {"id": 2, "name": "zebra", "supercategory": "animal"},
        {"id": 18, "name": "ant", "supercategory": "insect", "keypoints": ["head", "tail"], "skeleton": [[1, 2]]},
    ],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "coco_in"
    (root / "annotations").mkdir(parents=True)
    save(root / "images" / "sub" / "x.png")
    save(root / "images" / "y.png")
    (root / "annotations" / "instances_val.json").write_text(json.dumps(COCO_FILE))
    return root


def test_coco_to_coco_is_the_same_document(coco: Path, tmp_path: Path) -> None:
    said = convert(coco, "coco", tmp_path / "out")
    assert said.lost == {}
    again = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert again == COCO_FILE
    assert (tmp_path / "out" / "images" / "val" / "sub" / "x.png").is_file()
    assert objects_of(open_index(tmp_path / "out")) == objects_of(open_index(coco))


def test_marks_in_coco_survive_as_they_are(coco: Path, tmp_path: Path) -> None:
    file = coco / "annotations" / "instances_val.json"
    document = json.loads(file.read_text())
    document["annotations"][0] |= {"difficult": 1, "truncated": 0.7}
    document["annotations"][1] |= {"difficult": 0, "truncated": 1}
    file.write_text(json.dumps(document))
    assert convert(coco, "coco", tmp_path / "out").lost == {}
    assert json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text()) == document


def test_pycocotools_reads_what_is_written(voc: Path, tmp_path: Path) -> None:
    convert(voc, "coco", tmp_path / "out")
    oracle = COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    assert oracle.getCatIds() == [1, 2]
    assert len(oracle.imgs) == 2
    first = oracle.loadAnns(oracle.getAnnIds(catIds=[1]))[0]
    assert first["bbox"] == [0, 0, 60, 40]
    assert first["area"] == 2400


def test_instance_maps_become_the_same_masks(tmp_path: Path) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[3:17, 5:33], ids[20:30, 40:60] = 1, 9
    root = tmp_path / "in"
    save(root / "images" / "a.png")
    (root / "instances").mkdir()
    Image.fromarray(ids).save(root / "instances" / "a.png")
    convert(root, "coco", tmp_path / "out")
    oracle = COCO(str(tmp_path / "out" / "annotations" / "instances_all.json"))
    masks = [oracle.annToMask(a) for a in oracle.loadAnns(oracle.getAnnIds())]
    assert [int(m.sum()) for m in masks] == [14 * 28, 200]
    assert np.array_equal(masks[1], ids == 9)
    objects = load(tmp_path / "out", fields=["masks"])[0].target.objects
    assert objects is not None
    assert objects.masks is not None
    assert torch.equal(objects.masks[0], torch.from_numpy(ids == 1))


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("all",), ("train",), ("val",), ("test",)])
def test_yolo_to_coco_and_back(splits: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (len(splits), 5, 2))
    found = {
        split: [[thing("cat", (x, y, x + 31.7, y + 13.3)) for x, y in corners[i]], []] for i, split in enumerate(splits)
    }
    index = index_of(tmp_path / "in", {split: list(listed) for split, listed in found.items()})
    convert_index(index, "", "yolo", tmp_path / "a")
    convert(tmp_path / "a", "coco", tmp_path / "b")
    convert(tmp_path / "b", "yolo", tmp_path / "c")
    for folder in "abc":
        read = open_index(tmp_path / folder)
        assert read.format == ("coco" if folder == "b" else "yolo")
        assert read.categories == ["zebra", "ant", "cat"]
        assert list(read.splits) == list(splits)
        assert [len(p) for p in read.splits.values()] == [2] * len(splits)
        got, wanted = np.array(boxes_of(read)), np.array(boxes_of(index))
        assert np.abs(got - wanted).max() < 1e-6


def test_yolo_polygons_only_where_every_object_has_one(tmp_path: Path) -> None:
    ring = [[6.0, 4.0, 30.0, 4.0, 30.0, 20.0]]
    index = index_of(tmp_path / "in", {"train": [[thing(box=(6, 4, 30, 20), polygons=ring)]]})
    said = convert_index(index, "", "yolo", tmp_path / "a")
    assert said.lost == {}
    assert (tmp_path / "a" / "labels" / "train" / "train0.txt").read_text() == "1 0.1 0.1 0.5 0.1 0.5 0.5\n"
    (index.splits["train"][0].objects or []).append(thing())
    said = convert_index(index, "", "yolo", tmp_path / "b")
    assert said.lost == {"masks": 1}
    assert (tmp_path / "b" / "labels" / "train" / "train0.txt").read_text().startswith("1 0.3 0.3 0.4 0.4\n")


def test_what_is_lost_is_counted(tmp_path: Path) -> None:
    odd = thing(crowd=True, difficult=True, truncated=True, area=3.0, id=4, extra={"pose": "Left", "camera": 3})
    index = index_of(tmp_path / "in", {"train": [[odd, thing(None), thing(box=(float("nan"), 0, 1, 1))], None]})
    index.category_ids = [4, 5, 9]
    said = convert_index(index, "", "yolo", tmp_path / "yolo")
    assert said.lost == {
        "pictures that nobody annotated": 1,
        "objects of unknown category": 1,
        "boxes that are not finite, with their objects": 1,
        "crowd marks (they become ordinary objects)": 1,
        "difficult marks (they become ordinary objects)": 1,
        "truncated marks": 1,
        "areas": 1,
        "ids of objects": 1,
        "field 'camera'": 1,
        "field 'pose'": 1,
        "ids of categories (their order is kept)": 3,
    }
    assert (said.objects, said.splits) == (1, {"train": 1})
    assert "  1  truncated marks" in said.text()
    lost = convert_index(index, "", "voc", tmp_path / "voc").lost
    assert lost["crowd marks"] == lost["areas"] == lost["field 'camera'"] == 1
    assert "difficult marks" not in " ".join(lost)
    assert convert_index(index, "", "coco", tmp_path / "coco").lost.keys() == {
        "pictures that nobody annotated",
        "objects of unknown category",
        "boxes that are not finite, with their objects",
    }


def test_category_ids_survive_where_coco_can_order_by_them(tmp_path: Path) -> None:
    index = index_of(tmp_path / "in", {"train": [[thing()]]}, category_ids=[4, 5, 9])
    convert_index(index, "", "coco", tmp_path / "a")
    read = open_index(tmp_path / "a")
    assert (read.categories, read.category_ids) == (["zebra", "ant", "cat"], [4, 5, 9])
    index.category_ids = [9, 5, 4]
    convert_index(index, "", "coco", tmp_path / "b")
    read = open_index(tmp_path / "b")
    assert (read.categories, read.category_ids) == (["zebra", "ant", "cat"], [1, 2, 3])


def test_names_that_clash_are_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "in"
    names = ["x/a b.png", "y/a b.png", "x/a b.bmp", "c.png"]
    pictures = [RawPicture(save(root / n), n, HERE, None, [thing()]) for n in names]
    index = Index(root, "test", ["ant"], {"train": pictures})
    for to in ("coco", "voc", "yolo"):
        said = convert_index(index, "", to, tmp_path / to)
        read = open_index(tmp_path / to)
        assert [len(p.objects or []) for p in read.splits["train"]] == [1] * 4, to
        contents = {p.path.read_bytes() for p in read.splits["train"]}
        assert contents == {p.path.read_bytes() for p in pictures}, to
        assert not check(tmp_path / to).errors, to
        assert any("renamed" in what for what in said.lost)


def test_links_instead_of_copies(voc: Path, tmp_path: Path) -> None:
    convert(voc, "yolo", tmp_path / "out", copy=False)
    link = tmp_path / "out" / "images" / "train" / "a.png"
    assert link.is_symlink()
    assert link.read_bytes() == (voc / "JPEGImages" / "a.png").read_bytes()
    assert not check(tmp_path / "out").errors


def test_what_cannot_be_converted(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"wanted one of coco, voc, yolo\. Did you mean coco\?"):
        convert(voc, "cocoo", tmp_path / "out")
    with pytest.raises(UsageError, match="is there already"):
        convert(voc, "coco", voc)
    save(tmp_path / "classes" / "cat" / "a.png")
    with pytest.raises(DataError, match="folders data has no objects"):
        convert(tmp_path / "classes", "coco", tmp_path / "out2")
    (voc / "JPEGImages" / "a.png").write_bytes(b"nonsense")
    with pytest.raises(PictureError, match=r"a\.png.*bestiary check"):
        convert(voc, "coco", tmp_path / "out3")


def test_the_original_stays_as_it_was(voc: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in voc.rglob("*") if p.is_file()}
    convert(voc, "yolo", tmp_path / "out")
    assert {p: p.read_bytes() for p in voc.rglob("*") if p.is_file()} == before


def test_real_cells_survive_the_round_trip(real_data: Path, tmp_path: Path) -> None:
    convert(real_data / "bccd", "coco", tmp_path / "coco", copy=False)
    convert(tmp_path / "coco", "voc", tmp_path / "voc", copy=False)
    first, last = open_index(real_data / "bccd"), open_index(tmp_path / "voc")
    assert last.categories == first.categories
    assert boxes_of(last) == boxes_of(first)
    assert len(boxes_of(first)) == 4888
