"""Masks scored as COCO scores them: equal to pycocotools, from files and from records."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.coco_reference import reference, require_equal
from tests.metrics.mask_cases import as_records, mask_files

from bestiary.errors import DataError, RecordError, UsageError
from bestiary.geometry.masks import Rle, encode_rle, rle_iou
from bestiary.metrics.coco import CocoScores, coco_from_files
from bestiary.metrics.coco_files import read_table
from bestiary.metrics.errors import error_split
from bestiary.metrics.masks import RunTexts, texts_of_masks
from bestiary.metrics.matching import mask_overlaps, picture_cells
from bestiary.metrics.table import require_kind
from bestiary.predictions import Detections
from bestiary.records import Objects, Target


def written(folder: Path, truths: object, results: object) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truths, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def scored(truths: dict, results: list[dict]) -> CocoScores:
    scores = CocoScores([c["name"] for c in truths["categories"]], kind="masks")
    scores.update(*as_records(truths, results, "masks"))
    return scores


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("seed", range(8))
def test_twelve_numbers_equal_the_reference(seed: int, tmp_path: Path) -> None:
    truths, results = mask_files(seed)
    stats = reference(truths, results, "masks").stats
    mine = coco_from_files(*written(tmp_path, truths, results), kind="masks")
    require_equal(mine.values, stats)
    assert 0.05 < mine.value < 0.95
    assert "COCO masks" in mine.protocol
    require_equal(scored(truths, results).compute().values, stats)


def test_a_results_area_is_its_masks_even_if_it_has_a_box(tmp_path: Path) -> None:
    """The reference tool takes the box's if there is one, and then calls other things small."""
    truths, results = mask_files(1)
    boxed = [{**result, "bbox": [0, 0, 100, 100]} for result in results]
    mine = coco_from_files(*written(tmp_path, truths, boxed), kind="masks")
    require_equal(mine.values, reference(truths, results, "masks").stats)


def test_overlaps_equal_those_of_pixels(tmp_path: Path) -> None:
    truths, results = mask_files(3)
    predictions, targets = as_records(truths, results, "masks")
    table = scored(truths, results).table()
    cells = picture_cells(table, np.arange(len(table.found_scores)))
    overlaps = mask_overlaps(table, cells)
    image = max(range(len(targets)), key=lambda i: len(predictions[i]) * len(targets[i].objects or []))
    objects, found = targets[image].objects, predictions[image].masks
    assert objects is not None
    assert objects.masks is not None
    assert found is not None
    counts = ~torch.as_tensor(objects.crowd)
    wanted = rle_iou([encode_rle(m) for m in found], [encode_rle(m) for m in objects.masks[counts]]).numpy()
    cell = next(
        c for c in range(cells.starts.shape[1] - 1)
        if table.found_images[cells.found_rows[cells.dets[cells.starts[0, c]]]] == image
    ) if len(found) else 0  # fmt: skip
    got = overlaps[cells.starts[2, cell] : cells.starts[2, cell + 1]].reshape(wanted.shape)
    np.testing.assert_array_equal(got, wanted)


def test_half_covered_by_hand() -> None:
    """IoU exactly 1/2: found at the first of ten thresholds. A crowd divides by the found mask alone."""
    whole, half = torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    whole[:, 2:6], half[:, 2:4] = True, True
    box = torch.tensor([[0.0, 2, 8, 6]])
    one = torch.zeros(1, dtype=torch.int64)
    found = Detections(box, one, torch.tensor([0.5]), masks=half, size_hw=(8, 8))
    for crowd, wanted in ((False, 0.1), (True, math.nan)):
        scores = CocoScores(["c"], kind="masks")
        scores.update([found], [Target(objects=Objects(box, one, masks=whole, crowd=torch.tensor([crowd])))])
        assert scores.compute().value == pytest.approx(wanted, nan_ok=True)
        assert scores.table().found_areas.tolist() == [16]
        assert scores.table().truth_areas.tolist() == [32]


def test_merged_shares_equal_the_whole_and_nothing_is_kept_in_pixels() -> None:
    truths, results = mask_files(5)
    predictions, targets = as_records(truths, results, "masks")
    first, second = (CocoScores(["c1", "c2", "c3"], kind="masks") for _ in range(2))
    first.update(predictions[:4], targets[:4])
    second.update(predictions[4:], targets[4:])
    first.merge(second)
    assert first.compute().to_dict() == scored(truths, results).compute().to_dict()
    table = first.table()
    assert table.masks is not None
    assert table.masks.found.text.nbytes < 200 * len(table.found_scores)
    with pytest.raises(RecordError, match="merge"):
        first.merge(CocoScores(["c1", "c2", "c3"]))


