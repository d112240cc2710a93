"""Frozen batch norm against the trainable one."""

import copy

import pytest
import torch
from torch import nn

from bestiary.layers.frozen_norm import FrozenBatchNorm2d


def random_norm() -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).eval()
    for entry in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(entry)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return norm


@pytest.mark.parametrize("training", [False, True])
def test_it_equals_batch_norm_in_evaluation_mode(training: bool) -> None:
    norm, frozen = random_norm(), FrozenBatchNorm2d(6).train(training)
    frozen.load_state_dict(norm.state_dict())
    features = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(frozen(features), norm(features))


def test_it_has_buffers_only_and_no_batch_count() -> None:
    frozen = FrozenBatchNorm2d(6)
    assert list(frozen.parameters()) == []
    assert list(frozen.state_dict()) == ["weight", "bias", "running_mean", "running_var"]


def test_loading_leaves_the_given_state_as_it_is() -> None:
    state = random_norm().state_dict()
    before = list(state)
    FrozenBatchNorm2d(6).load_state_dict(state)
    assert list(state) == before


def test_a_missing_entry_is_still_an_error() -> None:
    state = random_norm().state_dict()
    del state["running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        FrozenBatchNorm2d(6).load_state_dict(state)


def test_eps_is_explicit() -> None:
    features = torch.ones(1, 1, 1, 1)
    for eps, wanted in ((0.0, 10.0), (0.03, 5.0)):
        frozen = FrozenBatchNorm2d(1, eps=eps)
        frozen.running_var.fill_(0.01)
        assert float(frozen(features)) == pytest.approx(wanted)
    assert "eps=0.03" in repr(copy.deepcopy(frozen))
