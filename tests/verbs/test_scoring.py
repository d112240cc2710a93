"""`score`: anybody's predictions by any protocol, the same numbers as the accumulators and the reference tools."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.results.results_scenes import (
    coco_results,
    coco_truth,
    map_folder,
    predict_json,
    truth_of,
    voc_classes,
    voc_pictures,
    yolo,
)
from tests.metrics.panoptic_cases import write_case

from bestiary.cli.main import main
from bestiary.data.dataset import load
from bestiary.errors import DataError, UsageError
from bestiary.geometry.masks import encode_rle
from bestiary.metrics.coco import CocoScores, coco_from_files
from bestiary.metrics.panoptic_files import panoptic_from_files
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.predictions import Detections, Segmentation
from bestiary.records import Objects, Target
from bestiary.verbs.evaluating import finer_evaluators
from bestiary.verbs.protocols import PROTOCOLS, Rules, chosen_protocols, evaluators
from bestiary.verbs.scoring import Formats, score


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return int(stop.value.code or 0)


def test_coco_results_of_a_coco_file_have_the_reference_tools_numbers(tmp_path: Path) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    measured = score(truth, found)
    assert measured.scores[0].values == coco_from_files(truth, found).values
    assert [s.headline for s in measured.scores] == ["AP", "mAP"]
    one = score(truth, found, ["coco"], rules=Rules(iou_thresholds=(0.6,), max_detections=(2,)))
    assert one.scores[0].values == coco_from_files(truth, found, (0.6,), (2,)).values


@pytest.mark.parametrize("write", [voc_classes, voc_pictures, yolo, predict_json])
def test_every_format_has_the_same_numbers(write, tmp_path: Path) -> None:
    truth = coco_truth(tmp_path / "truth")
    wanted = score(truth, coco_results(tmp_path / "found.json"))
    got = score(
        truth, write(tmp_path / "found"), formats=Formats(predictions="predict-json" if write is predict_json else None)
    )
    for a, b in zip(got.scores, wanted.scores, strict=True):
        assert a.values == pytest.approx(b.values, nan_ok=True)


def test_pictures_need_not_be_there(tmp_path: Path) -> None:
    truth, bare = coco_truth(tmp_path / "truth"), coco_truth(tmp_path / "bare", pictures=False)
    found, said = yolo(tmp_path / "found"), []
    with_pictures = score(truth, found, report=tmp_path / "full.html")
    without = score(bare, found, report=tmp_path / "bare.html", say=said.append)
    assert without.scores[0].values == pytest.approx(with_pictures.scores[0].values, nan_ok=True)
    full, empty = ((tmp_path / name).read_text(encoding="utf-8") for name in ("full.html", "bare.html"))
    assert "Worst pictures" in full
    assert "data:image/jpeg" in full
    assert "Worst pictures" not in empty
    assert "What goes wrong" in empty
    assert any("3 of 3 pictures are not there" in line for line in said)


def test_silent_pictures_are_said_and_count_as_nothing_found(tmp_path: Path) -> None:
    truth, found, said = coco_truth(tmp_path / "truth"), yolo(tmp_path / "found"), []
    (found / "a.txt").unlink()
    less = score(truth, found, ["coco"], say=said.append)
    assert any("1 of 3 pictures have no prediction" in line for line in said)
    assert less.scores[0].per_class["dog"]["AP"] == 0
    assert "1 of 3" in less.facts["left out"]


def test_some_classes_alone(tmp_path: Path) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    whole, part = score(truth, found, ["coco"]), score(truth, found, ["coco"], rules=Rules(classes=("cat",)))
    assert list(part.scores[0].per_class) == ["cat"]
    assert part.scores[0].values["AP"] == pytest.approx(whole.scores[0].per_class["cat"]["AP"])
    assert "only cat" in part.scores[0].protocol
    assert score(truth, found, rules=Rules(classes=("cat",)), report=tmp_path / "page.html").report is not None
    with pytest.raises(UsageError, match="Did you mean cat"):
        score(truth, found, rules=Rules(classes=("cats",)))


def with_masks(root: Path) -> tuple[Path, Path]:
    truth = coco_truth(root / "truth")
    document = json.loads(truth.read_text())
    results = []
    for entry in document["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        size = next((i["height"], i["width"]) for i in document["images"] if i["id"] == entry["image_id"])
        mask = torch.zeros(size, dtype=torch.bool)
        mask[int(y) + 5 : int(y + h), int(x) : int(x + w)] = True
        result = {name: entry[name] for name in ("image_id", "category_id", "bbox")}
        results.append({**result, "score": 0.5, "segmentation": encode_rle(mask).to_coco()})
    truth.write_text(json.dumps(document))
    found = root / "found.json"
    found.write_text(json.dumps(results))
    return truth, found


def test_masks_are_scored_where_both_sides_have_them(tmp_path: Path) -> None:
    truth, found = with_masks(tmp_path)
    measured = score(truth, found, ["coco"], report=tmp_path / "page.html")
    assert len(measured.scores) == 2
    boxes, masks = (s.values["AP"] for s in measured.scores)
    assert boxes == pytest.approx(1)
    assert 0 < masks < boxes
    assert measured.scores[1].values == coco_from_files(truth, found, kind="masks").values
    only = score(truth, found, ["coco"], rules=Rules(kinds=("masks",)))
    assert [s.values["AP"] for s in only.scores] == [masks]
    with pytest.raises(UsageError, match="no keypoints"):
        score(truth, found, rules=Rules(kinds=("keypoints",)))
    with pytest.raises(UsageError, match="voc scores boxes"):
        score(truth, found, ["voc"], rules=Rules(kinds=("masks",)))


def maps(tmp_path: Path) -> tuple[Path, Path]:
    root, folder = map_folder(tmp_path / "truth"), tmp_path / "found"
    folder.mkdir()
    for file in (root / "labels").glob("*.png"):
        labels = np.roll(np.array(Image.open(file)), 3, 1)
        labels[labels == 255] = 1
        Image.fromarray(labels).save(folder / file.name)
    return root, folder


def test_label_maps_have_the_accumulators_numbers(tmp_path: Path) -> None:
    root, folder = maps(tmp_path)
    measured = score(root, folder, ["iou", "boundary", "trimap"], report=tmp_path / "page.html")
    scores = SegmentationScores(["sky", "road", "tree"])
    truth = truth_of(root)
    for i in range(3):
        labels = torch.from_numpy(np.array(Image.open(folder / f"{i}.png")))
        scores.update([Segmentation(labels, (24, 32))], [truth.target(i, {"label_map"})])
    assert measured.scores[0].values == scores.compute().values
    assert [s.headline for s in measured.scores] == ["mean_iou", "boundary_f", "mean_iou_1"]
    assert "road" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_ignored_and_chosen_classes_of_label_maps(tmp_path: Path) -> None:
    root, folder = maps(tmp_path)
    whole = score(root, folder, ["iou"]).scores[0]
    chosen = score(root, folder, ["iou"], rules=Rules(classes=("sky", "tree"))).scores[0]
    per_class = [whole.per_class[name]["iou"] for name in ("sky", "tree")]
    assert chosen.values["mean_iou"] == pytest.approx(np.mean(per_class))
    ignored = score(root, folder, ["iou"], rules=Rules(ignore=("sky",))).scores[0]
    assert sum(ignored.details["confusion"][0]) == 0
    assert ignored.per_class["road"]["iou"] > whole.per_class["road"]["iou"]
    assert ignored.values["mean_iou"] == pytest.approx(np.mean([ignored.per_class[n]["iou"] for n in ("road", "tree")]))


def test_a_map_of_the_wrong_size_is_named(tmp_path: Path) -> None:
    root, folder = maps(tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(folder / "1.png")
    with pytest.raises(DataError, match=r"images/1\.png.*\(5, 6\) predicted and \(24, 32\) true"):
        score(root, folder)


def test_panoptic_files(tmp_path: Path) -> None:
    truth, said = write_case(tmp_path)
    measured = score(truth, said, report=tmp_path / "page.html")
    assert measured.scores[0].values == panoptic_from_files(truth, said).values
    assert "PQ" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_classes_without_probabilities_have_no_numbers_of_probabilities(tmp_path: Path) -> None:
    for i, name in enumerate(("blue", "red")):
        (tmp_path / "truth" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "truth" / name / f"{i}.png")
    file = tmp_path / "found.csv"
    file.write_text("name,label\n0,blue\n1,blue\n")
    values = score(tmp_path / "truth", file, report=tmp_path / "page.html").scores[0].values
    assert values["top1"] == 0.5
    assert not {"log_loss", "calibration_error"} & set(values)
    file.write_text("name,blue,red\n0,0.9,0.1\n1,0.2,0.8\n")
    assert score(tmp_path / "truth", file).scores[0].values["log_loss"] > 0


def test_protocols_and_rules_that_do_not_fit(tmp_path: Path) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    for protocols, message in ((["coc"], "Did you mean coco"), (["iou"], "iou scores segmentation")):
        with pytest.raises(UsageError, match=message):
            score(truth, found, protocols)
    with pytest.raises(UsageError, match="--ignore-label"):
        score(truth, found, rules=Rules(ignore=("cat",)))
    with pytest.raises(UsageError, match="wanted segmentation"):
        score(truth, found, formats=Formats(task="segmentation"))
    with pytest.raises(UsageError, match="LVIS annotation file"):
        score(truth, yolo(tmp_path / "texts"), ["lvis"])
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in ("a", "b", "c.d"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / f"{name}.png")
    with pytest.raises(DataError, match="label_map"):
        score(truth, folder)


def test_a_rule_is_obeyed_or_said_never_passed_over(tmp_path: Path) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    said: list[str] = []
    for rules, flag in ((Rules(max_detections=(5,)), "--max-detections"), (Rules(iou_thresholds=(0.5, 0.7)), "--iou")):
        with pytest.raises(UsageError, match=flag):
            score(truth, found, ["coco", "voc"], rules=rules)
        scores = score(truth, found, rules=rules, say=said.append).scores
        assert [s.headline for s in scores] == ["AP"], "VOC is left out of the usual ones"
        assert any(line.startswith("voc is left out") and flag in line for line in said)
    both = score(truth, found, ["coco", "voc"], rules=Rules(iou_thresholds=(0.7,))).scores
    assert all("0.7" in s.protocol for s in both)
    assert PROTOCOLS["trimap"].refuses(Rules(classes=("cat",))) == "--classes"
    assert PROTOCOLS["iou"].refuses(Rules(classes=("cat",), ignore=("dog",))) is None


def test_every_protocol_that_gathers_can_be_made_merged_and_computed() -> None:
    for name, protocol in PROTOCOLS.items():
        if protocol.make is not None:
            made = [protocol.make(("a", "b"), Rules(), kind) for kind in protocol.kinds for _ in range(2)]
            made[0].merge(made[1])
            assert name in chosen_protocols(protocol.task, [name])
    assert [type(e).__name__ for e in evaluators("detection", ["a"])] == ["CocoScores", "VocScores"]
    with pytest.raises(UsageError, match="no evaluator"):
        evaluators("tasting", ["a"])


def test_label_maps_have_their_usual_protocols_and_those_of_a_report() -> None:
    usual = ["SegmentationScores", "BoundaryScores", "BoundaryIouScores"]
    made = [type(e).__name__ for e in evaluators("segmentation", ["a"])]
    assert made == usual
    assert [type(e).__name__ for e in evaluators("segmentation", ["a"], with_report=True)] == [*usual, "TrimapScores"]
    assert [type(e).__name__ for e in evaluators("segmentation", ["a"], ["trimap"], True)] == ["TrimapScores"]
    assert "trimap" not in chosen_protocols("segmentation")
    with pytest.raises(UsageError, match="lvis is taken from files alone"):
        evaluators("detection", ["a"], ["lvis"])


def test_evaluation_adds_masks_where_both_sides_have_them() -> None:
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    box = torch.tensor([[0.0, 0, 4, 4]])
    found = Detections(box, torch.tensor([0]), torch.tensor([0.9]), masks=masks, size_hw=(4, 4))
    target = Target(objects=Objects(box, torch.tensor([0]), masks=masks))
    made = finer_evaluators([found], [target], ["a"])
    assert [type(e) for e in made] == [CocoScores]
    made[0].update([found], [target])
    assert made[0].compute().value == pytest.approx(1)
    bare = Detections(box, torch.tensor([0]), torch.tensor([0.9]), size_hw=(4, 4))
    assert finer_evaluators([bare], [target], ["a"]) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    assert call("score", truth, found, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scores"][0]["values"]["AP"] == coco_from_files(truth, found).value
    page = tmp_path / "page.html"
    words = [
        "--iou",
        "0.5",
        truth,
        "--max-detections=5",
        found,
        "--protocol",
        "coco",
        "--report",
        page,
        "--kind",
        "boxes",
    ]
    assert call("score", *words) == 0
    captured = capsys.readouterr()
    assert "at most 5" in captured.out
    assert "read as coco" in captured.err
    assert page.is_file()
    assert call("score", "--list") == 0
    assert "voc07" in capsys.readouterr().out
    assert call("score", "--list", "--json") == 0
    assert "yolo" in json.loads(capsys.readouterr().out)["formats"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "TRUTH and PREDICTIONS"),
        (["TRUTH"], 2, "TRUTH and PREDICTIONS"),
        (["TRUTH", "/nowhere/at/all"], 3, "/nowhere/at/all"),
        (["/nowhere/at/all", "FOUND"], 3, "/nowhere/at/all"),
        (["TRUTH", "FOUND", "--protcol", "coco"], 2, "--protocol"),
        (["TRUTH", "FOUND", "--protocol", "cocoa"], 2, "coco"),
        (["TRUTH", "FOUND", "--iou", "half"], 2, "--iou"),
        (["TRUTH", "FOUND", "--kind", "boxen"], 2, "boxes, masks or keypoints"),
        (["TRUTH", "FOUND", "--split", "holdout"], 2, "holdout"),
        (["TRUTH", "FOUND", "--results-format", "yolo9"], 2, "yolo"),
        (["TRUTH", "FOUND", "--iou", "0.5", "--iou", "0.7"], 2, "twice"),
    ],
)
def test_mistakes_end_in_one_plain_line(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"TRUTH": coco_truth(tmp_path / "truth"), "FOUND": coco_results(tmp_path / "found.json")}
    assert call("score", *[there.get(word, word) for word in words]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_unknown_pictures_are_left_out_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    entries = json.loads(found.read_text())
    found.write_text(json.dumps([*entries, {**entries[0], "image_id": 999}]))
    assert call("score", truth, found) == 3
    assert "999" in capsys.readouterr().err
    assert call("score", truth, found, "--skip-unknown", "--json") == 0
    captured = capsys.readouterr()
    assert "1 results of 1 picture" in captured.err
    wanted = score(truth, coco_results(tmp_path / "whole.json")).scores[0].values
    assert json.loads(captured.out)["scores"][0]["values"]["AP"] == pytest.approx(wanted["AP"])


def test_a_data_set_scored_against_itself_is_perfect(tmp_path: Path) -> None:
    truth = coco_truth(tmp_path / "truth")
    dataset, folder = load(truth), tmp_path / "found"
    folder.mkdir()
    for i in range(len(dataset)):
        objects = dataset[i].target.objects
        assert objects is not None
        high, wide = dataset[i].size_hw
        lines = [
            f"{k} {(x1 + x2) / 2 / wide} {(y1 + y2) / 2 / high} {(x2 - x1) / wide} {(y2 - y1) / high} 1.0"
            for k, (x1, y1, x2, y2) in zip(objects.labels.tolist(), objects.boxes_xyxy.tolist(), strict=True)
        ]
        (folder / Path(dataset[i].name).with_suffix(".txt").name).write_text("\n".join(lines))
    measured = score(truth, folder)
    assert [s.value for s in measured.scores] == pytest.approx([1, 1])
