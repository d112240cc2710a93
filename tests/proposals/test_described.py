"""Methods of proposals written as JSON and built again."""

import json
from typing import Any

import pytest
import torch

from bestiary.data.world import World
from bestiary.errors import CheckpointError, UsageError
from bestiary.proposals.bing import Bing
from bestiary.proposals.described import describe, rebuild
from bestiary.proposals.methods import METHODS, build
from bestiary.proposals.proposer import Proposer
from bestiary.proposals.sliding_windows import RandomBoxes
from bestiary.training.fitting import Samples


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_through_json(name: str) -> None:
    made = build(name)
    again = rebuild(json.loads(json.dumps(describe(made))))
    assert type(again) is type(made)
    assert again.identity() == made.identity()


@pytest.fixture(scope="module")
def method() -> Proposer:
    made = build("bing", {"per_size": 90})
    made.fit(Samples(World(6, split="train")))
    return made


@pytest.fixture(scope="module")
def said(method: Proposer) -> dict[str, Any]:
    return describe(method)


def test_what_was_learned_comes_back_bit_for_bit(method: Proposer, said: dict[str, Any]) -> None:
    again = rebuild(json.loads(json.dumps(said)))
    assert again.is_ready
    assert again.identity() == method.identity()
    picture = World(1, split="val")[0].image
    found, wanted = again.propose(picture), method.propose(picture)
    assert len(wanted) > 0
    assert torch.equal(found.boxes_xyxy, wanted.boxes_xyxy)
    assert torch.equal(found.scores, wanted.scores)


def test_a_method_that_was_built_by_hand_is_not_named() -> None:
    """Its arguments are not known, and the defaults would propose other boxes."""
    assert describe(Bing(per_size=90))["method"] is None
    assert describe(Bing())["method"] == "bing"


@pytest.mark.parametrize("called", ["", "mine", "random_boxes"])
def test_a_method_of_the_users_own_is_not_named_whatever_it_is_called(called: str) -> None:
    class Mine(RandomBoxes):
        name = called

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(2))

    assert describe(Mine()) == {"method": None, "arguments": {}, "learned": {}}


@pytest.mark.parametrize("broken", ["***", "AAAA"])
def test_what_cannot_be_read_is_said(said: dict[str, Any], broken: str) -> None:
    changed = json.loads(json.dumps(said))
    changed["learned"]["weight"]["base64"] = broken
    with pytest.raises(CheckpointError, match="bing has learned cannot be read"):
        rebuild(changed)


def test_what_is_another_methods_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="objectness has learned cannot be read"):
        rebuild({**said, "method": "objectness", "arguments": {}})
    with pytest.raises(UsageError, match="Did you mean 'bing'"):
        rebuild({**said, "method": "bin"})
