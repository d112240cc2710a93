"""`predict --json` lines: what a prediction writes is read back whole, and what is broken in them is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.results.results_scenes import SIZES_HW, coco_truth, predict_json, truth_of

from bestiary.data.results.opening import read_results, recognise
from bestiary.errors import DataError
from bestiary.predictions import Detections

CATEGORIES = ("cat", "dog")


def detections(name: str, count: int, joints: int = 3) -> Detections:
    """Made-up objects with masks and joints, best first."""
    rng = torch.Generator().manual_seed(count)
    size_hw = SIZES_HW[name]
    corners = torch.rand(count, 2, 2, generator=rng) * torch.tensor(size_hw[::-1])
    return Detections(
        torch.cat([corners.amin(1), corners.amax(1)], 1),
        torch.randint(0, 2, (count,), generator=rng),
        torch.rand(count, generator=rng).sort(descending=True).values,
        masks=torch.rand(count, *size_hw, generator=rng) < 0.3,
        keypoints=torch.rand(count, joints, 3, generator=rng) * torch.tensor([size_hw[1], size_hw[0], 1.0]),
        size_hw=size_hw,
        categories=CATEGORIES,
        name=f"{name}.png",
    )


@pytest.mark.parametrize("as_lines", [True, False])
def test_what_is_written_is_read_back(as_lines: bool, tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    written = {p.name: p for p in (detections("a", 4), detections("b", 0), detections("c.d", 1))}
    entries = [prediction.to_dict() for prediction in written.values()]
    file = tmp_path / "found.json"
    file.write_text("\n".join(map(json.dumps, entries)) if as_lines else json.dumps(entries))
    assert recognise(file, truth) == "predict-json"
    results = read_results(file, truth)
    assert results.kinds == {"boxes", "masks", "keypoints"}
    assert results.notes == []
    for i, picture in enumerate(truth.pictures):
        got, wanted = results.predict(i), written[picture.name]
        assert isinstance(got, Detections)
        assert torch.equal(got.labels, wanted.labels)
        torch.testing.assert_close(got.boxes_xyxy, wanted.boxes_xyxy, atol=6e-4, rtol=0)
        torch.testing.assert_close(got.scores, wanted.scores, atol=6e-7, rtol=0)
        assert got.masks is not None
        assert wanted.masks is not None
        assert torch.equal(got.masks, wanted.masks)
        assert got.keypoints is not None
        assert wanted.keypoints is not None
        torch.testing.assert_close(got.keypoints, wanted.keypoints, atol=6e-4, rtol=0)


def test_a_picture_that_nothing_is_said_of_is_of_the_same_kinds(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    file = tmp_path / "found.json"
    file.write_text(json.dumps(detections("a", 2).to_dict()))
    results = read_results(file, truth)
    assert len(results.answered) == 1
    silent = next(i for i, picture in enumerate(truth.pictures) if picture.name == "b.png")
    found = results.predict(silent)
    assert isinstance(found, Detections)
    assert found.masks is not None
    assert found.masks.shape == (0, *SIZES_HW["b"])
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 3, 3)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"score": None}, "score None"),
    ({"score": "high"}, "score 'high'"),
    ({"box_xyxy": [1, 2, 3]}, "wanted x1, y1, x2, y2"),
    ({"box_xyxy": [1, 2, "x", 4]}, "wanted x1, y1, x2, y2"),
    ({"box_xyxy": [5, 2, 3, 4]}, "the box"),
    ({"mask_rle": [[1, 2, 3, 4]]}, "wanted run lengths"),
    ({"keypoints": 7}, "keypoints that is no list"),
    ({"keypoints": [[1, 2]]}, "no lists of x, y, score"),
    ({"keypoints": [[1, 2, "sure"]]}, "three numbers a joint"),
    ({"keypoints": []}, "three numbers a joint"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_broken_objects_are_named_by_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    file = predict_json(tmp_path / "found.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["objects"][0] |= change
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=message) as raised:
        read_results(file, truth)
    assert "found.jsonl:2" in str(raised.value)


def test_broken_lines_are_named(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    file = tmp_path / "found.jsonl"
    whole = {"name": "a.png", "size_hw": [40, 60]}
    for entry, message in (
        (whole | {"objects": {"cat": 1}}, "objects that is no list"),
        (whole | {"objects": ["cat"]}, "no 'category'"),
        (whole | {"top": [{"category": "cat", "prob": "most"}]}, "the prob 'most'"),
        ([7], "got 7, wanted an object"),
    ):
        file.write_text(json.dumps(entry))
        with pytest.raises(DataError, match=message):
            read_results(file, truth, "predict-json")


def test_masks_and_joints_must_fit_when_they_are_asked_for(tmp_path: Path) -> None:
    truth = truth_of(coco_truth(tmp_path / "truth"))
    file = tmp_path / "found.json"
    good = detections("a", 2).to_dict()["objects"]
    for change, message in (
        ({"mask_rle": {"size": [60, 40], "counts": good[0]["mask_rle"]["counts"]}}, r"size \(60, 40\)"),
        ({"mask_rle": {"size": [40, 60], "counts": "~"}}, "mask cannot be read"),
        ({"mask_rle": None}, "masks for 1 of 2"),
        ({"keypoints": [[1, 2, 0.5]]}, "as many for each"),
        ({"keypoints": [[1, float("nan"), 0.5]] * 3}, "not finite"),
    ):
        objects = [good[0] | change, good[1]]
        file.write_text(json.dumps({"name": "a.png", "size_hw": [40, 60], "objects": objects}))
        results = read_results(file, truth)
        with pytest.raises(DataError, match=message):
            results.predict(next(iter(results.answered)))
