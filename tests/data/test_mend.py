import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.data.check import check
from bestiary.data.mend import write_mended
from bestiary.data.mend_objects import mended_box
from bestiary.data.opening import open_index
from bestiary.errors import UsageError
from bestiary.pictures.decode import read_image, read_label_map


def noise(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def save(path: Path, seed: int, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed, width, height).save(path)
    return path


def contents(root: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


def mend(root: Path, out: Path) -> list[str]:
    """Mend, and see that the original stayed and that the copy has no error left."""
    before = contents(root)
    report = check(root)
    assert report.errors
    lines = write_mended(report, out)
    assert contents(root) == before
    assert check(out).errors == []
    assert not list(out.parent.glob(".bestiary-mend-*"))
    return lines


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((5, 5, 25, 25), (5, 5, 25, 25)),
        ((-0.5, 0, 60.5, 40), (-0.5, 0, 60.5, 40)),
        ((50, -3, 70, 25), (50, 0, 60, 25)),
        ((25, 30, 5, 10), (5, 10, 25, 30)),
        ((70, 30, 50, 10), (50, 10, 60, 30)),
        ((59.5, 5, 80, 25), (59.5, 5, 60, 25)),
        ((5, 5, 5, 25), None),
        ((60, 0, 90, 9), None),
        ((5, 5, 6, 6), None),
        ((float("nan"), 5, 6, 6), None),
    ],
)
def test_boxes(box: tuple[float, ...], wanted: tuple[float, ...] | None) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    assert mended_box((x1, y1, x2, y2), (40, 60)) == wanted


def coco(root: Path, annotations: list[dict[str, Any]], images: list[dict[str, Any]], split: str = "train") -> None:
    kinds = [{"id": 1, "name": "cat"}, {"id": 5, "name": "Cat"}, {"id": 7, "name": "dog"}]
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = [{"category_id": 1, "iscrowd": 0, "area": 1.0, **a} for a in annotations]
    file.write_text(json.dumps({"images": images, "annotations": whole, "categories": kinds}))


def test_coco(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for i in range(4):
        save(root / "images" / f"{i}.png", i)
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(4)]
    images[1] |= {"height": 400}
    images.append({"id": 9, "file_name": "gone.png"})
    boxed: dict[str, Any] = {"image_id": 0, "bbox": [5, 5, 20, 20]}
    square = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]
    rows = [
        {"id": 1, **boxed},
        {"id": 1, **boxed, "bbox": [6, 6, 20, 20]},
        {"id": 3, **boxed, "bbox": [50, 10, 20, 20]},
        {"id": 4, **boxed, "bbox": [30, 30, -20, -10]},
        {"id": 5, **boxed, "bbox": [30, 30, 0, 10]},
        {"id": 6, **boxed, "category_id": 99},
        {"id": 7, "image_id": 77, "bbox": [1, 1, 5, 5]},
        {"id": 8, "image_id": 1, "bbox": [100, 100, 5, 5]},
        {"id": 9, "image_id": 1, "category_id": 5, "bbox": [7, 7, 20, 20]},
        {"id": 10, "image_id": 2, "bbox": [5, 5, 20, 20], "segmentation": {"size": [40, 61], "counts": [0, 2440]}},
        {"id": 11, "image_id": 2, "bbox": [float("nan"), 5, 20, 20], "segmentation": [square]},
        {"id": 12, "image_id": 2},
        {
            "id": 13,
            "image_id": 3,
            "category_id": 7,
            "bbox": [5, 5, 20, 20],
            "segmentation": [square, [1.0, 1.0, 2.0, 2.0]],
        },
        {"id": 14, "image_id": 3, "category_id": 7, "bbox": [5, 5, 20, 20], "segmentation": [square]},
    ]
    coco(root, rows, images)
    lines = mend(root, tmp_path / "out")
    index = open_index(tmp_path / "out")
    assert index.categories == ["cat", "dog"]
    assert index.category_ids == [1, 7]
    boxes = {Path(p.name).name: [o.box_xyxy for o in p.objects or []] for p in index.splits["train"]}
    assert boxes == {
        "0.png": [(5, 5, 25, 25), (6, 6, 26, 26), (50, 10, 60, 30), (10, 20, 30, 30)],
        "1.png": [(7, 7, 27, 27)],
        "2.png": [(5, 5, 25, 25), (5, 5, 25, 25)],
        "3.png": [(5, 5, 25, 25)],
    }
    assert [bool(o.polygons) for o in index.splits["train"][2].objects or []] == [False, True]
    assert index.splits["train"][1].size_hw == (40, 60)
    told = "\n".join(lines)
    for words in (
        "(annotation 3): box 50, 10, 70, 30 became 50, 10, 60, 30 (box-beyond-edge)",
        "(annotation 4): box 30, 30, 10, 20 became 10, 20, 30, 30 (box-inverted)",
        "(annotation 5): box 30, 30, 30, 40 left out (box-empty)",
        "(annotation 14): dog is annotated twice",
        "category 'Cat' renamed to 'cat'",
        "size 60x400 corrected to 60x40",
        "gone.png is missing or broken",
        "(annotation 12): neither box nor mask",
    ):
        assert words in told, words
    assert lines[-1].endswith(f"4 pictures, {len(lines) - 1} changes")


