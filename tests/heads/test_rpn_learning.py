"""Sampling of anchors and the first stage's loss: everywhere and only where sampled."""

import pytest
import torch

from bestiary.heads.rpn import RPN, ProposalSettings
from bestiary.heads.rpn_learning import (
    ANCHOR_CODEC,
    rpn_losses,
    rpn_losses_where_sampled,
    sample_anchors,
    within,
)
from bestiary.heads.truth import Truth

SIZES = ((16.0,), (32.0,))


def truth(*boxes: tuple[float, float, float, float]) -> Truth:
    table = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Truth(table, torch.zeros(len(table), dtype=torch.int64), torch.zeros(0, 4))


@pytest.fixture
def rpn() -> RPN:
    torch.manual_seed(0)
    rpn = RPN(4, SIZES)
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return rpn


def anchors_of(rpn: RPN) -> torch.Tensor:
    return torch.cat(rpn.anchors([(8, 8), (4, 4)], (64, 64), torch.device("cpu")))


TRUTHS = [truth((4, 4, 20, 22), (30, 30, 60, 58)), truth(), truth((0, 0, 33, 30))]


def test_within_counts_borders_as_inside() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 10], [-0.1, 0, 5, 5], [0, 0, 20.1, 5], [0, 0, 5, 10.1]])
    assert within(boxes, (10, 20)).tolist() == [True, False, False, False]


def test_rows_name_picture_and_anchor_positives_first(rpn: RPN) -> None:
    anchors = anchors_of(rpn)
    sampled = sample_anchors(anchors, TRUTHS, ProposalSettings(per_image=20))
    picture, place = sampled.rows // len(anchors), sampled.rows % len(anchors)
    assert picture.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    positive = sampled.rows[sampled.positive]
    assert set((positive // len(anchors)).tolist()) == {0, 2}
    decoded = ANCHOR_CODEC.decode(sampled.wanted, anchors[positive % len(anchors)])
    objects = torch.cat([t.boxes_xyxy for t in TRUTHS])
    nearest = (decoded[:, None] - objects).abs().amax(2).amin(1)
    assert nearest.max() < 1e-3
    assert sampled.answers.sum() == len(positive) > 0
    assert len(place.unique()) > 30


def test_only_anchors_inside_their_picture_are_drawn(rpn: RPN) -> None:
    anchors = anchors_of(rpn)
    rules = ProposalSettings(per_image=10**4, inside_only=True)
    sampled = sample_anchors(anchors, TRUTHS[:1], rules, [(50, 40)])
    assert within(anchors[sampled.rows], (50, 40)).all()
    assert len(sampled.rows) > 10


def test_both_ways_give_the_same_losses_and_gradients(rpn: RPN) -> None:
    pyramid = [torch.randn(3, 4, 8, 8, requires_grad=True), torch.randn(3, 4, 4, 4, requires_grad=True)]
    anchors, rules = anchors_of(rpn), ProposalSettings(per_image=24, box_weight=2.5)
    learned = [*pyramid, *rpn.parameters()]
    torch.manual_seed(5)
    everywhere = rpn_losses(rpn(pyramid), anchors, TRUTHS, rules)
    torch.manual_seed(5)
    sparse = rpn_losses_where_sampled(rpn, pyramid, anchors, TRUTHS, rules)
    torch.testing.assert_close(sparse, everywhere)
    wanted = torch.autograd.grad(everywhere[0] + everywhere[1], learned)
    got = torch.autograd.grad(sparse[0] + sparse[1], learned)
    for a, b in zip(got, wanted, strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_box_weight_weighs_boxes_alone(rpn: RPN) -> None:
    pyramid, anchors = [torch.randn(3, 4, 8, 8), torch.randn(3, 4, 4, 4)], anchors_of(rpn)
    found = []
    for weight in (1.0, 10.0):
        torch.manual_seed(5)
        found.append(rpn_losses_where_sampled(rpn, pyramid, anchors, TRUTHS, ProposalSettings(box_weight=weight)))
    assert float(found[1][0].detach()) == pytest.approx(float(found[0][0].detach()))
    assert float(found[1][1].detach()) == pytest.approx(10 * float(found[0][1].detach()))
    assert float(found[0][1].detach()) > 0
