"""What all methods share: found once, kept on disk under the picture and the method, and never stale."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from bestiary.array_cache import ArrayCache
from bestiary.errors import RecordError, UsageError
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Sample

PICTURE = torch.arange(3 * 6 * 8, dtype=torch.uint8).reshape(3, 6, 8)


class Corner(Proposer):
    """One box as large as it is told, and how often it was asked."""

    name: ClassVar[str] = "corner"
    version: ClassVar[int] = 1

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.side, self.found = side, 0

    def settings(self) -> Mapping[str, Any]:
        return {"side": self.side}

    def find(self, image: torch.Tensor) -> Proposals:
        self.found += 1
        return Proposals(torch.tensor([[0.0, 0, self.side, self.side]]), torch.ones(1))


class Learner(Corner):
    name: ClassVar[str] = "learner"

    def __init__(self, side: int = 4) -> None:
        super().__init__(side)
        self.declare("weight")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        self.learn("weight", torch.tensor([float(seed)]))


def test_without_a_cache_boxes_are_found_anew() -> None:
    proposer = Corner()
    for _ in range(2):
        assert proposer.propose(PICTURE).boxes_xyxy.tolist() == [[0, 0, 4, 4]]
    assert proposer.found == 2


def test_a_picture_is_looked_at_once(tmp_path: Path) -> None:
    first = Corner()
    first.cache = ArrayCache(tmp_path)
    assert first.kept(PICTURE) is None
    found = first.propose(PICTURE)
    assert first.propose(PICTURE.clone()).boxes_xyxy.tolist() == found.boxes_xyxy.tolist()
    assert first.found == 1
    other = Corner()  # another process
    other.cache = ArrayCache(tmp_path)
    assert other.propose(PICTURE).boxes_xyxy.tolist() == found.boxes_xyxy.tolist()
    assert other.found == 0


def test_whatever_decides_the_boxes_makes_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = Learner()
    proposer.cache = ArrayCache(tmp_path)
    proposer.fit([], seed=1)
    proposer.propose(PICTURE)
    brighter = PICTURE.clone()
    brighter[2, 5, 7] += 1
    proposer.propose(brighter)
    assert proposer.found == 2, "one pixel"
    proposer.propose(PICTURE.reshape(3, 8, 6))
    assert proposer.found == 3, "the same bytes in another shape"
    proposer.side = 5
    assert proposer.propose(PICTURE).boxes_xyxy[0, 2] == 5, "a setting"
    proposer.fit([], seed=2)
    proposer.propose(PICTURE)
    assert proposer.found == 5, "what was learned"
    monkeypatch.setattr(Learner, "version", 2)
    proposer.propose(PICTURE)
    assert proposer.found == 6, "the code"
    monkeypatch.setattr(Learner, "name", "other")
    proposer.propose(PICTURE)
    assert proposer.found == 7, "the method"
    proposer.propose(PICTURE)
    assert proposer.found == 7


@pytest.mark.parametrize(
    "arrays",
    [
        {"boxes_xyxy": np.zeros((1, 4), np.float32)},
        {"boxes_xyxy": np.zeros((1, 4), np.float32), "scores": np.zeros(2, np.float32)},
        {"boxes_xyxy": np.zeros((1, 4), np.float64), "scores": np.zeros(1, np.float32)},
        {"boxes_xyxy": np.full((1, 4), np.nan, np.float32), "scores": np.zeros(1, np.float32)},
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_an_entry_that_is_no_proposals_counts_as_absent(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    proposer = Corner()
    proposer.cache = ArrayCache(tmp_path)
    proposer.propose(PICTURE)
    (path,) = tmp_path.rglob("*.npz")
    proposer.cache.put(path.stem, arrays)
    assert proposer.propose(PICTURE).boxes_xyxy.tolist() == [[0, 0, 4, 4]]
    assert proposer.found == 2


def test_a_method_that_learns_must_have_learned() -> None:
    proposer = Learner()
    assert not proposer.is_ready
    with pytest.raises(UsageError, match="learner: the method has not learned yet"):
        proposer.propose(PICTURE)
    proposer.fit([])
    assert proposer.is_ready
    assert Corner().is_ready


@pytest.mark.usefixtures("unchecked")
def test_a_picture_has_pixels() -> None:
    for image in (torch.zeros(3, 0, 5), torch.zeros(5, 5)):
        with pytest.raises(RecordError, match="with pixels"):
            Corner().propose(image)


@pytest.mark.usefixtures("unchecked")
def test_boxes_and_scores_belong_together() -> None:
    found = Proposals(torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]]), torch.tensor([0.9, 0.1]))
    assert found[:1].scores.tolist() == pytest.approx([0.9])
    with pytest.raises(RecordError, match="rows"):
        Proposals(torch.zeros(2, 4), torch.zeros(3))
