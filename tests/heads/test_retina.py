"""The subnets, their start, their anchors, and which scores are looked at."""

import math

import pytest
import torch
from torch import nn

from bestiary.errors import UsageError
from bestiary.heads.retina import (
    PAPER_SIZES,
    WHOLE_SIZES,
    BoxSubnet,
    ClassSubnet,
    RetinaHead,
    by_anchor,
    deltas_at,
    likeliest,
)

MAPS = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]


def test_the_start_is_the_papers() -> None:
    torch.manual_seed(0)
    subnet = ClassSubnet(64, 9, 20)
    bias = subnet.cls_logits.bias
    assert bias is not None
    assert bias.tolist() == pytest.approx([-4.59512] * 180, abs=1e-5)
    assert [type(layer[0]) for layer in subnet.conv] == [nn.Conv2d] * 4  # type: ignore[index]
    for module in subnet.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
    probs = subnet(torch.randn(2, 64, 9, 9)).sigmoid()
    assert probs.mean().item() == pytest.approx(0.01, rel=0.05)
    box = BoxSubnet(64, 9)
    assert box.bbox_reg.bias is not None
    assert not box.bbox_reg.bias.any()
    assert box(torch.randn(1, 64, 3, 5)).shape == (1, 36, 3, 5)


def test_a_norm_takes_the_biases_place() -> None:
    subnet = BoxSubnet(8, 1, depth=2, norm=lambda channels: nn.GroupNorm(2, channels))
    assert [type(layer).__name__ for layer in subnet.conv[0]] == ["Conv2d", "GroupNorm", "ReLU"]  # type: ignore[arg-type]
    assert list(subnet.state_dict())[:3] == ["conv.0.0.weight", "conv.0.1.weight", "conv.0.1.bias"]


def test_a_picture_of_800_by_1344_has_201_600_anchors() -> None:
    head = RetinaHead(8, 3, depth=0)
    anchors = head.anchors(MAPS, (800, 1344), torch.device("cpu"))
    assert [len(level) for level in anchors] == [9 * h * w for h, w in MAPS]
    assert sum(len(level) for level in anchors) == 201_600


def test_anchors_are_thirds_of_octaves_and_published_ones_whole() -> None:
    assert PAPER_SIZES[0] == pytest.approx((32, 40.3175, 50.7968), abs=1e-4)
    assert WHOLE_SIZES == ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812))
    anchors = RetinaHead(8, 1, depth=0).anchors([(2, 3)] * 5, (64, 96), torch.device("cpu"))[0]
    sides = anchors[:9, 2:] - anchors[:9, :2]
    # ratio by ratio, wide first, and within a ratio size by size; whole pixels
    assert sides[0].tolist() == [46, 22]
    assert sides[3].tolist() == [32, 32]
    assert sides[6].tolist() == [22, 46]
    torch.testing.assert_close(sides.prod(1), torch.tensor(PAPER_SIZES[0]).square().repeat(3), rtol=0.06, atol=0)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[::9].tolist() == [[0, 0], [32, 0], [64, 0], [0, 32], [32, 32], [64, 32]]


def test_levels_share_a_head_or_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="one number for all levels"):
        RetinaHead(8, 1, sizes=((8.0,), (16.0, 20.0)))
    with pytest.raises(UsageError, match="got 1 levels, wanted 5"):
        RetinaHead(8, 1)([torch.zeros(1, 8, 2, 2)])


def test_outputs_stand_by_row_column_and_anchor() -> None:
    output = torch.arange(2 * 6 * 2 * 3).view(2, 6, 2, 3)  # two anchors of three numbers
    rows = by_anchor(output, 2)
    assert rows.shape == (2, 12, 3)
    for place in range(12):
        row, column, anchor = place // 6, place // 2 % 3, place % 2
        assert rows[1, place].tolist() == output[1, 3 * anchor : 3 * anchor + 3, row, column].tolist()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_likeliest_are_those_of_the_sorted_table(first: int, layout: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(3)
    logits = (2 * torch.randn(1, 3 * 5, 4, 6, generator=rng) - 2).to(memory_format=layout)
    deltas = torch.randn(1, 12, 4, 6, generator=rng).to(memory_format=layout)
    place, label, score = likeliest(logits[0], 3, 0.3, 40, first)
    table = by_anchor(logits, 3)[0, :, first:].sigmoid()
    best, index = table.flatten().topk(40)
    assert (best > 0.3).all()
    torch.testing.assert_close(score, best)
    assert (place * table.shape[1] + label).tolist() == index.tolist()
    assert torch.equal(deltas_at(deltas[0], place, 3), by_anchor(deltas, 3)[0, place])


@pytest.mark.parametrize(("least", "count"), [(0.5, 0), (0.4999, 4), (0.0, 4), (1.0, 0)])
def test_a_score_must_be_above_the_least_one(least: float, count: int) -> None:
    place, label, score = likeliest(torch.zeros(4, 1, 1), 2, least, 100)
    assert len(place) == len(label) == len(score) == count


def test_the_least_score_is_that_of_the_probability_not_of_its_rounded_logit() -> None:
    logits = torch.linspace(-3.05, -2.85, 400).view(400, 1, 1)
    _, _, scores = likeliest(logits, 400, 0.05, 1000)
    assert len(scores) == int((logits.sigmoid() > 0.05).sum())
    assert math.isclose(float(scores.min()), 0.05, rel_tol=1e-2)
