"""What a region network takes over from a classifier, by name and shape."""

import pytest
import torch
from torch import Tensor

from bestiary.backbones.vgg import VGG
from bestiary.errors import UsageError
from bestiary.heads.region_start import freeze_blocks, start_from_classifier

HEAD = "roi_heads.box_head"


def classifier(hidden: int = 4) -> dict[str, Tensor]:
    return {
        "features.0.weight": torch.ones(2, 3, 3, 3),
        "features.9.weight": torch.ones(9, 9, 3, 3),
        "classifier.1.weight": torch.full((hidden, 8), 6.0),
        "classifier.1.bias": torch.full((hidden,), 6.0),
        "classifier.4.weight": torch.full((hidden, hidden), 7.0),
        "classifier.4.bias": torch.full((hidden,), 7.0),
        "classifier.6.weight": torch.zeros(10, hidden),
        "classifier.6.bias": torch.zeros(10),
    }


def own(factored: bool = False) -> dict[str, Tensor]:
    state = {"backbone.features.0.weight": torch.zeros(2, 3, 3, 3)}
    for name, inputs in (("fc6", 8), ("fc7", 4)):
        if factored:
            state[f"{HEAD}.{name}.inputs.weight"] = torch.zeros(2, inputs)
            state[f"{HEAD}.{name}.outputs.weight"] = torch.zeros(4, 2)
        else:
            state[f"{HEAD}.{name}.weight"] = torch.zeros(4, inputs)
    return state


@pytest.mark.parametrize("factored", [False, True])
def test_convolutions_and_two_hidden_layers_are_taken_whatever_their_numbers(factored: bool) -> None:
    taken, note = start_from_classifier(classifier(), own(factored))
    assert note == "starts from a classifier: its convolutions, fc6, fc7"
    parts = [f"{HEAD}.{name}.{end}" for name in ("fc6", "fc7") for end in ("weight", "bias")]
    assert sorted(taken) == sorted(["backbone.features.0.weight", *parts])
    assert float(taken[f"{HEAD}.fc6.bias"][0]) == 6
    assert float(taken[f"{HEAD}.fc7.weight"][0, 0]) == 7


def test_hidden_layers_of_another_width_stay_fresh() -> None:
    taken, note = start_from_classifier(classifier(hidden=5), own())
    assert list(taken) == ["backbone.features.0.weight"]
    assert note == "starts from a classifier: its convolutions"


def test_any_other_state_comes_back_as_it_is() -> None:
    for state in (own(), {"stem.weight": torch.zeros(1)}):
        assert start_from_classifier(state, own()) == (state, "")


def test_frozen_blocks_end_before_the_pool() -> None:
    trunk = VGG((2, 2, 1, 1, 1), maps=("C4",), width=0.125)
    freeze_blocks(trunk, 0)
    assert all(parameter.requires_grad for parameter in trunk.parameters())
    freeze_blocks(trunk, 2)
    frozen = [name for name, parameter in trunk.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"features.{i}.{end}" for i in (0, 2, 5, 7) for end in ("weight", "bias")]
    with pytest.raises(UsageError, match="got 5, wanted 0 to 4"):
        freeze_blocks(trunk, 5)
