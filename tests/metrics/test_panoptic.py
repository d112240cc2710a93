import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.panoptic_cases import blocks, write_case

from bestiary.errors import DataError, RecordError, UsageError
from bestiary.metrics.panoptic import PanopticScores, Segments, panoptic_tallies, quality
from bestiary.metrics.panoptic_files import panoptic_from_files
from bestiary.records import Objects

FOREIGN = {
    "PQ": 0.24886045670645268,
    "SQ": 0.8814776499715463,
    "RQ": 0.2854549808429119,
    "PQ_things": 0.32842752361305005,
    "SQ_things": 0.8598740062367989,
    "RQ_things": 0.3819444444444444,
    "PQ_stuff": 0.1692933897998553,
    "SQ_stuff": 0.9030812937062938,
    "RQ_stuff": 0.1889655172413793,
}
"""hotcoco 1.3.0 of `write_case(folder)`; its numbers are panopticapi's."""


def segments(ids: list[list[int]], labels: dict[int, int], crowd: tuple[int, ...] = ()) -> Segments:
    marks = np.array([number in crowd for number in labels], bool)
    listed, kinds = np.array(list(labels), np.int64), np.array(list(labels.values()), np.int64)
    return Segments(np.array(ids, np.int32), listed, kinds, marks, "made.png")


def naive(truth: Segments, said: Segments, num_classes: int) -> np.ndarray:
    """The definition, pair by pair."""
    tallies = np.zeros((num_classes, 4))
    crowds = dict(zip(truth.segment_ids.tolist(), (truth.crowd if truth.crowd is not None else []), strict=True))
    true_labels = dict(zip(truth.segment_ids.tolist(), truth.labels.tolist(), strict=True))
    said_labels = dict(zip(said.segment_ids.tolist(), said.labels.tolist(), strict=True))
    known = truth.ids != 0
    taken_truths, taken_said = set(), set()
    for t, label in true_labels.items():
        for s, other in said_labels.items():
            a, b = truth.ids == t, (said.ids == s) & known
            iou = (a & b).sum() / (a | b).sum()
            if label == other and not crowds[t] and iou > 0.5:
                tallies[label, :2] += (iou, 1)
                taken_truths.add(t)
                taken_said.add(s)
    for t, label in true_labels.items():
        tallies[label, 3] += t not in taken_truths and not crowds[t]
    for s, label in said_labels.items():
        mask = said.ids == s
        excused = ~known & mask
        for t, other in true_labels.items():
            if crowds[t] and other == label:
                excused |= mask & (truth.ids == t)
        tallies[label, 2] += s not in taken_said and not excused.sum() / mask.sum() > 0.5
    return tallies


