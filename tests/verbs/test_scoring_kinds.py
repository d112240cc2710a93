"""`score` beyond boxes: LVIS's files, masks and joints, from the command line to the reference tools' numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.results.results_scenes import coco_results, coco_truth, truth_of, yolo
from tests.metrics.coco_reference import reference, require_equal
from tests.metrics.lvis_cases import federated_case
from tests.metrics.mask_cases import SIZE, keypoint_files, mask_files
from tests.metrics.test_lvis import GOLDEN

from bestiary.cli.main import main
from bestiary.data.results.opening import read_results
from bestiary.errors import DataError, UsageError
from bestiary.metrics.coco import coco_from_files
from bestiary.metrics.lvis import lvis_from_files
from bestiary.verbs.protocols import Rules
from bestiary.verbs.scoring import score


def written(folder: Path, truths: dict, results: list[dict]) -> tuple[Path, Path]:
    """The two files, the pictures named and measured as a data set's are; large enough for every joint."""
    joints = any("keypoints" in annotation for annotation in truths["annotations"])
    high, wide = (800, 800) if joints else SIZE
    for image in truths["images"]:
        image.update(file_name=f"{image['id']:03d}.jpg", height=high, width=wide)
    folder.mkdir(exist_ok=True)
    paths = folder / "truth.json", folder / "found.json"
    for path, content in zip(paths, (truths, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def predict_lines(truth: Path, found: Path) -> Path:
    """The same results as `predict --json` prints them."""
    joined = truth_of(truth)
    results = read_results(found, joined)
    lines = [json.dumps(results.predict(i).to_dict()) for i in range(len(joined))]
    file = found.with_suffix(".jsonl")
    file.write_text("\n".join(lines) + "\n")
    return file


def federated_masks(seed: int) -> tuple[dict, list[dict]]:
    """Masks whose pictures were searched for c1, and whatever is annotated in them."""
    truths, results = mask_files(seed)
    for image in truths["images"]:
        there = {a["category_id"] for a in truths["annotations"] if a["image_id"] == image["id"]}
        image.update(neg_category_ids=sorted({1} - there), not_exhaustive_category_ids=sorted({2} & there))
    for category, frequency in zip(truths["categories"], "rcf", strict=True):
        category["frequency"] = frequency
    return truths, results


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[list[dict[str, Any]], str]:
    """The scores that the command prints as JSON, and what it says beside."""
    with pytest.raises(SystemExit) as stop:
        main(["score", *map(str, words), "--json"])
    captured = capsys.readouterr()
    assert not stop.value.code, captured.err
    return json.loads(captured.out)["scores"], captured.err


@pytest.mark.parametrize("words", [["--protocol", "lvis"], []])
def test_lvis_files_by_the_command(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = written(tmp_path, *federated_case(0))
    scores, said = run(capsys, *files, *words)
    assert len(scores) == 1
    assert scores[0]["values"] == lvis_from_files(*files).values
    assert list(scores[0]["values"].values()) == pytest.approx(GOLDEN[0], abs=1e-12)
    assert ("scored by lvis" in said) == (not words), "chosen by itself, and said"


def test_lvis_files_name_their_pictures_by_url(tmp_path: Path) -> None:
    truths, results = federated_case(0)
    files = written(tmp_path, truths, results)
    for image in truths["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
    files[0].write_text(json.dumps(truths))
    assert score(*files).scores[0].values == lvis_from_files(*files).values
    assert [p.name for p in truth_of(files[0]).pictures][:2] == ["val2017/001.jpg", "val2017/002.jpg"]


def test_lvis_has_one_limit_and_no_other_rule(tmp_path: Path) -> None:
    files = written(tmp_path, *federated_case(1))
    limited = score(*files, rules=Rules(max_detections=(3,))).scores[0]
    assert limited.values == lvis_from_files(*files, limit=3).values
    assert limited.values["AR3"] < lvis_from_files(*files).values["AR300"]
    for rules, flag in (
        (Rules(max_detections=(3, 5)), "--max-detections"),
        (Rules(iou_thresholds=(0.5,)), "--iou"),
        (Rules(classes=("c0",)), "--classes"),
    ):
        with pytest.raises(UsageError, match=f"{flag}: lvis has no such rule"):
            score(*files, rules=rules)
    with pytest.raises(UsageError, match="at least 1"):
        score(*files, rules=Rules(max_detections=(0,)))
    named = score(*files, ["coco"]).scores
    assert named[0].values == coco_from_files(*files).values


def test_lvis_of_predictions_in_any_format(tmp_path: Path) -> None:
    truth, found = written(tmp_path, *federated_case(2))
    wanted = lvis_from_files(truth, found)
    lines = predict_lines(truth, found)
    measured = score(truth, lines, report=tmp_path / "page.html")
    assert measured.scores[0].values == pytest.approx(wanted.values, abs=1e-12)
    assert measured.scores[0].details["detections"] == wanted.details["detections"]
    assert "What goes wrong" not in (tmp_path / "page.html").read_text(encoding="utf-8"), "no alarm that nobody judged"


def test_lvis_masks(tmp_path: Path) -> None:
    truth, found = written(tmp_path, *federated_masks(5))
    wanted = lvis_from_files(truth, found, "masks").values
    assert 0 < wanted["AP"] < 1
    assert score(truth, found).scores[0].values == wanted
    lines = score(truth, predict_lines(truth, found), rules=Rules(kinds=("masks",)))
    assert lines.scores[0].values == pytest.approx(wanted, abs=1e-12)


def test_the_list_says_what_lvis_and_predict_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["score", "--list", "--json"])
    listed = json.loads(capsys.readouterr().out)
    about = {protocol["name"]: protocol["about"] for protocol in listed["protocols"]}
    assert "boxes, masks; usual where the truth is an LVIS file" in about["lvis"]
    assert "boxes, masks, keypoints" in about["coco"]
    assert "with masks and keypoints" in listed["formats"]["predict-json"]


def test_lvis_wants_its_own_truth(tmp_path: Path) -> None:
    truth, found = coco_truth(tmp_path / "truth"), coco_results(tmp_path / "found.json")
    for predictions in (found, yolo(tmp_path / "texts")):
        with pytest.raises(UsageError, match="wants an LVIS annotation file"):
            score(truth, predictions, ["lvis"])


@pytest.mark.parametrize("words", [["--kind", "keypoints"], ["--protocol", "coco"], []])
def test_keypoints_by_the_command(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, results = keypoint_files(3)
    files = written(tmp_path, truths, results)
    scores, said = run(capsys, *files, *words, "--report", tmp_path / "page.html")
    assert len(scores) == 1
    require_equal(scores[0]["values"], reference(truths, results, "keypoints").stats)
    assert scores[0]["values"] == coco_from_files(*files, kind="keypoints").values
    assert ("voc is left out: voc scores boxes" in said) == ("coco" not in words)
    assert "What goes wrong" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_joints_and_masks_that_predict_printed(tmp_path: Path) -> None:
    truths, results = keypoint_files(7)
    files = written(tmp_path / "joints", truths, results)
    lines = score(files[0], predict_lines(*files), rules=Rules(kinds=("keypoints",)))
    require_equal(lines.scores[0].values, reference(truths, results, "keypoints").stats)
    truths, results = mask_files(4)
    files = written(tmp_path / "masks", truths, results)
    both = score(files[0], predict_lines(*files), ["coco"])
    assert [s.protocol.split(",")[0] for s in both.scores] == ["COCO boxes", "COCO masks"]
    require_equal(both.scores[1].values, reference(truths, results, "masks").stats)


def test_pictures_where_nothing_was_found_are_scored(tmp_path: Path) -> None:
    """One says so, of another nothing is said: both hold no mask, and no mask is found in them."""
    truths, results = mask_files(4)
    bare = [r for r in results if r["image_id"] > 2]
    truth, found = written(tmp_path, truths, bare)
    lines = predict_lines(truth, found)
    kept = lines.read_text().splitlines()
    assert json.loads(kept[0])["objects"] == []
    lines.write_text("\n".join([kept[0], *kept[2:]]))
    said: list[str] = []
    masks = score(truth, lines, rules=Rules(kinds=("masks",)), say=said.append).scores[0]
    assert any("1 of 10 pictures have no prediction" in line for line in said)
    require_equal(masks.values, reference(truths, bare, "masks").stats)


def test_sigmas_of_other_joints(tmp_path: Path) -> None:
    truths, results = keypoint_files(5, joints=5)
    files, sigmas = written(tmp_path, truths, results), (0.05, 0.06, 0.07, 0.08, 0.09)
    with pytest.raises(DataError, match="one sigma a joint"):
        score(*files)
    wanted = reference(truths, results, "keypoints", sigmas=sigmas).stats
    require_equal(score(*files, rules=Rules(sigmas=sigmas)).scores[0].values, wanted)
    lines = score(files[0], predict_lines(*files), rules=Rules(kinds=("keypoints",), sigmas=sigmas))
    require_equal(lines.scores[0].values, wanted)
    with pytest.raises(SystemExit) as stop:
        main(["score", *map(str, files), "--sigmas", ",".join(map(str, sigmas))])
    assert stop.value.code == 0
    boxes = coco_truth(tmp_path / "boxes"), coco_results(tmp_path / "boxes.json")
    with pytest.raises(UsageError, match=r"--sigmas: detections without keypoints"):
        score(*boxes, rules=Rules(sigmas=sigmas))


def test_protocols_of_other_kinds_are_refused_where_they_are_named(tmp_path: Path) -> None:
    truth, found = written(tmp_path, *federated_masks(5))
    with pytest.raises(UsageError, match="voc scores boxes, not masks"):
        score(truth, found, ["coco", "voc"])
    only = score(truth, found, ["coco"], rules=Rules(kinds=("masks",)))
    assert only.scores[0].values == coco_from_files(truth, found, kind="masks").values
