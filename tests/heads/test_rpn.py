"""Anchors, order and ranking of the region proposal network."""

import pytest
import torch
from torch import Tensor

from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import UsageError
from bestiary.heads.rpn import RPN, FilterPyramidHead, ProposalSettings, RPNHead, flat, rank, suppress_proposals

CPU = torch.device("cpu")


@pytest.fixture
def rpn() -> RPN:
    torch.manual_seed(0)
    return RPN(8)


def test_one_head_serves_every_level(rpn: RPN) -> None:
    pyramid = [torch.rand(2, 8, size, size + 1) for size in (16, 8, 4, 2, 1)]
    objectness, deltas = rpn(pyramid)
    assert [tuple(o.shape) for o in objectness] == [(2, 3, s, s + 1) for s in (16, 8, 4, 2, 1)]
    assert [tuple(d.shape) for d in deltas] == [(2, 12, s, s + 1) for s in (16, 8, 4, 2, 1)]
    assert sum(p.numel() for p in rpn.parameters()) == 8 * 8 * 9 + 8 + (8 + 1) * (3 + 12)


def test_levels_and_sizes_must_agree(rpn: RPN) -> None:
    with pytest.raises(UsageError, match="got 2 levels, wanted 5"):
        rpn([torch.rand(1, 8, 4, 4)] * 2)
    with pytest.raises(UsageError, match=r"got \[3, 6\] anchors a place"):
        RPN(8, sizes=((32.0,), (64.0, 96.0)))


def test_the_first_anchors_are_the_published_ones(rpn: RPN) -> None:
    anchors = rpn.anchors([(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)], (800, 1344), CPU)
    assert sum(len(a) for a in anchors) == 268_569
    assert anchors[0][:4].tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23], [-19, -11, 27, 11]]
    assert anchors[0][3 * 336].tolist() == [-23, -7, 23, 15]


def test_the_coarsest_step_is_rounded_down_as_published_weights_expect(rpn: RPN) -> None:
    coarsest = rpn.anchors([(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)], (800, 1344), CPU)[4].view(
        13, 21, 3, 4
    )
    assert (coarsest[1, 0] - coarsest[0, 0]).unique().tolist() == [0, 61]
    assert (coarsest[0, 1] - coarsest[0, 0]).unique().tolist() == [0, 64]


def test_rows_follow_the_anchors_order(rpn: RPN) -> None:
    objectness, deltas = torch.rand(2, 3, 4, 5), torch.rand(2, 12, 4, 5)
    logits, rows = flat(objectness, deltas)
    for y, x, a in ((0, 0, 0), (0, 1, 2), (3, 4, 1)):
        at = (y * 5 + x) * 3 + a
        assert torch.equal(logits[:, at], objectness[:, a, y, x])
        assert torch.equal(rows[:, at], deltas[:, 4 * a : 4 * a + 4, y, x])


def test_the_order_does_not_depend_on_the_memory_layout() -> None:
    objectness, deltas = torch.rand(2, 3, 4, 5), torch.rand(2, 12, 4, 5)
    layout = torch.channels_last
    for a, b in zip(
        flat(objectness, deltas),
        flat(objectness.contiguous(memory_format=layout), deltas.contiguous(memory_format=layout)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_moving_the_map_moves_what_is_proposed(rpn: RPN) -> None:
    feature = torch.zeros(1, 8, 12, 12)
    feature[:, :, 4:7, 4:7] = torch.randn(1, 8, 3, 3)
    moved = feature.roll((2, 3), (2, 3))
    (before, _), (after, _) = rpn.head(feature), rpn.head(moved)
    torch.testing.assert_close(after, before.roll((2, 3), (2, 3)))


def levels(*logits: list[float]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.tensor([row]), torch.zeros(1, len(row), 4)) for row in logits]


def test_each_level_sends_its_best() -> None:
    anchors = [torch.tensor([[i, i, i + 10.0, i + 10.0] for i in range(n)]) for n in (4, 2)]
    boxes, logits, origin = rank(levels([0.1, 3.0, -1.0, 2.0], [-5.0, 9.0]), anchors, BoxCodec(), keep=3)
    assert logits.tolist() == [pytest.approx([3.0, 2.0, 0.1, 9.0, -5.0])]
    assert origin.tolist() == [0, 0, 0, 1, 1]
    assert boxes[0, :, 0].tolist() == [1, 3, 0, 1, 0]


def test_deltas_move_the_box_they_belong_to() -> None:
    (rows,) = levels([0.0, 1.0])
    rows[1][0, 1] = torch.tensor([0.5, 0.0, 0.0, 0.0])
    anchors = [torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 40.0, 10.0]])]
    boxes, _, _ = rank([rows], anchors, BoxCodec(), keep=10)
    assert boxes[0].tolist() == [[30, 0, 50, 10], [0, 0, 10, 10]]