def test_worked_by_hand() -> None:
    truth = segments([[1, 1, 1, 1, 2, 2]], {1: 0, 2: 1})
    said = segments([[8, 8, 8, 9, 9, 9]], {8: 0, 9: 1})
    # 3 of 4, and 2 of 3
    assert panoptic_tallies(truth, said, 2).tolist() == [[0.75, 1, 0, 0], [pytest.approx(2 / 3), 1, 0, 0]]
    scores = PanopticScores(["thing", "stuff"], [True, False])
    scores.update([said], [truth])
    values = scores.compute().values
    assert values["PQ"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert (values["RQ"], values["SQ_things"], values["SQ_stuff"]) == (1, 0.75, pytest.approx(2 / 3))


def test_an_iou_of_exactly_a_half_is_no_match() -> None:
    truth, said = segments([[1, 1, 1, 1]], {1: 0}), segments([[1, 1, 0, 0]], {1: 0})
    assert panoptic_tallies(truth, said, 1).tolist() == [[0, 0, 1, 1]]
    closer = segments([[1, 1, 1, 0]], {1: 0})
    assert panoptic_tallies(truth, closer, 1).tolist() == [[0.75, 1, 0, 0]]


def test_void_is_not_held_against_a_prediction() -> None:
    truth = segments([[1, 1, 0, 0, 0, 0]], {1: 0})
    assert panoptic_tallies(truth, segments([[1, 1, 1, 1, 1, 1]], {1: 0}), 1).tolist() == [[1, 1, 0, 0]]
    # A segment of which exactly half lies on void is still a false alarm, one with more is not.
    half = segments([[0, 5, 5, 0, 0, 0]], {5: 0})
    assert panoptic_tallies(truth, half, 1).tolist() == [[0, 0, 1, 1]]
    more = segments([[0, 5, 5, 5, 0, 0]], {5: 1})
    assert panoptic_tallies(truth, more, 2)[1].tolist() == [0, 0, 0, 0]


def test_crowds_are_no_misses_and_excuse_their_own_category_alone() -> None:
    truth = segments([[1, 1, 1, 1]], {1: 0}, crowd=(1,))
    assert panoptic_tallies(truth, segments([[0, 0, 0, 0]], {}), 2).tolist() == [[0, 0, 0, 0]] * 2
    assert panoptic_tallies(truth, segments([[2, 2, 2, 2]], {2: 0}), 2).tolist() == [[0, 0, 0, 0]] * 2
    assert panoptic_tallies(truth, segments([[2, 2, 2, 2]], {2: 1}), 2).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = blocks(rng, 0), np.zeros((32, 40), np.int64)
    said = np.roll(truth, int(rng.integers(0, 5)), 1) if seed % 2 else blocks(rng, 3)
    maps = []
    for ids in (truth, said):
        listed = np.unique(ids[ids > 0])
        rng.shuffle(listed)
        maps.append(Segments(ids, listed, rng.integers(0, 3, len(listed)), rng.random(len(listed)) < 0.2))
    assert np.allclose(panoptic_tallies(maps[0], maps[1], 3), naive(maps[0], maps[1], 3), atol=1e-12)


def test_equals_the_reference_tool_from_files(tmp_path: Path) -> None:
    scores = panoptic_from_files(*write_case(tmp_path))
    for name, wanted in FOREIGN.items():
        assert math.isclose(scores.values[name], wanted, rel_tol=1e-14), name
    assert scores.per_class["dog"]["count"] == 18
    assert math.isnan(scores.per_class["never"]["PQ"])
    assert (scores.details["matches"], scores.details["false alarms"], scores.details["misses"]) == (15, 39, 37)


def test_a_category_that_never_matches_has_no_segmentation_quality() -> None:
    assert quality(np.array([[0.0, 0, 2, 1], [0, 0, 0, 0]])).tolist()[0] == [0, 0, 0]
    assert np.isnan(quality(np.zeros((1, 4)))).all()


def test_halves_merge_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    whole, left, right = (PanopticScores(["a", "b"]) for _ in range(3))
    for i in range(4):
        pair = []
        for ids in (blocks(rng, 0), blocks(rng, 1)):
            listed = np.unique(ids[ids > 0])
            pair.append(Segments(ids, listed, listed % 2))
        for scores in (whole, left if i < 2 else right):
            scores.update(pair[:1], pair[1:])
    left.merge(right)
    assert left.compute().to_dict() == whole.compute().to_dict()
    assert "PQ_things" not in whole.compute().values
    with pytest.raises(UsageError, match=r"merge\(other\).things"):
        left.merge(PanopticScores(["a", "b"], [True, True]))


def test_segments_from_masks_give_the_earlier_object_the_pixel() -> None:
    masks = torch.zeros(2, 2, 3, dtype=torch.bool)
    masks[0, 0], masks[1, :, 0] = True, True
    objects = Objects(torch.tensor([[0.0, 0, 3, 1], [0, 0, 1, 2]]), torch.tensor([1, 0]), masks=masks)
    made = Segments.from_objects(objects, (2, 3))
    assert made.ids.tolist() == [[1, 1, 1], [2, 0, 0]]
    assert made.labels.tolist() == [1, 0]
    with pytest.raises(RecordError, match="masks"):
        Segments.from_objects(Objects.empty(), (2, 3))


def test_maps_and_lists_that_do_not_fit_are_named() -> None:
    good = segments([[1, 0]], {1: 0})
    for bad, message in (
        (segments([[1, 4]], {1: 0}), "id 4 in the prediction's map at x 1, y 0"),
        (segments([[1, 0]], {1: 0, 2: 0}), "segment 2 of the prediction, which has no pixel"),
        (segments([[1, 0]], {1: 3}), "label 3 in the prediction"),
        (segments([[1, 0], [0, 0]], {1: 0}), "equal sizes"),
    ):
        with pytest.raises(RecordError, match=message):
            panoptic_tallies(good, bad, 2)
    with pytest.raises(RecordError, match="id 4 in the truth's map"):
        panoptic_tallies(segments([[1, 4]], {1: 0}), good, 2)
    with pytest.raises(RecordError, match="segment of id 0"):
        segments([[0]], {0: 0})
    with pytest.raises(RecordError, match="id 3 twice"):
        Segments(np.zeros((1, 1)), np.array([3, 3]), np.array([0, 0]))


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    truth, said = write_case(tmp_path, pictures=2)
    document = json.loads(said.read_text())
    short = tmp_path / "short.json"

    def spoiled(**changes: object) -> Path:
        short.write_text(json.dumps({**document, **changes}))
        return short

    entries = document["annotations"]
    for annotations, message in (
        (entries[:1], "no result for 1 of 2 pictures"),
        ([*entries, {**entries[0], "image_id": 99}], "99 first"),
        ([{**entries[0], "segments_info": [{"id": 7, "category_id": 500}]}, entries[1]], "category_id 500"),
        ([{"image_id": 0, "file_name": "0.png"}, entries[1]], "segments_info"),
        ([{**entries[0], "file_name": "nowhere.png"}, entries[1]], "nowhere.png"),
    ):
        with pytest.raises(DataError, match=message):
            panoptic_from_files(truth, spoiled(annotations=annotations), result_maps=tmp_path / "said")
    with pytest.raises(DataError, match="no such folder of maps"):
        panoptic_from_files(truth, spoiled())
    short.write_text("[]")
    with pytest.raises(DataError, match="annotations"):
        panoptic_from_files(truth, short)