def test_joints(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "images" / "a.png", 1)
    people = [[5, 5, 2, 9, 9, 2], [5, 5, 2, float("nan"), 9, 1], [5, 5, 0.5, 7, 7, 2], [5, 5, 2]]
    rows = [{"id": i, "image_id": 1, "bbox": [i, 1, 20, 20], "keypoints": k} for i, k in enumerate(people)]
    coco(root, rows, [{"id": 1, "file_name": "a.png"}])
    mend(root, tmp_path / "out")
    found = open_index(tmp_path / "out").splits["train"][0].objects or []
    assert [o.keypoints for o in found] == [[5, 5, 2, 9, 9, 2], [5, 5, 2, 0, 0, 0], [5, 5, 2, 7, 7, 2], None]


def test_a_picture_listed_twice_gets_all_its_objects(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "images" / "a.png", 1)
    rows = [{"id": i, "image_id": i, "bbox": [i, 1, 20, 20]} for i in (1, 2)]
    coco(root, rows, [{"id": i, "file_name": "a.png"} for i in (1, 2)])
    mend(root, tmp_path / "out")
    (picture,) = open_index(tmp_path / "out").splits["train"]
    assert [o.box_xyxy for o in picture.objects or []] == [(1, 1, 21, 21), (2, 1, 22, 21)]


