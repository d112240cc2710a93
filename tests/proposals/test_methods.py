"""Every method keeps to what is promised of all: boxes within the picture, best first, none twice, always the same."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.proposals.proposal_scenes import recall, scene

from bestiary.errors import RecordError, UsageError
from bestiary.layers.learned import make_room
from bestiary.proposals.methods import METHODS, build
from bestiary.proposals.proposer import Proposer

SMALL: dict[str, Mapping[str, Any]] = {
    "objectness": {"windows": 6000, "training_pictures": 6, "training_windows": 600},
    "bing": {"per_size": 40},
}
"""Settings that make a test quick."""

fitted: dict[str, Proposer] = {}


def made(name: str) -> Proposer:
    """The method, fitted once if it has to be."""
    if name not in fitted:
        fitted[name] = build(name, SMALL.get(name))
        fitted[name].fit([scene(100 + i) for i in range(8)], seed=3)
    return fitted[name]


@pytest.mark.parametrize("name", METHODS)
def test_names_agree(name: str) -> None:
    proposer = build(name, SMALL.get(name))
    assert proposer.name == name
    assert METHODS[name].learns == (not proposer.is_ready)
    assert METHODS[name].note


@pytest.mark.parametrize("name", METHODS)
def test_boxes_are_as_promised(name: str) -> None:
    for size_hw, objects in (((90, 140), 2), ((64, 48), 0)):
        image = scene(1, size_hw, objects).image
        found = made(name).propose(image)
        boxes, scores = found.boxes_xyxy, found.scores
        assert len(found) > 0 or not objects
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([size_hw[1], size_hw[0]])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (scores[1:] <= scores[:-1]).all()
        assert torch.isfinite(scores).all()
        assert len(torch.unique(boxes, dim=0)) == len(boxes)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_picture_gives_the_same_boxes(name: str) -> None:
    image = scene(2).image
    threads = torch.get_num_threads()
    first = made(name).propose(image)
    try:
        torch.set_num_threads(3)
        again = made(name).propose(image.clone())
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(again.boxes_xyxy, first.boxes_xyxy, rtol=0, atol=0)
    torch.testing.assert_close(again.scores, first.scores, rtol=0, atol=0)
    as_float = made(name).propose(image.float() / 255)
    torch.testing.assert_close(as_float.boxes_xyxy, first.boxes_xyxy, rtol=0, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_odd_pictures_give_boxes_or_none(name: str) -> None:
    for image in (
        torch.zeros(3, 40, 50, dtype=torch.uint8),  # nothing to see
        torch.randint(0, 255, (1, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),  # grey
        torch.full((3, 1, 1), 7, dtype=torch.uint8),
        torch.randint(0, 255, (3, 2, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),
    ):
        found = made(name).propose(image)
        assert (found.boxes_xyxy[:, 2:] <= torch.tensor([image.shape[2], image.shape[1]])).all()


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("sliding_windows", "random_boxes")])
def test_objects_are_found_sooner_than_by_chance(name: str) -> None:
    samples = [scene(i) for i in range(8)]
    assert recall(made(name), samples, 30) > recall(build("random_boxes"), samples, 30) + 0.1


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].learns])
def test_what_was_learned_is_saved_and_loaded(name: str) -> None:
    other = build(name, SMALL.get(name))
    state = made(name).state_dict()
    make_room(other, state)
    other.load_state_dict(state)
    assert other.is_ready
    assert other.identity() == made(name).identity()
    image = scene(5).image
    torch.testing.assert_close(other.propose(image).boxes_xyxy, made(name).propose(image).boxes_xyxy, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].learns])
def test_learning_again_learns_the_same(name: str) -> None:
    other = build(name, SMALL.get(name))
    other.fit([scene(100 + i) for i in range(8)], seed=3)
    assert other.identity() == made(name).identity()


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].learns])
def test_nothing_to_learn_from_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="no picture with an object"):
        build(name).fit([scene(0, objects=0)])


def test_the_nearest_name_is_said() -> None:
    with pytest.raises(UsageError, match="Did you mean 'selective_search_fast'"):
        build("selectve_search_fast")
    with pytest.raises(UsageError, match=r"sliding_windows: it has no option 'cuont'.*Did you mean 'count'"):
        build("sliding_windows", {"cuont": 3})
    with pytest.raises(UsageError, match="Known: sliding_windows"):
        build("xyz")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("sliding_windows", "random_boxes")])
def test_a_picture_of_many_channels_is_refused(name: str) -> None:
    with pytest.raises(RecordError):
        made(name).propose(torch.zeros(5, 30, 30, dtype=torch.uint8))
