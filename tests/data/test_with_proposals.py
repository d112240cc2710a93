"""Samples with proposals: found once, in memory or on disk, forgotten when the method has learned something else."""

import copy
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bestiary.array_cache import ArrayCache
from bestiary.data.loader import Loader
from bestiary.data.with_proposals import WithProposals
from bestiary.data.world import World
from bestiary.errors import UsageError
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Sample
from bestiary.transforms.geometry import RandomHorizontalFlip


class Numbered(Proposer):
    """Twenty boxes whose sides tell the picture's mean, and how often it was asked."""

    name: ClassVar[str] = "numbered"

    def __init__(self) -> None:
        super().__init__()
        self.found = 0
        self.declare("shift")
        self.learn("shift", torch.zeros(1))

    def settings(self) -> Mapping[str, Any]:
        return {}

    def find(self, image: torch.Tensor) -> Proposals:
        self.found += 1
        sides = torch.arange(20.0)[:, None] + 1 + self.shift + image.float().mean() / 255
        return Proposals(torch.cat([torch.zeros(20, 2), sides, sides], 1), torch.linspace(1, 0, 20))

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        self.learn("shift", torch.tensor([float(seed)]))


WORLD = World(6, split="train")


def test_the_best_boxes_come_with_the_picture() -> None:
    data = WithProposals(WORLD, Numbered(), count=5)
    for i in range(6):
        sample, plain = data[i], WORLD[i]
        assert torch.equal(sample.image, plain.image)
        assert sample.name == plain.name
        assert sample.target.objects is not None
        boxes = sample.target.proposals_xyxy
        assert boxes is not None
        torch.testing.assert_close(boxes, Numbered().find(plain.image).boxes_xyxy[:5])
    assert len(data) == 6
    assert torch.equal(data[-1].image, WORLD[5].image)
    with pytest.raises(IndexError):
        data[6]


def test_boxes_are_found_once_and_may_be_changed_by_their_owner() -> None:
    proposer = Numbered()
    data = WithProposals(WORLD, proposer)
    data.prepare()
    first = data[2].target.proposals_xyxy
    assert first is not None
    before = first.clone()
    first.zero_()
    again = data[2].target.proposals_xyxy
    assert again is not None
    assert torch.equal(again, before)
    assert torch.equal(data[-4].target.proposals_xyxy, before)  # type: ignore[arg-type]
    assert proposer.found == 6


def test_memory_is_bounded() -> None:
    proposer = Numbered()
    data = WithProposals(WORLD, proposer, count=5, memory_bytes=2 * 5 * 16)  # two pictures' boxes
    data.prepare()
    for i in range(6):
        data[i]
    assert proposer.found == 6 + 4


def test_beyond_the_memory_the_disk_is_read(tmp_path: Path) -> None:
    proposer = Numbered()
    proposer.cache = ArrayCache(tmp_path)
    data = WithProposals(WORLD, proposer, memory_bytes=0)
    data.prepare()
    for i in range(6):
        data[i]
    assert proposer.found == 6
    assert len(list(tmp_path.rglob("*.npz"))) == 6


def test_what_was_learned_since_makes_other_boxes() -> None:
    proposer = Numbered()
    data = WithProposals(WORLD, proposer)
    before = data[0].target.proposals_xyxy
    proposer.fit([], seed=7)
    after = data[0].target.proposals_xyxy
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after[:, 2], before[:, 2] + 7)


def test_it_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("bestiary.data.with_proposals.PATIENCE", 0.0)
    WithProposals(WORLD, Numbered()).prepare(said.append)
    assert said[0].startswith("boxes found in 1 of 6 pictures")
    assert said[-1].startswith("numbered: 20 boxes a picture, 6 pictures in")


def test_it_speaks_for_the_data_set_inside() -> None:
    class Wide(World):
        joint_pairs = ((0, 1),)

        def labels_per_picture(self) -> list[list[int]]:
            return [[1]]

        def subset(self) -> None:
            """Would lose the boxes."""

    data = WithProposals(Wide(3, split="val"), Numbered())
    assert data.categories == WORLD.categories
    assert data.joint_pairs == ((0, 1),)
    assert data.labels_per_picture() == [[1]]
    assert not hasattr(data, "subset")
    assert not hasattr(WithProposals([WORLD[0]], Numbered()), "joint_pairs")
    assert WithProposals([WORLD[0]], Numbered()).categories == ()
    for other in (copy.copy(data), pickle.loads(pickle.dumps(WithProposals(WORLD, Numbered())))):
        assert len(other[0].target.proposals_xyxy) == 20


def test_loaders_move_the_boxes_with_the_picture() -> None:
    data = WithProposals(WORLD, Numbered(), count=3)
    (batch, *_) = iter(Loader(data, batch=2, transform=RandomHorizontalFlip(p=1.0), workers=0))
    width = batch.images[0].shape[-1]
    plain = data[0].target.proposals_xyxy
    moved = batch.targets[0].proposals_xyxy
    assert plain is not None
    assert moved is not None
    torch.testing.assert_close(moved[:, 2], torch.full((3,), float(width)))
    torch.testing.assert_close(moved[:, 0], width - plain[:, 2])


def test_numbers_out_of_range_are_named() -> None:
    for bad in ({"count": 0}, {"memory_bytes": -1}):
        with pytest.raises(UsageError, match="WithProposals"):
            WithProposals(WORLD, Numbered(), **bad)  # type: ignore[arg-type]
