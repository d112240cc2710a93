"""Federated truths: numbers of another implementation, hand-worked pictures, and COCO's where every picture was
searched for everything."""

import json
import math
from pathlib import Path

import pytest
from tests.metrics.lvis_cases import federated_case

from bestiary.errors import DataError, UsageError
from bestiary.metrics.coco import coco_from_files
from bestiary.metrics.lvis import is_federated, lvis_from_entries, lvis_from_files
from bestiary.metrics.scores import Scores

GOLDEN = {
    0: [0.20995816820693058, 0.40814141853745817, 0.18588222146390462, 0.22125962596259624, 0.27521311059677395,
        0.16427392739273927, 0.21494604474183682, 0.18850031706467352, 0.2264281428142814, 0.3298809523809524,
        0.23541666666666666, 0.39392857142857146, 0.2888888888888889],
    1: [0.23777980225683915, 0.4354048716289313, 0.2349257587617027, 0.3463468489706113, 0.2614026402640264,
        0.30366336633663366, 0.27424816749145065, 0.2289368062533467, 0.2101544330257201, 0.38301267875571277,
        0.3753357753357753, 0.4004858104858105, 0.4166666666666667],
    2: [0.2526198860704463, 0.5021223459342272, 0.19546009546009543, 0.29487970225593985, 0.24553858957324304,
        0.1762376237623762, 0.24256176498939658, 0.24325328216743017, 0.27204461105451205, 0.3518567251461988,
        0.3470238095238095, 0.30886363636363634, 0.18333333333333332],
}  # fmt: skip
"""hotcoco 1.3.0, `COCOeval(..., lvis_style=True)`: AP, AP50, AP75, s, m, l, r, c, f, AR, s, m, l."""


def score(folder: Path, truths: dict, results: list[dict], **settings: object) -> Scores:
    for name, content in (("truth", truths), ("results", results)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return lvis_from_files(folder / "truth.json", folder / "results.json", **settings)  # type: ignore[arg-type]


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("seed", list(GOLDEN))
def test_equal_to_another_implementation(seed: int, tmp_path: Path) -> None:
    values = score(tmp_path, *federated_case(seed)).values
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "APr", "APc", "APf"]
    assert list(values) == [*names, "AR300", "AR_small", "AR_medium", "AR_large"]
    assert list(values.values()) == pytest.approx(GOLDEN[seed], abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_searched_for_everything_it_is_coco(seed: int, tmp_path: Path) -> None:
    truths, results = federated_case(seed)
    there = {(a["image_id"], a["category_id"]) for a in truths["annotations"]}
    for image in truths["images"]:
        image["not_exhaustive_category_ids"] = []
        image["neg_category_ids"] = [k for k in range(1, 7) if (image["id"], k) not in there]
    federated = score(tmp_path, truths, results).values
    coco = coco_from_files(tmp_path / "truth.json", tmp_path / "results.json", max_detections=[300]).values
    assert {name: federated[name] for name in coco} == pytest.approx(coco, abs=1e-12)


def picture(denied: list[int], incomplete: list[int]) -> dict:
    """One picture with one c1, of three categories, one in each group."""
    return {
        "images": [{"id": 1, "neg_category_ids": denied, "not_exhaustive_category_ids": incomplete}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500}],
        "categories": [{"id": k, "name": f"c{k}", "frequency": "rcf"[k - 1]} for k in (1, 2, 3)],
    }


def said(category: int, score: float, at: int = 0) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": [at, 0, 50, 50], "score": score}


def test_by_hand(tmp_path: Path) -> None:
    alarm_then_hit = [said(1, 0.9, at=200), said(1, 0.8)]
    assert score(tmp_path, picture([], []), alarm_then_hit).value == pytest.approx(0.5)
    # Perhaps one that was not annotated: forgiven.
    assert score(tmp_path, picture([], [1]), alarm_then_hit).value == pytest.approx(1)
    values = score(tmp_path, picture([], []), alarm_then_hit).values
    assert values["APr"] == pytest.approx(0.5)
    assert math.isnan(values["APc"])


def test_what_was_not_searched_for_is_left_out(tmp_path: Path) -> None:
    results = [said(1, 0.8), said(2, 0.9), said(3, 0.9)]
    assert score(tmp_path, picture([], []), results).details["detections"] == 1
    assert score(tmp_path, picture([3], []), results).details["detections"] == 2
    assert score(tmp_path, picture([3], []), results).value == pytest.approx(1)


def test_the_limit_is_of_the_picture_before_anything_is_left_out(tmp_path: Path) -> None:
    results = [said(2, 0.9), said(3, 0.9), said(1, 0.8)]
    assert score(tmp_path, picture([], []), results, limit=3).value == pytest.approx(1)
    assert score(tmp_path, picture([], []), results, limit=2).value == 0
    # Of equals the earlier stay.
    tied = [said(1, 0.9), said(3, 0.9)]
    assert score(tmp_path, picture([], []), tied, limit=1).value == pytest.approx(1)
    assert score(tmp_path, picture([], []), tied[::-1], limit=1).value == 0


def test_a_crowd_is_an_object_like_others(tmp_path: Path) -> None:
    truths = picture([], [])
    truths["annotations"][0]["iscrowd"] = 1
    assert score(tmp_path, truths, [said(1, 0.9)]).value == pytest.approx(1)


def test_results_that_stand_in_no_file(tmp_path: Path) -> None:
    truths, results = federated_case(0)
    wanted = score(tmp_path, truths, results, limit=4).values
    assert lvis_from_entries(tmp_path / "truth.json", results, limit=4).values == wanted
    with pytest.raises(DataError, match=r"found.txt, entry 1: got image_id 99"):
        lvis_from_entries(tmp_path / "truth.json", [results[0], {**results[1], "image_id": 99}], where="found.txt")
    with pytest.raises(UsageError, match="at least 1"):
        score(tmp_path, truths, results, limit=0)


def test_a_federated_truth_is_told_from_others(tmp_path: Path) -> None:
    truths, results = federated_case(0)
    score(tmp_path, truths, results)
    assert is_federated(tmp_path / "truth.json")
    assert not is_federated(tmp_path / "results.json")
    assert not is_federated(tmp_path / "nowhere.json")
    (tmp_path / "empty.json").touch()
    assert not is_federated(tmp_path / "empty.json")


def test_files_without_the_lists_are_refused(tmp_path: Path) -> None:
    for message, breaking in {
        "neg_category_ids": lambda t: t["images"][0].pop("neg_category_ids"),
        "frequency": lambda t: t["categories"][1].pop("frequency"),
        "r, c or f": lambda t: t["categories"][1].update(frequency="x"),
        "ids of categories": lambda t: t["images"][0].update(neg_category_ids=[9]),
        r"with \[3\], wanted ids": lambda t: t["images"][0].update(neg_category_ids=[[3]]),
        r"image 0: got the id \[1\]": lambda t: t["images"][0].update(id=[1]),
        r"category 2: got the id \[3\]": lambda t: t["categories"][2].update(id=[3]),
    }.items():
        truths = picture([], [])
        breaking(truths)
        with pytest.raises(DataError, match=message):
            score(tmp_path, truths, [said(1, 0.9)])
