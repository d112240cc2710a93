"""YOLO's convolutions and the classifier of the first twenty."""

import pytest
import torch
from torch import nn

from bestiary.backbones.extraction import (
    ALL_24,
    FAST_9,
    FIRST_20,
    SMALL_10,
    TINY_8,
    Row,
    extraction,
    yolo_v1_classifier,
)


@pytest.mark.parametrize(
    ("rows", "convolutions", "channels", "stride"),
    [
        (FIRST_20, 20, 1024, 32),
        (ALL_24, 24, 1024, 64),
        (FAST_9, 9, 1024, 64),
        (TINY_8, 8, 256, 64),
        (SMALL_10, 10, 256, 16),
    ],
)
def test_rows_make_the_trunk_that_its_level_says(
    rows: tuple[Row, ...], convolutions: int, channels: int, stride: int
) -> None:
    with torch.device("meta"):
        plain, normed = extraction(rows), extraction(rows, norm=True)
        (level,) = plain.levels
        (maps,) = plain(torch.zeros(1, 3, 2 * stride, 3 * stride))
    assert (level.channels, level.stride) == (channels, stride)
    assert maps.shape == (1, channels, 2, 3)
    assert sum(isinstance(m, nn.Conv2d) for m in plain.modules()) == convolutions
    biases = sum(m.bias.numel() for m in plain.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)
    both = [sum(p.numel() for p in trunk.parameters()) for trunk in (plain, normed)]
    assert both[1] - both[0] == biases  # a scale and a shift in place of each bias


def test_the_classifier_is_a_mean_and_a_connected_layer() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        assert sum(p.numel() for p in yolo_v1_classifier().parameters()) == 22_403_136 + 1024 * 1000 + 1000
    net = yolo_v1_classifier(["a", "b"], resize=64, crop=64).eval()
    pixels = torch.rand(1, 3, 64, 64)
    maps = net.features(pixels)
    assert maps.shape == (1, 1024, 2, 2)
    torch.testing.assert_close(net(pixels), net.classifier(maps.mean((2, 3))))
    assert net.normalize(torch.full((3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [1.0]


def test_a_narrow_classifier_is_what_the_ladder_starts_from() -> None:
    from bestiary.detection.yolo_v2_ladder import yolo_v2_ladder
    from bestiary.errors import UsageError

    classifier = yolo_v1_classifier(["a", "b"], norm=True, narrower=4)
    rung = yolo_v2_ladder(["x"], convolutional=False, size=64)
    state, line = rung.start_state(classifier.state_dict())
    assert line
    assert len(state) == 20 * 6, "weights and five entries of each norm"
    rung.load_state_dict(dict(state), strict=False)
    found = dict(rung.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in state.items() if name in found)
    with pytest.raises(UsageError, match="narrower"):
        yolo_v1_classifier(["a"], narrower=0)
