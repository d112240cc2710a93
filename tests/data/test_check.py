import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.data.check import Report, check, check_index
from bestiary.data.check.objects import boxes_in_fractions, judge_box, judge_keypoints, judge_mask, twins
from bestiary.data.check.rules import RULES, rank
from bestiary.data.index import Defect, Index, RawObject, RawPicture, Where
from bestiary.errors import DataError, UsageError

SRC = Path(__file__).resolve().parent.parent.parent / "src" / "bestiary"
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "check.md"
NAN, INF = float("nan"), float("inf")
HERE = Where("here.xml", 3)


def scene(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    """Smooth noise: no two seeds look alike, and none looks like itself shifted."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, seed: int, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed, width, height).save(path)
    return path


def thing(box: Any = (5, 5, 25, 25), category: str | None = "cat", **fields: Any) -> RawObject:
    if "polygons" in fields:
        fields["polygons"] = [[float(v) for v in ring] for ring in fields["polygons"]]
    corners: Any = None if box is None else tuple(float(v) for v in box)
    return RawObject(category, HERE, corners, **fields)


def index_of(root: Path, *objects: list[RawObject] | None, **fields: Any) -> Index:
    """One picture of 60x40 for each list of objects."""
    pictures = []
    for i, found in enumerate(objects):
        path = save(root / f"{i}.png", i)
        pictures.append(RawPicture(path, path.name, Where(f"{i}.xml"), (40, 60), found))
    return Index(root, "test", ["cat"], {"train": pictures}, **fields)


def rules(report: Report) -> dict[str, int]:
    """How often each rule was broken, without what every small data set breaks."""
    small = {"rare-category", "one-split-category", "mostly-empty", "empty-category"}
    return {rule: len(found) for rule, found in report.by_rule().items() if rule not in small}


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ((5, 5, 25, 25), None),
        ((0, 0, 60, 40), None),
        ((-0.5, -0.5, 60.5, 40.5), None),
        ((-0.51, 0, 30, 30), "box-beyond-edge"),
        ((0, 0, 60.51, 40), "box-beyond-edge"),
        ((50, 0, 70, 10), "box-beyond-edge"),
        ((51, 0, 71, 10), "box-mostly-outside"),
        ((60, 0, 70, 10), "box-outside"),
        ((-9, -9, 0, 0), "box-outside"),
        ((5, 5, 5, 25), "box-empty"),
        ((5, 5, 25, 5.0005), "box-empty"),
        ((25, 5, 5, 25), "box-inverted"),
        ((5, 25, 25, 5), "box-inverted"),
        ((5, 5, 6, 6), "box-point"),
        ((5, 5, 5.9, 25), "box-tiny"),
        ((5, 5, 6, 25), None),
        ((NAN, 5, 6, 6), "box-not-finite"),
        ((5, 5, INF, 6), "box-not-finite"),
        ((-INF, 5, 5, 6), "box-not-finite"),
    ],
)
def test_boxes(box: tuple[float, ...], rule: str | None) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    assert judge_box((x1, y1, x2, y2), (40, 60)) == rule


def test_without_a_size_only_the_box_itself_is_judged() -> None:
    assert judge_box((-5.0, -5.0, 900.0, 900.0), None) is None
    assert judge_box((5.0, 5.0, 5.0, 9.0), None) == "box-empty"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"polygons": [[0.0, 0, 10, 0, 10, 10]]}, None),
        ({"polygons": [[0.0, 0, 10, 0]]}, "bad-mask"),
        ({"polygons": [[0.0, 0, 10, 0, 10, 10, 3]]}, "bad-mask"),
        ({"polygons": [[0.0, 0, NAN, 0, 10, 10]]}, "bad-mask"),
        ({"polygons": [[0.0, 0, 61, 0, 10, 10]]}, None),
        ({"polygons": [[0.0, 0, 61.1, 0, 10, 10]]}, "mask-beyond-edge"),
        ({"rle": {"size": [40, 60], "counts": [0, 2400]}}, None),
        ({"rle": {"size": [40, 60], "counts": [2400]}}, "empty-mask"),
        ({"rle": {"size": [40, 60], "counts": [0, 2399]}}, "bad-mask"),
        ({"rle": {"size": [60, 40], "counts": [0, 2400]}}, "mask-size"),
    ],
)
def test_masks(fields: dict[str, Any], rule: str | None) -> None:
    bad = judge_mask(thing(**fields), (40, 60))
    assert (bad[0] if bad else None) == rule


def test_joints() -> None:
    good = [10.0, 10.0, 2.0, 0.0, 0.0, 0.0, 61.0, 41.0, 1.0]
    assert list(judge_keypoints(good, 3, (40, 60))) == []
    found = [rule for rule, _, _ in judge_keypoints([NAN, 1.0, 2.0, 90.0, 1.0, 2.0, 5.0, 5.0, 3.0], 3, (40, 60))]
    assert found == ["bad-keypoints", "keypoint-outside", "bad-visibility"]
    assert [r for r, _, _ in judge_keypoints(good, 2, (40, 60))] == ["bad-keypoints"]
    assert list(judge_keypoints([NAN, NAN, 0.0], 1, (40, 60))) == []


def test_an_object_annotated_twice_is_one_that_says_the_same() -> None:
    same = [thing(), thing((5.001, 5, 25, 25)), thing(category="dog"), thing(crowd=True), thing((5, 5, 25, 26))]
    picture = RawPicture(Path("a.png"), "a.png", HERE, objects=same)
    assert twins(picture) == [(0, 1)]
    masks = [thing(mask_id=1), thing(mask_id=2), thing((NAN, 0, 1, 1)), thing((NAN, 0, 1, 1))]
    assert twins(RawPicture(Path("a.png"), "a.png", HERE, objects=masks)) == []


def test_a_good_data_set_has_no_defect(tmp_path: Path) -> None:
    boxes = [(5 + i, 5, 25 + i, 30) for i in range(10)]
    report = check_index(index_of(tmp_path, [thing(b) for b in boxes], [thing()]))
    assert report.defects == []
    assert report.text().endswith("Nothing is wrong.")
    assert report.splits == {"train": {"pictures": 2, "negatives": 0, "objects": 11}}
    assert report.counts == {"train": Counter(cat=11)}


def test_defects_say_where_what_and_how_to_mend(tmp_path: Path) -> None:
    report = check_index(index_of(tmp_path, [thing((5, 5, 5, 25)), thing((50, 5, 70, 25))]))
    (error,) = report.errors
    assert (error.rule, error.where) == ("box-empty", HERE)
    assert error.got == "cat at 5, 5, 5, 25"
    assert "delete" in error.mend
    assert error.mended == "dropped"
    warning = next(d for d in report.warnings if d.rule == "box-beyond-edge")
    assert warning.wanted == "within 0, 0, 60, 40"
    assert warning.mended == "clipped"
    assert report.loading[0].startswith("train: serves 1 of 1 pictures; ")
    assert "mended" in report.loading[0]


def test_boxes_in_fractions_are_one_error_not_a_hundred(tmp_path: Path) -> None:
    small = [thing((0.1, 0.1, 0.2 + i / 10, 0.9)) for i in range(6)]
    index = index_of(tmp_path, small)
    assert boxes_in_fractions(index, lambda p: p.size_hw) == 6
    assert rules(check_index(index)) == {"boxes-normalised": 1}
    index.splits["train"][0].objects = [*small, thing()]
    assert boxes_in_fractions(index, lambda p: p.size_hw) == 0
    index.splits["train"][0].objects = small[:4]
    assert boxes_in_fractions(index, lambda p: p.size_hw) == 0


def test_objects_of_no_category_box_or_place(tmp_path: Path) -> None:
    report = check_index(index_of(tmp_path, [thing(category="bird"), thing(None), thing()]))
    assert rules(report) == {"unknown-category": 1, "missing-box": 1}
    off = thing((40, 5, 55, 30), polygons=[[1.0, 1, 20, 1, 20, 20, 1, 20]])
    assert rules(check_index(index_of(tmp_path, [off]))) == {"mask-off-box": 1}


def test_sizes(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], [thing()])
    index.splits["train"][0].size_hw = (60, 40)
    index.splits["train"][1].size_hw = None
    (error,) = check_index(index).errors
    assert (error.rule, error.where, error.got) == ("size-mismatch", Where("0.xml"), "40x60")
    assert error.wanted.startswith("60x40")


def test_a_size_from_before_the_exif_rotation_is_told_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(1).save(tmp_path / "0.jpg", exif=exif)
    picture = RawPicture(tmp_path / "0.jpg", "0.jpg", HERE, (40, 60), [thing()])
    report = check_index(Index(tmp_path, "test", ["cat"], {"train": [picture]}))
    (error,) = report.errors
    assert (error.got, error.wanted) == ("60x40", "40x60, as 0.jpg")
    assert "Exif" in error.mend
    assert [n.rule for n in report.notes if n.rule == "exif-rotation"] == ["exif-rotation"]


def test_categories(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(category="RBC")] * 10, [thing(category="rbc")], [thing(category="Platelet")])
    index.categories = ["RBC", "rbc", "Platelet", "Platelets", "empty"]
    a, b, c = index.splits["train"]
    d = RawPicture(save(tmp_path / "d.png", 9), "d.png", Where("d.xml"), None, [thing(category="Platelets")])
    index.splits = {"train": [a, c], "val": [b, d]}
    found = check_index(index).by_rule()
    (spelling,) = found["category-spelling"]
    assert spelling.severity == "error"
    assert spelling.got == "'rbc' (1 in val)"
    assert "'RBC'" in spelling.wanted
    assert [d.got for d in found["similar-categories"]] == ["'Platelet' in train, 'Platelets' in val"]
    assert [d.got for d in found["empty-category"]] == ["'empty': none"]
    assert [d.got for d in found["rare-category"]] == ["'rbc': 1", "'Platelet': 1", "'Platelets': 1"]
    assert {d.got for d in found["one-split-category"]} == {
        "'RBC': none in val",
        "'rbc': none in train",
        "'Platelet': none in val",
        "'Platelets': none in train",
    }


def test_imbalance_begins_at_a_hundred(tmp_path: Path) -> None:
    many = [thing((i % 20, i // 20, 30 + i % 20, 30)) for i in range(99)]
    index = index_of(tmp_path, [*many, thing(category="dog")])
    index.categories = ["cat", "dog"]
    assert "imbalance" not in rules(check_index(index))
    (index.splits["train"][0].objects or []).append(thing((3, 3, 9, 9)))
    assert rules(check_index(index)) == {"imbalance": 1}


def test_listing(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], [thing()], None, [], [], [], [])
    train = index.splits["train"]
    train.append(RawPicture(train[0].path, train[0].name, Where("again.xml"), None, [thing()]))
    index.splits["val"] = []
    found = check_index(index).by_rule()
    assert [d.where.file for d in found["repeated-picture"]] == ["again.xml"]
    assert [d.where.file for d in found["not-annotated"]] == ["2.xml"]
    assert [d.got for d in found["empty-split"]] == ["'val' without pictures"]
    assert [d.got for d in found["mostly-empty"]] == ["4 of 7 pictures of 'train' have no object"]


def test_half_of_the_pictures_may_be_negatives(tmp_path: Path) -> None:
    report = check_index(index_of(tmp_path, [thing()], []))
    assert "mostly-empty" not in report.by_rule()
    assert [(n.rule, n.count) for n in report.notes if n.rule == "negatives"] == [("negatives", 1)]


def test_leaks_and_copies(tmp_path: Path) -> None:
    for split, seeds in (("train", (1, 2, 3, 3)), ("test", (4, 2))):
        for i, seed in enumerate(seeds):
            save(tmp_path / split / "cat" / f"{i}.png", seed)
    save(tmp_path / "train" / "dog" / "0.bmp", 1)
    found = check(tmp_path).by_rule()
    (leak,) = found["split-leakage"]
    assert leak.severity == "error"
    assert leak.where.file == "test/cat/1.png"
    assert leak.got == "the same pixels as train/cat/1.png in train and test"
    assert [d.where.file for d in found["duplicate-picture"]] == ["train/cat/3.png"]
    assert [d.got for d in found["conflicting-labels"]] == ["train/cat/0.png: cat, train/dog/0.bmp: dog"]


def test_one_file_in_two_splits_is_found_without_decoding(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()])
    index.splits["val"] = list(index.splits["train"])
    for decode in (True, False):
        (leak,) = check_index(index, decode=decode).errors
        assert leak.got == "the same file in train and val"


def test_near_duplicates_survive_recompression_and_brightness(tmp_path: Path) -> None:
    home = tmp_path / "train" / "cat"
    for seed in range(20):
        save(home / f"{seed}.png", seed, 90, 60)
    other = tmp_path / "val" / "cat"
    other.mkdir(parents=True)
    brighter = Image.fromarray((np.asarray(scene(7, 90, 60)) * 0.8 + 20).astype(np.uint8))
    brighter.resize((60, 40)).save(other / "a.jpg", quality=80)
    for seed in range(20, 40):
        save(other / f"{seed}.png", seed, 90, 60)
    report = check(tmp_path)
    (near,) = report.by_rule()["near-duplicate"]
    assert near.where.file == "val/cat/a.jpg"
    assert near.got.startswith("like train/cat/7.png of train")
    assert not report.errors


def test_plain_pictures_are_not_near_duplicates(tmp_path: Path) -> None:
    for split, grey in (("train", 200), ("val", 201)):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (40, 40), (grey, grey, grey)).save(tmp_path / split / "a" / f"{split}.png")
    assert "near-duplicate" not in check(tmp_path).by_rule()


def test_notes_on_odd_pictures(tmp_path: Path) -> None:
    home = tmp_path / "cat"
    save(home / "a.png", 1)
    save(home / "small.png", 2, 31, 40)
    save(home / "long.png", 3, 241, 48)
    scene(4).convert("L").save(home / "grey.png")
    scene(5).convert("RGBA").save(home / "alpha.png")
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(home / "deep.png")
    scene(6).save(home / "really_a.jpg", format="PNG")
    notes = {n.rule: n for n in check(tmp_path).notes}
    assert notes["small-picture"].examples == ("cat/small.png",)
    assert notes["long-picture"].examples == ("cat/long.png",)
    assert notes["grey-picture"].examples == ("cat/deep.png", "cat/grey.png")
    assert notes["transparent-picture"].examples == ("cat/alpha.png",)
    assert notes["deep-picture"].examples == ("cat/deep.png",)
    assert notes["wrong-suffix"].examples == ("cat/really_a.jpg",)
    assert notes["mixed-sizes"].text == "3 sizes, from 31x40 to 241x48, most often 60x40 (5)"


def test_sides_of_32_pixels_are_not_small(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", 1, 32, 160)
    assert {n.rule for n in check(tmp_path).notes} == {"no-validation"}


def label_map(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def test_label_maps(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\nvoid\n")
    half = np.zeros((40, 60), np.uint8)
    half[20:] = 1
    half[:, :3] = 2
    strange = half.copy()
    strange[0, :24] = 7
    maps = {"good": half, "strange": strange, "void": np.full((40, 60), 2), "wide": np.zeros((40, 61), np.uint8)}
    for i, (name, values) in enumerate(maps.items()):
        save(tmp_path / "images" / f"{name}.png", i)
        label_map(tmp_path / "labels" / f"{name}.png", values)
    save(tmp_path / "images" / "broken.png", 8)
    (tmp_path / "labels" / "broken.png").write_bytes(b"")
    save(tmp_path / "images" / "colour.png", 9)
    scene(9).save(tmp_path / "labels" / "colour.png")
    report = check(tmp_path)
    found = {rule: [(d.where.file, d.got) for d in ds] for rule, ds in report.by_rule().items()}
    assert found["unknown-map-value"] == [("labels/strange.png", "7 (1 % of the pixels)")]
    assert found["void-map"] == [("labels/void.png", "only unknown pixels")]
    assert found["map-size"] == [("labels/wide.png", "61x40")]
    assert [file for file, _ in found["broken-map"]] == ["labels/broken.png", "labels/colour.png"]
    assert report.unit == "pixels"
    good = 57 * 20
    assert report.counts["all"] == Counter(sky=good + good - 21 + 40 * 61, road=2 * good)


def test_without_decoding_maps_are_not_judged(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    save(tmp_path / "images" / "a.png", 1)
    label_map(tmp_path / "labels" / "a.png", np.full((40, 61), 9))
    report = check(tmp_path, decode=False)
    assert report.defects == []
    assert [n.rule for n in report.notes if n.rule == "not-decoded"] == ["not-decoded"]
    assert check(tmp_path).errors


def test_a_jpeg_that_lost_data_before_its_end_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "cat"
    save(home / "good.jpg", 1, 200, 160)
    data = (home / "good.jpg").read_bytes()
    (home / "lost.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    Image.new("RGB", (60, 40), (128, 128, 128)).save(home / "grey.png")
    (tail,) = check(tmp_path).by_rule()["grey-tail"]
    assert tail.where.file == "cat/lost.jpg"
    assert re.fullmatch(r"[345]\d % of the rows at the bottom are blank grey", tail.got)


def test_instance_maps(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(mask_id=1), thing((0, 0, 4, 4), mask_id=5)])
    values = np.zeros((40, 60), np.uint8)
    values[:9, :9], values[20:, 20:] = 1, 3
    label_map(tmp_path / "map.png", values)
    index.splits["train"][0].instance_map = tmp_path / "map.png"
    report = check_index(index)
    assert rules(report) == {"missing-mask": 1, "unlisted-mask": 1}
    assert report.errors[0].got == "no pixel of id 5"
    assert report.warnings[0].got == "ids 3"


def coco(root: Path, images: list[Any], annotations: list[Any], categories: list[Any], name: str = "train") -> Path:
    file = root / "annotations" / f"instances_{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def test_what_the_reader_found_is_told_once(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", 1)
    save(tmp_path / "images" / "extra.png", 2)
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}]
    boxed = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]}
    bad = [boxed, {**boxed, "bbox": [3, 3, 9, 9]}, {"id": 3, "image_id": 1, "category_id": 9, "bbox": [1, 1, "x", 2]}]
    coco(tmp_path, images, bad, [{"id": 1, "name": "cat"}])
    report = check(tmp_path)
    assert rules(report) == {"missing-picture": 1, "duplicate-id": 1, "unknown-category": 1, "bad-number": 1}
    assert [n.examples for n in report.notes if n.rule == "unlisted-picture"] == [("images/extra.png",)]


def test_yolo_labels_without_a_picture_and_shared_ones(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", 1)
    save(tmp_path / "images" / "a.bmp", 2)
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    found = check(tmp_path).by_rule()
    assert [d.where.file for d in found["missing-picture"]] == ["labels/gone.txt"]
    assert [d.got for d in found["shared-annotation"]] == ["images/a.bmp and images/a.png"]


def test_the_report_as_text_and_json(tmp_path: Path) -> None:
    boxes = [(5, 5, 5, 25 + i) for i in range(5)]
    report = check_index(index_of(tmp_path, [thing(b) for b in boxes], []), "read as test")
    text = report.text(2)
    assert "ERROR  boxes without area [box-empty]: 5\n  here.xml:3: got cat at 5, 5, 5, 25, wanted" in text
    assert "... and 3 more" in text
    assert text.index("ERROR") < text.index("WARNING") < text.index("Good to know") < text.index("Summary")
    assert "What training does on its own" in text
    assert text.splitlines()[-1].startswith("5 errors, ")
    document = json.loads(json.dumps(report.to_dict()))
    assert (document["errors"], document["rules"]["box-empty"]) == (5, 5)
    assert document["defects"][0]["where"] == {"file": "here.xml", "line": 3, "annotation": None}
    assert document["splits"]["train"]["pictures"] == 2


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_index(index_of(tmp_path, [thing()], [thing()], [thing()]), progress=lambda done, of: seen.append((done, of)))
    assert seen[:3] == [(1, 3), (2, 3), (3, 3)]


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no format fits"):
        check(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        check(tmp_path / "nowhere")
    save(tmp_path / "cat" / "a.png", 1)
    with pytest.raises(UsageError, match="Did you mean folders"):
        check(tmp_path, format="folder")


def test_the_index_is_left_as_it_was(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing((5, 5, 5, 25))])
    before = repr(index)
    check_index(index)
    assert repr(index) == before


def used_rules() -> set[str]:
    """Names of rules in the source: first arguments of `error` and `warn`, and kebab-case texts of this package."""
    texts = [p.read_text() for p in [*(SRC / "data" / "readers").glob("*.py"), *(SRC / "data" / "check").glob("*.py")]]
    calls = r'\.(?:error|warn)\(\s*"([a-z]+(?:-[a-z]+)*)"'
    return {name for text in texts for name in re.findall(calls, text)}


def test_every_rule_in_the_source_is_in_the_table_and_in_the_docs() -> None:
    used = used_rules()
    assert len(used) > 40
    assert used <= RULES.keys()
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|note) \|", DOCS.read_text(), re.MULTILINE)
    assert dict(rows) == {name: rule.level for name, rule in RULES.items()}
    assert len(rows) == len(RULES)


def test_defects_have_the_level_of_their_rule(tmp_path: Path) -> None:
    bad = [thing((5, 5, 5, 25)), thing((50, 5, 70, 25)), thing(None), thing(category="bird"), thing((3, 3, 4, 4))]
    report = check_index(index_of(tmp_path, bad, []))
    assert len(report.by_rule()) > 4
    assert all(RULES[d.rule].level == d.severity for d in report.defects)
    assert sorted(["negatives", "box-tiny", "box-empty", "bad-json"], key=rank) == [
        "bad-json",
        "box-empty",
        "box-tiny",
        "negatives",
    ]


def test_real_data_raises_no_false_alarm(real_data: Path) -> None:
    bccd = check(real_data / "bccd")
    assert {(d.rule, d.where.file.split("/")[-1]) for d in bccd.defects} == {
        ("box-point", "BloodImage_00338.xml"),
        ("box-point", "BloodImage_00343.xml"),
    }
    assert check(real_data / "pennfudan").defects == []
    assert check(real_data / "isbi2012").defects == []


def test_defects_are_hashable_and_plain() -> None:
    defect = Defect("box-empty", "error", HERE, "a", "b", "c")
    assert len({defect, defect}) == 1
    assert str(defect.where) == "here.xml:3"
