from pathlib import Path

import pytest
from PIL import Image

from bestiary.data.opening import open_index
from bestiary.errors import DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(path)


def label(path: Path, text: str = "1 0.5 0.5 0.5 0.2\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make(root: Path, images: str, labels: str) -> None:
    picture(root / images / "a.png")
    label(root / labels / "a.txt")


def test_lines_become_pixels(tmp_path: Path) -> None:
    make(tmp_path, "images", "labels")
    label(tmp_path / "labels/a.txt", "1 0.5 0.5 0.5 0.2\n\n0 0 0 0.5 0 0.5 1\n0 0.5 0.5 1 1 0.75\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    index = open_index(tmp_path)
    objects = index.splits["all"][0].objects
    assert objects is not None
    dog, cat, scored = objects
    assert dog.category == "dog"
    assert dog.box_xyxy == pytest.approx((5, 4, 15, 6))
    assert dog.where.line == 1
    assert cat.polygons == [[0, 0, 10, 0, 10, 10]]
    assert cat.box_xyxy == (0, 0, 10, 10)
    assert cat.where.line == 3
    assert scored.extra == {"score": 0.75}
    assert index.categories == ["cat", "dog"]
    assert index.defects == []


@pytest.mark.parametrize(
    ("yaml", "images", "labels", "split"),
    [
        ("train: images/train\nnames: [cat, dog]\n", "images/train", "labels/train", "train"),
        ("path: .\ntrain: train/images\nnames: {0: cat, 1: dog}\n", "train/images", "train/labels", "train"),
        (
            "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n",
            "valid/images",
            "valid/labels",
            "val",
        ),
        ("train: [images/x, images/y]\nnames:\n- cat\n- dog\n", "images/y", "labels/y", "train"),
        ("path: /not/here\nval: images\nnames: [cat, dog]\n", "images", "labels", "val"),
    ],
)
def test_yaml_forms(tmp_path: Path, yaml: str, images: str, labels: str, split: str) -> None:
    make(tmp_path, images, labels)
    (tmp_path / "data.yaml").write_text(yaml)
    index = open_index(tmp_path)
    assert index.format == "yolo"
    assert [p.name for p in index.splits[split]] == [f"{images}/a.png"]
    assert index.categories == ["cat", "dog"]
    objects = index.splits[split][0].objects
    assert objects is not None
    assert objects[0].category == "dog"


def test_a_list_of_pictures(tmp_path: Path) -> None:
    make(tmp_path, "images", "labels")
    (tmp_path / "train.txt").write_text("./images/a.png\nimages/gone.png\n../../etc/a.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]\n")
    index = open_index(tmp_path)
    assert [p.path.name for p in index.splits["train"]] == ["a.png"]
    assert len(index.splits["train"][0].objects or []) == 1
    assert [(d.rule, d.where.line) for d in index.defects] == [("missing-picture", 2), ("path-outside", 3)]


@pytest.mark.parametrize("layout", ["images/train|labels/train", "train/images|train/labels"])
def test_folders_without_yaml(tmp_path: Path, layout: str) -> None:
    make(tmp_path, *layout.split("|"))
    index = open_index(tmp_path)
    assert list(index.splits) == ["train"]
    assert index.categories == ["0", "1"]
    assert [d.rule for d in index.defects] == ["unnamed-categories"]


def test_missing_and_empty_labels_are_negatives_but_many_are_suspicious(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for i in range(4):
        picture(tmp_path / f"images/{i}.png")
    label(tmp_path / "labels/0.txt")
    label(tmp_path / "labels/1.txt", "")
    index = open_index(tmp_path)
    assert [len(p.objects or []) for p in index.splits["all"]] == [1, 0, 0, 0]
    assert index.defects == []  # exactly half are missing
    (tmp_path / "labels/1.txt").unlink()
    [defect] = open_index(tmp_path).defects
    assert defect.rule == "missing-labels"
    assert defect.severity == "warning"
    assert defect.got.startswith("3 of 4")
    assert defect.where.file == "labels/1.txt"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown-category"),
        ("-1 0.5 0.5 0.1 0.1", "bad-line"),
        ("0.5 0.5 0.5 0.1 0.1", "bad-line"),
        ("0 0.5 0.5 0.1", "bad-line"),
        ("0 0.5 0.5 0.1 x", "bad-line"),
        ("0 0 0 1 0 1 1 0.5", "bad-line"),
        ("inf 0.5 0.5 0.1 0.1", "bad-line"),
        ("cat 0.5 0.5 0.1 0.1", "bad-line"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, rule: str) -> None:
    make(tmp_path, "images", "labels")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    label(tmp_path / "labels/a.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    [defect] = open_index(tmp_path).defects
    assert (defect.rule, str(defect.where)) == (rule, "labels/a.txt:2")


def test_not_finite_coordinates_stay_for_check_to_judge(tmp_path: Path) -> None:
    make(tmp_path, "images", "labels")
    label(tmp_path / "labels/a.txt", "0 nan 0.5 0.1 0.1\n0 0.5 0.5 -0.1 0.1\n")
    assert len(open_index(tmp_path).splits["all"][0].objects or []) == 2


def test_bad_yaml(tmp_path: Path) -> None:
    make(tmp_path, "images", "labels")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog\n")
    index = open_index(tmp_path)
    assert "bad-yaml" in [d.rule for d in index.defects]
    (tmp_path / "data.yaml").write_text("train: nowhere\nnc: 3\nnames: {0: cat, 2: dog}\n")
    index = open_index(tmp_path)
    assert {d.rule for d in index.defects} == {"missing-folder", "bad-names"}
    assert index.categories == ["cat", "1", "dog"]
    (tmp_path / "data.yaml").write_text("train: images\nnames: !!python/object/apply:os.system ['true']\n")
    assert "bad-yaml" in [d.rule for d in open_index(tmp_path).defects]


def test_only_a_yaml_that_is_opened_by_name_leads_elsewhere(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "images", "labels")
    home = tmp_path / "home"
    home.mkdir()
    (home / "data.yaml").write_text("path: ../elsewhere\ntrain: images\nnames: [cat, dog]\n")
    index = open_index(home / "data.yaml")
    assert index.splits["train"][0].path == (tmp_path / "elsewhere/images/a.png").resolve()
    with pytest.raises(DataError, match="path inside the data set's folder"):
        open_index(home)


def test_pictures_that_cannot_be_opened_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "images", "labels")
    (tmp_path / "images/b.png").write_bytes(b"nonsense")
    label(tmp_path / "labels/b.txt")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    index = open_index(tmp_path)
    assert [d.rule for d in index.defects] == ["broken-picture"]
    assert index.splits["all"][1].extra["missing"]