def test_the_error_split_goes_by_masks(tmp_path: Path) -> None:
    """Boxes alike, masks apart: a hit by boxes, nothing there by masks."""
    left, right = torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    left[:, :, :4], right[:, :, 4:] = True, True
    box, one = torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(1, dtype=torch.int64)
    found = Detections(box, one, torch.tensor([0.5]), masks=right, size_hw=(8, 8))
    target = Target(objects=Objects(box, one, masks=left))
    counts = {}
    for kind in ("boxes", "masks"):
        scores = CocoScores(["c"], kind=kind)
        scores.update([found], [target])
        split = error_split(scores.table())
        counts[kind] = {name: count for name, count in split.counts.items() if count}
        assert kind in split.protocol
    assert counts == {"boxes": {}, "masks": {"background": 1, "missed": 1}}
    truths, results = mask_files(6)
    table = read_table(*written(tmp_path, truths, results), "masks")
    mine = coco_from_files(tmp_path / "truth.json", tmp_path / "results.json", kind="masks")
    assert error_split(table).ap50 == pytest.approx(mine.values["AP50"], abs=1e-12)


def test_texts_measure_as_their_pixels_do() -> None:
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((20, 13, 17)) < rng.random((20, 1, 1)))
    masks[0], masks[1] = False, True
    texts = texts_of_masks(masks.transpose(1, 2).contiguous().transpose(1, 2))
    mine = RunTexts.joined(texts, [(13, 17)] * 20)
    assert mine.areas.tolist() == masks.sum((1, 2)).tolist()
    for row, mask in enumerate(masks):
        assert encode_rle(mask).to_coco()["counts"].encode() == texts[row].tobytes()
        x, y, w, h = mine.boxes_xywh[row]
        assert [x, y, x + w, y + h] == encode_rle(mask).box_xyxy().tolist()
    some = mine.take(np.array([3, 1, 3]))
    assert some.areas.tolist() == mine.areas[[3, 1, 3]].tolist()
    assert some.text.tobytes() == b"".join(texts[i].tobytes() for i in (3, 1, 3))


def test_runs_of_no_pixels_are_read() -> None:
    """Not canonical, but legal: 3 zeros, no one, 2 zeros, 4 ones, none."""
    mask = Rle((3, 3), np.array([3, 0, 2, 4, 0], np.int32))
    text = np.frombuffer(mask.to_coco()["counts"].encode(), np.uint8)
    mine = RunTexts.joined([text], [(3, 3)])
    assert mine.areas.tolist() == [4]
    assert mine.boxes_xywh.tolist() == [[1, 0, 2, 3]]


@pytest.mark.usefixtures("either_reader")
def test_broken_masks_are_named(tmp_path: Path) -> None:
    truths, results = mask_files(2)
    shape = results[0]["segmentation"]

    def with_result(segmentation: object) -> list[dict]:
        return [results[0], {**results[0], "segmentation": segmentation}]

    cases = {
        "entry 1: got a mask of 5 x 5 pixels": with_result({"size": [5, 5], "counts": "09"}),
        "entry 1: .*wanted 90 x 120": with_result({**shape, "counts": "09"}),
        "entry 1: .*characters": with_result({**shape, "counts": "0 9"}),
        "entry 1: got segmentation": with_result({**shape, "counts": "0\u00ff9"}),
        "entry 1: .*within a number": with_result({**shape, "counts": "o"}),
        "entry 1: .*polygons, or size": with_result(None),
        "no 'segmentation'": [{k: v for k, v in results[0].items() if k != "segmentation"}],
        "entry 1: .*three points": with_result([[1, 2, 3, 4]]),
    }
    for message, bad in cases.items():
        with pytest.raises(DataError, match=message):
            coco_from_files(*written(tmp_path, truths, bad), kind="masks")
    bare = {**truths, "images": [{"id": image["id"]} for image in truths["images"]]}
    with pytest.raises(DataError, match="height and width"):
        coco_from_files(*written(tmp_path, bare, results), kind="masks")


def test_records_that_do_not_fit_are_refused() -> None:
    box, one = torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(1, dtype=torch.int64)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    bare, masked = Detections(box, one, torch.ones(1)), Detections(box, one, torch.ones(1), masks=mask)
    scores = CocoScores(["c"], kind="masks")
    with pytest.raises(RecordError, match="predicted masks"):
        scores.update([bare], [Target(objects=Objects(box, one, masks=mask))])
    with pytest.raises(RecordError, match="annotated masks"):
        scores.update([masked], [Target(objects=Objects(box, one))])
    with pytest.raises(RecordError, match="as large as"):
        scores.update([masked], [Target(objects=Objects(box, one, masks=mask[:, :4]))])
    scores.update([masked], [Target(objects=Objects.empty())])
    assert math.isnan(scores.compute().value)
    with pytest.raises(UsageError, match="boxes, masks or keypoints"):
        require_kind("mask", None)