VOC = """<annotation><filename>{}</filename><object><name>cat</name><pose>Left</pose><difficult>1</difficult>
<bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def test_voc_with_broken_files(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "JPEGImages" / "good.png", 1)
    save(root / "JPEGImages" / "nobox.png", 2)
    save(root / "JPEGImages" / "xml.png", 3)
    (root / "JPEGImages" / "empty.png").write_bytes(b"")
    (root / "Annotations").mkdir()
    for name, xmin in (("good", "5"), ("empty", "5"), ("nobox", "nan")):
        (root / "Annotations" / f"{name}.xml").write_text(VOC.format(f"{name}.png", xmin))
    (root / "Annotations" / "xml.xml").write_text("<annotation><object>")
    lines = mend(root, tmp_path / "out")
    pictures = {Path(p.name).stem: p for p in open_index(tmp_path / "out").splits["all"]}
    assert pictures.keys() == {"good", "nobox"}
    (found,) = pictures["good"].objects or []
    assert (found.box_xyxy, found.difficult, found.extra) == ((4, 4, 30, 30), True, {"pose": "Left"})
    assert pictures["nobox"].objects == []
    assert any("xml.xml" in line for line in lines)
    assert any("empty.png: left out" in line for line in lines)


def test_truncated_pictures(tmp_path: Path) -> None:
    smooth = Image.fromarray(np.linspace(0, 250, 200 * 300).reshape(200, 300).astype(np.uint8)).convert("RGB")
    root = tmp_path / "in"
    (root / "cat").mkdir(parents=True)
    for name, share in (("whole", 1.0), ("nearly", 0.97), ("half", 0.6)):
        path = root / "cat" / f"{name}.jpg"
        smooth.rotate(len(name)).save(path, quality=95)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    lines = mend(root, tmp_path / "out")
    left = sorted(p.name for p in (tmp_path / "out" / "cat").iterdir())
    assert left == ["nearly.jpg", "whole.jpg"]
    assert any("nearly.jpg: was cut off near its end" in line for line in lines)
    assert tuple(read_image(tmp_path / "out" / "cat" / "nearly.jpg").shape) == (3, 200, 300)
    assert (tmp_path / "out" / "cat" / "whole.jpg").read_bytes() == (root / "cat" / "whole.jpg").read_bytes()


def test_yolo(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in "abc":
        save(root / "images" / f"{name}.png", ord(name))
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.9 0.5 0.5 0.5\n7 0.5 0.5 0.1 0.1\nnonsense\n")
    (root / "labels" / "b.txt").write_text("1 2.5 0.5 0.5 0.5\n1 0.5 0.5 0 0.5\n")
    lines = mend(root, tmp_path / "out")
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == "0 0.5 0.5 0.5 0.5\n0 0.825 0.5 0.35 0.5\n"
    assert (tmp_path / "out" / "labels" / "b.txt").read_text() == ""
    assert len(open_index(tmp_path / "out").splits["all"]) == 3
    assert any(line.startswith("labels/a.txt:4: 'nonsense'") for line in lines)


def test_fractions_in_a_csv_become_pixels_in_coco(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "a.png", 1)
    rows = "".join(f"a.png,0.{i},0.1,0.9,0.8,cat\n" for i in range(1, 7))
    (root / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,label\n" + rows)
    lines = mend(root, tmp_path / "out")
    index = open_index(tmp_path / "out")
    assert index.format == "coco"
    assert (index.splits["all"][0].objects or [])[0].box_xyxy == pytest.approx((6, 4, 54, 32))
    assert any("csv has no writer: written as coco" in line for line in lines)


def test_leaks_stay_where_they_are_measured(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for split, seeds in (("train", (1, 2, 3, 4)), ("val", (5, 2)), ("test", (6, 3, 5))):
        for seed in seeds:
            save(root / split / "cat" / f"{seed}.png", seed)
    mend(root, tmp_path / "out")
    left = {s: sorted(p.name for p in (tmp_path / "out" / s / "cat").iterdir()) for s in ("train", "val", "test")}
    assert left == {"train": ["1.png", "4.png"], "val": ["2.png"], "test": ["3.png", "5.png", "6.png"]}


def test_no_split_is_emptied(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for split, seeds in (("train", (1, 2)), ("val", (1, 2, 3))):
        for seed in seeds:
            save(root / split / "cat" / f"{seed}.png", seed)
    mend(root, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "val" / "cat").iterdir()) == ["3.png"]
    same = tmp_path / "same"
    for split in ("train", "val"):
        save(same / split / "cat" / "1.png", 1)
    lines = write_mended(check(same), tmp_path / "out2")
    assert any("one split would be empty" in line for line in lines)
    assert [d.rule for d in check(tmp_path / "out2").errors] == ["split-leakage"]


def test_class_folders_spelt_in_two_ways_are_joined(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for i, place in enumerate(("train/cat/a", "train/cat/b", "val/Cat/a", "val/cat/a")):
        save(root / f"{place}.png", i)
    mend(root, tmp_path / "out")
    index = open_index(tmp_path / "out")
    assert index.categories == ["cat"]
    assert [len(p) for p in index.splits.values()] == [2, 2]


def test_label_maps(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "labels").mkdir(parents=True)
    (root / "classes.txt").write_text("sky\nroad\nvoid\n")
    values = np.zeros((40, 60), np.uint8)
    values[:5], values[5:9] = 1, 9
    wide = np.zeros((40, 61), np.uint8)
    for i, (name, stored) in enumerate({"good": values * 0, "strange": values, "wide": wide}.items()):
        save(root / "images" / f"{name}.png", i)
        Image.fromarray(stored).save(root / "labels" / f"{name}.png")
    save(root / "images" / "none.png", 7)
    lines = mend(root, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == ["good.png", "strange.png"]
    assert sorted(p.name for p in (tmp_path / "out" / "labels").iterdir()) == ["good.png", "strange.png"]
    mended = read_label_map(tmp_path / "out" / "labels" / "strange.png").numpy()
    assert (mended[5:9] == 2).all()
    assert (mended[:5] == 1).all()
    assert (mended[9:] == 0).all()
    assert "labels/strange.png: values 9 became 2 (unknown)" in lines
    assert (tmp_path / "out" / "classes.txt").read_text() == "sky\nroad\nvoid\n"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "in" / "cat" / "a.png", 1)
    report = check(tmp_path / "in")
    with pytest.raises(UsageError, match="is there already"):
        write_mended(report, tmp_path / "in")


def test_a_good_data_set_is_copied_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "cat" / "a.png", 1)
    save(root / "dog" / "b.png", 2)
    (root / "README").write_text("read me")
    lines = write_mended(check(root), root / "mended")
    copied = {p.relative_to(root / "mended"): data for p, data in contents(root / "mended").items()}
    assert copied == {p.relative_to(root): d for p, d in contents(root).items() if "mended" not in p.parts}
    assert len(lines) == 1
    assert lines[0].endswith("2 pictures, 0 changes")


def test_real_cells(real_data: Path, tmp_path: Path) -> None:
    lines = mend(real_data / "bccd", tmp_path / "out")
    assert len(lines) == 3
    assert check(tmp_path / "out").defects == []
    objects = sum(len(p.objects or []) for split in open_index(tmp_path / "out").splits.values() for p in split)
    assert objects == 4886
