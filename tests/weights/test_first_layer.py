import pytest
import torch
from torch import nn

from bestiary.errors import CheckpointError
from bestiary.weights.first_layer import colour_filters, for_channels
from bestiary.weights.load import load_state


def net(channels: int, width: int = 4) -> nn.Sequential:
    torch.manual_seed(channels)
    return nn.Sequential(nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1)).eval()


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_grey_picture_has_the_response_that_it_had(channels: int) -> None:
    there, here = net(3), net(channels)
    report = load_state(here, there.state_dict())
    grey = torch.rand(1, 1, 9, 9)
    assert torch.allclose(here(grey.expand(-1, channels, -1, -1)), there(grey.expand(-1, 3, -1, -1)), atol=1e-6)
    sees = "1 channel: the sum over" if channels == 1 else f"{channels} channels: each 3/{channels} of the mean over"
    assert f"0.weight made to see {sees} red, green and blue" in report.summary()
    assert not report.mismatched


def test_one_channel_gets_the_sum() -> None:
    filters = torch.rand(2, 3, 5, 5)
    assert torch.allclose(for_channels(filters, 1)[:, 0], filters.sum(1))


def test_colours_stay_as_they_are() -> None:
    there, here = net(3), net(3)
    report = load_state(here, there.state_dict())
    assert report.adapted is None
    assert torch.equal(here[0].weight, there[0].weight)
    assert "made to see" not in report.summary()


def test_only_the_one_layer_that_sees_colours_is_changed() -> None:
    three, five = torch.zeros(4, 3, 3, 3), torch.zeros(4, 5, 3, 3)
    assert colour_filters({"a": three}, {"a": five}) == "a"
    assert colour_filters({"a": three, "b": three}, {"a": five, "b": five}) is None
    assert colour_filters({"a": three}, {"a": torch.zeros(4, 5, 1, 1)}) is None
    assert colour_filters({"a": three}, {"a": torch.zeros(8, 5, 3, 3)}) is None
    assert colour_filters({"a": torch.zeros(4, 4, 3, 3)}, {"a": five}) is None
    assert colour_filters({"a": three}, {}) is None


def test_a_checkpoint_of_the_model_itself_must_fit() -> None:
    with pytest.raises(CheckpointError, match=r"0.weight: \(4, 3, 3, 3\) in the file, \(4, 5, 3, 3\) in the model"):
        load_state(net(5), net(3).state_dict(), new_head=False)
