"""What is learned without gradients is declared, filled, saved and loaded."""

import pytest
import torch
from torch import nn

from bestiary.layers.learned import Learned, make_room


class Part(Learned):
    def __init__(self) -> None:
        super().__init__()
        self.declare("centres", "counts")


class Whole(Learned):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(3))
        self.declare("weights")
        self.part = Part()
        self.list = nn.ModuleList([Part()])


def test_nothing_is_fitted_until_something_was_learned() -> None:
    whole = Whole()
    assert not whole.is_fitted  # buffers that were not declared are no learning
    whole.list[0].learn("counts", torch.tensor([2, 5]))
    assert whole.is_fitted


def test_what_was_not_declared_cannot_be_learned() -> None:
    with pytest.raises(KeyError):
        Whole().learn("mean", torch.zeros(3))


def test_learning_copies() -> None:
    part, value = Part(), torch.ones(4, 2)
    part.learn("centres", value)
    value.zero_()
    assert float(part.centres.sum()) == 8


def test_a_state_of_any_shape_and_type_fits_a_fresh_whole() -> None:
    there, here = Whole(), Whole()
    there.learn("weights", torch.rand(7, 3))
    there.part.learn("counts", torch.arange(5))
    make_room(here, there.state_dict())
    here.load_state_dict(there.state_dict())
    assert torch.equal(here.weights, there.weights)
    assert here.part.counts.dtype == torch.int64
    assert here.mean.shape == (3,)


def test_a_network_may_hold_learned_parts() -> None:
    there, here = (nn.ModuleDict({"head": nn.Linear(2, 2), "part": Part()}) for _ in range(2))
    there["part"].learn("centres", torch.ones(6, 2))
    make_room(here, there.state_dict())
    here.load_state_dict(there.state_dict())
    assert torch.equal(here["part"].centres, torch.ones(6, 2))
    assert torch.equal(here["head"].weight, there["head"].weight)
