"""Predictions of other programs, in every format they write, and everything that can be wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.results.results_scenes import (
    FOUND,
    IDS,
    SIZES_HW,
    coco_results,
    coco_truth,
    map_folder,
    predict_json,
    truth_of,
    voc_classes,
    voc_pictures,
    yolo,
)

from bestiary.data.results.opening import read_results, recognise
from bestiary.errors import DataError, UsageError
from bestiary.geometry.masks import encode_rle
from bestiary.predictions import Classification, Detections, Segmentation

WRITERS: dict[str, Callable[[Path], Path]] = {
    "coco": lambda p: coco_results(p / "found.json"),
    "predict-json": lambda p: predict_json(p / "found.jsonl"),
    "voc-classes": lambda p: voc_classes(p / "found"),
    "voc-pictures": lambda p: voc_pictures(p / "found"),
    "yolo": lambda p: yolo(p / "found"),
}


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_of_boxes_says_the_same(format: str, tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    found = WRITERS[format](tmp_path)
    assert recognise(found, truth) == format
    results = read_results(found, truth)
    assert (results.task, results.kinds) == ("detection", frozenset({"boxes"}))
    assert results.notes == []
    for i, picture in enumerate(truth.pictures):
        name = picture.name.removesuffix(".png")
        prediction = results.predict(i)
        assert isinstance(prediction, Detections)
        assert prediction.size_hw == SIZES_HW[name]
        assert [truth.categories[k] for k in prediction.labels.tolist()] == [k for k, _, _ in FOUND[name]]
        assert prediction.scores.tolist() == pytest.approx([s for _, s, _ in FOUND[name]])
        wanted = torch.tensor([b for *_, b in FOUND[name]])
        assert torch.allclose(prediction.boxes_xyxy, wanted, atol=1e-4), "1-based, inclusive in VOC's files"


def test_pictures_may_be_called_by_as_much_of_their_path_as_is_unique(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": name, "height": 40, "width": 60} for i, name in enumerate(["x/1.png", "y/1.png"])]
    truth = truth_of(coco_truth(tmp_path, pictures=False, images=images, annotations=[]))
    names = [p.name for p in truth.pictures]
    assert len(names) == 2
    folder = tmp_path / "found"
    for part in ("x", "y"):
        (folder / part).mkdir(parents=True)
        (folder / part / "1.txt").write_text("0 0.5 0.5 0.2 0.2 0.9")
    assert read_results(folder, truth).answered == {0, 1}
    (folder / "x" / "1.txt").rename(folder / "1.txt")
    with pytest.raises(DataError, match=r"'1.txt' may mean .*1\.png or .*1\.png"):
        read_results(folder, truth)


def test_a_second_file_for_a_picture_is_refused(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    folder = yolo(tmp_path / "found")
    (folder / "more").mkdir()
    (folder / "more" / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"second file for a\.png"):
        read_results(folder, truth)


def test_what_the_truth_does_not_have_is_counted_named_or_left_out(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    folder = voc_pictures(tmp_path / "found")
    (folder / "aa.txt").write_text("cat 0.5 1 1 5 5")
    (folder / "zebra.txt").write_text("cat 0.5 1 1 5 5")
    with pytest.raises(DataError, match=r"2 results of 2 pictures .*aa\.txt first, nearest is a\.png.*--skip-unknown"):
        read_results(folder, truth)
    (folder / "b.txt").write_text("cot 0.5 1 1 5 5\ncat 0.5 1 1 5 5")
    left = read_results(folder, truth, skip_unknown=True)
    assert len(left.notes) == 2
    assert "2 results of 2 pictures" in left.notes[0]
    assert "1 results of 1 category" in left.notes[1]
    for name in ("aa", "zebra"):
        (folder / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=r"cot first, nearest is cat"):
        read_results(folder, truth)


def test_pictures_without_a_file_are_said_and_hold_nothing(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    folder = yolo(tmp_path / "found")
    (folder / "b.txt").unlink()
    results = read_results(folder, truth)
    assert results.notes == ["1 of 3 pictures have no prediction (b.png first): nothing was found in them"]
    (folder / "b.txt").write_text("")
    assert read_results(folder, truth).notes == [], "an empty file says that nothing was found"


BAD_LINES = {
    "voc-pictures": [
        ("cat nan 1 1 5 5", "score nan"),
        ("cat 0.5 1 1 5", "wanted class score"),
        ("cat 0.5 9 1 5 5", "the box"),
    ],
    "yolo": [
        ("0 0.5 0.5 0.1 0.1", "save_conf"),
        ("0 0.5 0.5 0.1 0.1 nan", "score nan"),
        ("9 0.5 0.5 0.1 0.1 0.5", "number 9"),
    ],
}


@pytest.mark.parametrize(
    ("format", "line", "message"), [(f, *case) for f, cases in BAD_LINES.items() for case in cases]
)
def test_bad_lines_are_named_by_file_and_line(format: str, line: str, message: str, tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    folder = WRITERS[format](tmp_path)
    (folder / "b.txt").write_text("\n" + line)
    with pytest.raises(DataError, match=message) as raised:
        read_results(folder, truth, format)
    assert "b.txt:2" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "score nan"),
        ({"score": None}, "score None"),
        ({"bbox": [1, 2, 3]}, "wanted x, y, width, height"),
        ({"bbox": [1, 2, -3, 4]}, "the box"),
        ({"image_id": 12}, "12 first"),
        ({"category_id": 4}, "id 4 first"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "wanted run lengths"),
        ({"keypoints": 7}, "keypoints that is no list"),
        ({"keypoints": [1, 2]}, "three numbers a joint"),
        ({"bbox": None}, "neither a box nor a mask nor keypoints"),
    ],
)
def test_bad_coco_results_are_named_by_entry(change: dict[str, object], message: str, tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    file = coco_results(tmp_path / "found.json")
    entries = json.loads(file.read_text())
    entries[2] |= change
    file.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=message) as raised:
        read_results(file, truth)
    assert "entry 2" in str(raised.value)


def test_coco_masks_and_joints(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[4:9, 10:20] = True
    entry = {"image_id": IDS["a"], "category_id": 3, "score": 0.5}
    rle = encode_rle(mask).to_coco()
    file = tmp_path / "found.json"
    file.write_text(json.dumps([entry | {"segmentation": rle, "keypoints": [1, 2, 1, 3, 4, 1]}]))
    results = read_results(file, truth)
    found = results.predict(next(iter(results.answered)))
    assert isinstance(found, Detections)
    assert results.kinds == {"masks", "keypoints"}
    assert found.masks is not None
    assert torch.equal(found.masks[0], mask)
    assert found.keypoints is not None
    assert found.keypoints.shape == (1, 2, 3)
    assert found.boxes_xyxy.tolist() == [[10, 4, 20, 9]], "a result without a box has that of its mask"
    file.write_text(json.dumps([entry | {"segmentation": {**rle, "size": [60, 40]}}]))
    results = read_results(file, truth)
    with pytest.raises(DataError, match=r"size \(60, 40\)"):
        results.predict(next(iter(results.answered)))


def test_label_maps_mean_what_the_truths_values_mean(tmp_path: Path) -> None:
    truth = truth_of(map_folder(tmp_path / "truth"))
    folder = tmp_path / "found"
    folder.mkdir()
    for i in range(3):
        values = np.full((24, 32), i, np.uint8)
        picture = Image.fromarray(values)
        if i == 1:
            picture = picture.convert("P")
            picture.putdata(values.ravel().tolist())
            picture.putpalette([7, 7, 7, 200, 0, 0] + [0] * 700)
        picture.save(folder / f"{i}{'.labels' if i == 2 else ''}.png")
    assert recognise(folder, truth) == "label-maps"
    results = read_results(folder, truth)
    for i in range(3):
        found = results.predict(i)
        assert isinstance(found, Segmentation)
        assert found.label_map.unique().tolist() == [i]
    (folder / "0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures have no prediction \(images/0\.png first\)"):
        read_results(folder, truth)
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(folder / "0.png")
    with pytest.raises(DataError, match=r"got the value 9, wanted 0, 1, 2"):
        read_results(folder, truth).predict(0)
    np.save(folder / "0.npy", np.zeros((3, 24, 32), np.float32))
    with pytest.raises(DataError, match="second map"):
        read_results(folder, truth)


def test_grey_maps_of_two_classes_are_probabilities(tmp_path: Path) -> None:
    root = map_folder(tmp_path / "truth", count=1)
    (root / "classes.txt").write_text("membrane\ncell\n")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / "labels" / "0.png")
    truth = truth_of(root)
    folder = tmp_path / "found"
    folder.mkdir()
    grey = np.full((24, 32), 51, np.uint8)
    grey[0, 0] = 204
    Image.fromarray(grey).save(folder / "0.png")
    found = read_results(folder, truth).predict(0)
    assert isinstance(found, Segmentation)
    assert found.probs is not None
    assert found.probs[:, 0, :2].T.flatten().tolist() == pytest.approx([0.2, 0.8, 0.8, 0.2])
    assert found.label_map[0, :2].tolist() == [1, 0]
    (folder / "0.png").unlink()
    np.save(folder / "0.npy", np.full((24, 32), 1.5, np.float32))
    with pytest.raises(DataError, match="no probabilities"):
        read_results(folder, truth).predict(0)


def class_truth(root: Path) -> Path:
    for i, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(root / name / f"{2 * i + k}.png")
    return root


def test_tables_of_classes(tmp_path: Path) -> None:
    truth = truth_of(class_truth(tmp_path / "truth"))
    file = tmp_path / "found.csv"
    texts = {
        "name,label\n0.png,blue\n1,red\nred/2.png,1\n3.png,RED\n": (0, 1, 1, 1),
        "0.png,blue\n1.png,red\n2.png,red\n3.png,red\n": (0, 1, 1, 1),
        "filename;blue;prob_red\n0;0.6;0.4\n1;0.2;0.8\n2;0.1;0.9\n3;1;0\n": (0, 1, 1, 0),
    }
    for text, labels in texts.items():
        file.write_text(text)
        results = read_results(file, truth)
        found = [results.predict(i) for i in range(4)]
        assert all(isinstance(p, Classification) for p in found)
        assert tuple(p.label for p in found if isinstance(p, Classification)) == labels
        assert results.labels_only == ("0.6" not in text)
    for text, message in (
        ("name,label\n0,blue\n0,red\n", r"found\.csv:3: got blue/0\.png a second time"),
        ("name,label\n0,blu\n", "nearest is blue"),
        ("name,label\n7,blue\n", "7 first"),
        ("name,label\n0,blue\n", "3 of 4 pictures have no prediction"),
        ("name,blue\n0,0.5\n", "none for red"),
        ("name,blue,red\n0,0.5,0.6\n", "add up to 1.1"),
        ("name,blue,red\n0,nan,0.6\n", "add up to nan"),
        ("name,blue,red\n0,x,0.6\n", "wanted probabilities"),
        ("this,that\n1,2\n", "wanted a header"),
        ("name,label\n0\n", "1 cells"),
        ("", "nothing in it"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_results(file, truth)


def test_predict_json_of_classes_and_of_shares(tmp_path: Path) -> None:
    truth = truth_of(class_truth(tmp_path / "truth"))
    file = tmp_path / "found.json"
    top = [{"category": "red", "prob": 0.7}, {"category": "blue", "prob": 0.3}]
    lines = [{"name": f"{i}.png", "size_hw": [4, 5], "label": 1, "top": top[: 2 - i // 3]} for i in range(4)]
    file.write_text(json.dumps(lines))
    results = read_results(file, truth)
    found = results.predict(0)
    assert isinstance(found, Classification)
    assert found.probs.tolist() == pytest.approx([0.3, 0.7])
    assert results.partial
    file.write_text(json.dumps({"name": "0.png", "size_hw": [4, 5], "shares": {"red": 1.0}}))
    with pytest.raises(DataError, match=r"NAME\.labels\.png"):
        read_results(file, truth)


def test_what_is_no_predictions_is_said(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    with pytest.raises(DataError, match="no such file"):
        recognise(tmp_path / "nowhere", truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no predictions are known"):
        recognise(tmp_path / "empty", truth)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="wanted a list of results"):
        recognise(tmp_path / "x.json", truth)
    with pytest.raises(UsageError, match="Did you mean yolo"):
        read_results(tmp_path, truth, "yol")


def test_a_truth_with_several_splits_must_be_told_which(tmp_path: Path) -> None:
    for split in ("train", "val"):
        class_truth(tmp_path / split)
    with pytest.raises(UsageError, match=r"train \(4\), val \(4\).*--split"):
        truth_of(tmp_path)
    assert len(truth_of(tmp_path, "val")) == 4
    assert len(truth_of(tmp_path, "train+val")) == 8
    with pytest.raises(UsageError, match="'test'"):
        truth_of(tmp_path, "test")
