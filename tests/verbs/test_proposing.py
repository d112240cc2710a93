"""Methods side by side: what is measured, what is timed, what is kept, and what is said of wrong words."""

import json
from pathlib import Path

import pytest
import torch
from tests.proposals.proposal_scenes import scene

from bestiary.errors import DataError, UsageError
from bestiary.metrics.proposals import ProposalScores
from bestiary.metrics.scores import plain
from bestiary.proposals.methods import build
from bestiary.records import Sample, Target
from bestiary.verbs.proposing import compare, write_boxes


class Scenes(list[Sample]):
    """An open data set."""

    categories = ("thing",)


DATA = Scenes(scene(i) for i in range(5))


def test_recall_is_that_of_the_accumulator() -> None:
    found = compare(["sliding_windows", "random_boxes"], DATA, numbers=(5, 50), iou_thresholds=(0.6,))
    assert [m.name for m in found.methods] == ["sliding_windows", "random_boxes"]
    for measured in found.methods:
        scores = ProposalScores((5, 50), (0.6,))
        proposer = build(measured.name)
        scores.update([proposer.propose(s.image).boxes_xyxy for s in DATA], [s.target for s in DATA])
        assert plain(measured.scores.values) == plain(scores.compute().values)
        assert len(measured.seconds) == 5
        assert measured.fit_seconds is None
        assert not measured.boxes
    assert found.facts == {"data": "scenes", "split": "test", "pictures": "5"}
    document = json.loads(json.dumps(found.to_dict()))
    assert document["methods"][0]["values"]["recall50@0.6"] == found.methods[0].scores.values["recall50@0.6"]
    assert document["methods"][0]["numbers"][-1] == 50
    assert document["methods"][0]["pictures_timed"] == 5


def test_what_comes_from_the_cache_is_not_timed(tmp_path: Path) -> None:
    first = compare(["random_boxes"], DATA, cache=tmp_path).methods[0]
    again = compare(["random_boxes"], DATA, cache=tmp_path).methods[0]
    assert (len(first.seconds), len(again.seconds)) == (5, 0)
    assert first.milliseconds is not None
    assert again.milliseconds is None
    assert plain(again.scores.values) == plain(first.scores.values)
    other = compare(["random_boxes"], DATA, cache=tmp_path, options={"count": 20}).methods[0]
    assert len(other.seconds) == 5


def test_methods_that_learn_learn_first() -> None:
    said: list[str] = []
    measured = compare(["bing"], DATA, options={"per_size": "30"}, say=said.append).methods[0]
    assert measured.fit_seconds is not None
    assert "bing learns from 5 pictures of 'train'" in said
    assert measured.settings["per_size"] == 30
    assert measured.scores.values["recall100@0.5"] > 0.5


def test_options_go_to_whom_they_are_meant_for() -> None:
    options = {"random_boxes.count": "7", "least_side": 20, "sliding_windows.aspects": "1,2"}
    windows, boxes = compare(["sliding_windows", "random_boxes"], DATA, options=options).methods
    assert boxes.settings["count"] == 7
    assert windows.settings["count"] == 2000
    assert windows.settings["aspects"] == (1.0, 2.0)
    assert windows.settings["least_side"] == boxes.settings["least_side"] == 20


@pytest.mark.parametrize(
    ("methods", "options", "said"),
    [
        ([], {}, "at least one"),
        (["bong"], {}, "Did you mean 'bing'"),
        (["random_boxes"], {"cuont": "3"}, "Did you mean 'count'"),
        (["random_boxes"], {"count": "many"}, "wanted int"),
        (["random_boxes"], {"bing.cost": "3"}, "wanted one of random_boxes"),
        (["random_boxes"], {"random_boxes.cost": "3"}, "it has no option 'cost'"),
        (["random_boxes"], {"count": "0"}, "wanted at least 1"),
    ],
)
def test_wrong_words_are_named_before_any_work(methods: list[str], options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(methods, "/nowhere", options=options)


def test_pictures_need_boxes() -> None:
    bare = Scenes([Sample(torch.zeros(3, 9, 9, dtype=torch.uint8), Target(), "a.png", (9, 9))])
    with pytest.raises(DataError, match=r"a\.png"):
        compare(["random_boxes"], bare)


def test_a_trained_system_speaks_for_its_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    path.mkdir()
    system = torch.nn.Module()
    monkeypatch.setattr("bestiary.verbs.proposing.load", lambda _: system)
    with pytest.raises(UsageError, match="without a method"):
        compare([str(path)], DATA)
    system.proposer = build("random_boxes", {"count": 9})
    (measured,) = compare([str(path)], DATA, options={}).methods
    assert measured.name == str(path)
    assert measured.settings["count"] == 9


def test_boxes_are_saved(tmp_path: Path) -> None:
    found = compare(["random_boxes"], DATA, numbers=(3,), keep_boxes=True)
    document = json.loads(write_boxes(tmp_path / "boxes.json", found).read_text())
    assert list(document) == ["random_boxes"]
    assert list(document["random_boxes"]) == [s.name for s in DATA]
    saved = document["random_boxes"][DATA[0].name]
    expected = build("random_boxes").propose(DATA[0].image)[:3]
    torch.testing.assert_close(torch.tensor(saved["boxes_xyxy"]), expected.boxes_xyxy, atol=1e-3, rtol=0)
    assert len(saved["scores"]) == 3
    with pytest.raises(UsageError, match="cannot be written"):
        write_boxes(tmp_path / "boxes.json" / "x.json", found)