def test_two_scores_an_anchor_are_one_logit_by_their_difference() -> None:
    torch.manual_seed(0)
    head = RPNHead(6, 3, hidden=5, pairs=True)
    feature = torch.rand(1, 6, 4, 5)
    pairs = head.cls_logits(head.conv(feature))
    softmax = torch.stack([pairs[:, :3], pairs[:, 3:]]).softmax(0)[1]
    torch.testing.assert_close(head(feature)[0].sigmoid(), softmax)
    assert head.cls_logits.out_channels == 6
    assert head.conv[0][0].out_channels == 5  # type: ignore[index]


def test_a_pyramid_of_filters_answers_in_the_anchors_order() -> None:
    torch.manual_seed(0)
    head = FilterPyramidHead(4, 3, kernels=(1, 3))
    objectness, deltas = head(torch.rand(1, 4, 5, 6))
    assert objectness.shape == (1, 6, 5, 6)
    feature = torch.rand(1, 4, 5, 6)
    objectness, deltas = head(feature)
    for size, own in enumerate(head.of_size):
        scores, moves = own(feature)
        for ratio in range(3):
            at = ratio * 2 + size  # ratio by ratio, within a ratio size by size
            assert torch.equal(objectness[:, at], scores[:, ratio])
            assert torch.equal(deltas[:, 4 * at : 4 * at + 4], moves[:, 4 * ratio : 4 * ratio + 4])


HEADS = {
    "one logit": lambda: RPNHead(8, 6),
    "pairs": lambda: RPNHead(8, 6, hidden=5, pairs=True),
    "filter pyramid": lambda: FilterPyramidHead(8, 3, kernels=(3, 5)),
}


@pytest.mark.parametrize("kind", list(HEADS))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_anchors_are_as_the_whole_maps_have_them(kind: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    rpn = RPN(8, sizes=((16.0, 32.0), (64.0, 128.0)), head=HEADS[kind]())
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    pyramid = [torch.randn(2, 8, *size).contiguous(memory_format=layout).requires_grad_() for size in ((4, 5), (2, 3))]
    everywhere = [flat(o, d) for o, d in zip(*rpn(pyramid), strict=True)]
    logits = torch.cat([v[0] for v in everywhere], 1).flatten()
    deltas = torch.cat([v[1] for v in everywhere], 1).flatten(0, 1)
    rows = torch.randperm(len(logits))[:60]  # corners and both levels are among them
    got_logits, got_deltas = rpn.at(pyramid, rows)
    torch.testing.assert_close(got_logits, logits[rows], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got_deltas, deltas[rows], atol=1e-4, rtol=1e-4)
    wanted = [*pyramid, *rpn.parameters()]
    weights = torch.randn(60, 5)
    whole = torch.autograd.grad((torch.cat([logits[rows, None], deltas[rows]], 1) * weights).sum(), wanted)
    single = torch.autograd.grad((torch.cat([got_logits[:, None], got_deltas], 1) * weights).sum(), wanted)
    for a, b in zip(single, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_no_anchor_at_all_is_legal(rpn: RPN) -> None:
    logits, deltas = rpn.at([torch.rand(1, 8, 2, 2)] * 5, torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0,)
    assert deltas.shape == (0, 4)


def ranked(boxes: list[list[float]], probs: list[float], levels: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor([boxes]), torch.tensor([probs]).logit(), torch.tensor(levels)


def test_proposals_are_clipped_large_likely_and_apart_within_their_level() -> None:
    boxes = [[-5.0, 0, 10, 10], [-5.0, 0, 10, 11], [-5.0, 0, 10, 10], [20.0, 20, 22, 40], [20.0, 20, 40, 60]]
    rules = ProposalSettings(min_side=3, min_score=0.1, nms_iou=0.7)
    entries = ranked(boxes, [0.9, 0.8, 0.7, 0.6, 0.05], [0, 0, 1, 0, 0])
    (found,), (probs,) = suppress_proposals(entries, [(50, 30)], rules, most=10)
    assert found.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10]]
    assert probs.tolist() == pytest.approx([0.9, 0.7])
    (found,), _ = suppress_proposals(entries, [(50, 30)], ProposalSettings(), most=3)
    assert found[:, 3].tolist() == [10, 10, 40]
