"""Keypoints scored as COCO scores them: equal to pycocotools, from files and from records, and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.coco_reference import reference, require_equal
from tests.metrics.mask_cases import as_records, keypoint_files

from bestiary.errors import DataError, RecordError, UsageError
from bestiary.metrics.coco import CocoScores, coco_from_files
from bestiary.metrics.matching import keypoint_overlaps, picture_cells
from bestiary.metrics.pose import object_keypoint_similarity
from bestiary.metrics.table import DetectionTable
from bestiary.predictions import Detections
from bestiary.records import Objects, Target

NAMES = ["AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"]


def written(folder: Path, truths: object, results: object) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truths, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("seed", range(8))
def test_ten_numbers_equal_the_reference(seed: int, tmp_path: Path) -> None:
    truths, results = keypoint_files(seed)
    mine = coco_from_files(*written(tmp_path, truths, results), kind="keypoints")
    assert list(mine.values) == NAMES
    require_equal(mine.values, reference(truths, results, "keypoints").stats)
    assert 0.05 < mine.value < 0.95
    assert "OKS" in mine.protocol
    assert "at most 20" in mine.protocol


@pytest.mark.parametrize("joints", [5, 14])
def test_other_joints_equal_the_reference(joints: int, tmp_path: Path) -> None:
    truths, results = keypoint_files(joints, joints=joints)
    sigmas = [0.03 + 0.01 * j for j in range(joints)]
    mine = coco_from_files(*written(tmp_path, truths, results), kind="keypoints", sigmas=sigmas)
    require_equal(mine.values, reference(truths, results, "keypoints", sigmas=sigmas).stats)
    with pytest.raises(DataError, match="one sigma a joint"):
        coco_from_files(tmp_path / "truth.json", tmp_path / "results.json", kind="keypoints")


def test_records_equal_the_reference(tmp_path: Path) -> None:
    """In float32: as precise as the records, so not to the last digit, but the same matches."""
    truths, results = keypoint_files(21)
    scores = CocoScores(["person"], kind="keypoints")
    scores.update(*as_records(truths, results, "keypoints"))
    require_equal(scores.compute().values, reference(truths, results, "keypoints").stats)


def test_without_num_keypoints_visible_ones_are_counted(tmp_path: Path) -> None:
    truths, results = keypoint_files(3)
    said = coco_from_files(*written(tmp_path, truths, results), kind="keypoints")
    for annotation in truths["annotations"]:
        del annotation["num_keypoints"]
    assert coco_from_files(*written(tmp_path, truths, results), kind="keypoints").values == said.values


def person(points: list[list[float]], area: float = 100.0) -> Target:
    box, one = torch.tensor([[10.0, 10, 20, 20]]), torch.zeros(1, dtype=torch.int64)
    return Target(objects=Objects(box, one, keypoints=torch.tensor([points]), areas=torch.tensor([area])))


def seen(points: list[list[float]], score: float = 0.5) -> Detections:
    box, one = torch.tensor([[10.0, 10, 20, 20]]), torch.zeros(1, dtype=torch.int64)
    return Detections(box, one, torch.tensor([score]), keypoints=torch.tensor([points]))


def similarity(prediction: Detections, target: Target, sigmas: list[float]) -> float:
    table = table_of(prediction, target, sigmas)
    # Also where the truth is ignored: its cell is formed here as the matching forms it.
    cells = picture_cells(DetectionTable(**{**vars(table), "truth_ignored": np.zeros(1, bool)}), np.arange(1))
    return float(keypoint_overlaps(table, cells)[0])


def table_of(prediction: Detections, target: Target, sigmas: list[float]) -> DetectionTable:
    scores = CocoScores(["person"], kind="keypoints", sigmas=sigmas)
    scores.update([prediction], [target])
    return scores.table()


def test_similarity_by_hand() -> None:
    """d = 5, area 100, sigma 0.1 and 0.2: exp(-25 / (2 x 100 x 0.04)) and exp(-25 / (2 x 100 x 0.16))."""
    off = seen([[13.0, 14, 1], [13.0, 14, 1]])
    wanted = [math.exp(-25 / 8), math.exp(-25 / 32)]
    both = person([[10.0, 10, 2], [10.0, 10, 1]])
    assert similarity(off, both, [0.1, 0.2]) == pytest.approx(sum(wanted) / 2)
    assert similarity(off, person([[0.0, 0, 0], [10.0, 10, 2]]), [0.1, 0.2]) == pytest.approx(wanted[1])


def test_without_annotated_joints_the_box_three_times_as_large_counts() -> None:
    nobody = person([[0.0, 0, 0]])
    assert similarity(seen([[0.0, 30, 1]]), nobody, [0.1]) == 1  # on its border: 10 - 10 and 20 + 10
    assert similarity(seen([[-3.0, 34, 1]]), nobody, [0.1]) == pytest.approx(math.exp(-25 / 8))
    assert table_of(seen([[0.0, 30, 1]]), nobody, [0.1]).truth_ignored.tolist() == [True]


def test_equal_to_the_pure_function() -> None:
    truths, results = keypoint_files(4)
    predictions, targets = as_records(truths, results, "keypoints")
    scores = CocoScores(["person"], kind="keypoints")
    scores.update(predictions, targets)
    table = scores.table()
    cells = picture_cells(table, np.arange(len(table.found_scores)))
    got, wanted = keypoint_overlaps(table, cells), []
    for cell in range(cells.starts.shape[1] - 1):
        rows = [
            source[numbers[cells.starts[k, cell] : cells.starts[k, cell + 1]]]
            for k, (source, numbers) in enumerate(((cells.found_rows, cells.dets), (cells.truth_rows, cells.gts)))
        ]
        assert table.joints is not None
        found, true = torch.from_numpy(table.joints.found[rows[0]]), torch.from_numpy(table.joints.truths[rows[1]])
        areas = torch.from_numpy(table.truth_areas[rows[1]])
        wanted.append(object_keypoint_similarity(found[:, None], true[None], areas[None]).flatten().numpy())
    np.testing.assert_allclose(got, np.concatenate(wanted), rtol=1e-12)


@pytest.mark.usefixtures("either_reader")
def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    scores = CocoScores(["person"], kind="keypoints")
    with pytest.raises(RecordError, match="1 joints"):
        scores.update([seen([[0.0, 0, 1]])], [person([[0.0, 0, 1]])])
    with pytest.raises(UsageError, match="positive"):
        CocoScores(["person"], kind="keypoints", sigmas=[0.1, 0.0])
    truths, results = keypoint_files(0)
    bad = [results[0], {**results[0], "keypoints": results[0]["keypoints"][:-1]}]
    with pytest.raises(DataError, match=r"entry 1: .*51 numbers"):
        coco_from_files(*written(tmp_path, truths, bad), kind="keypoints")
