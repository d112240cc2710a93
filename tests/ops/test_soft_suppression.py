import math
from collections.abc import Callable

import jaxtyping
import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.ops import box_iou, nms, soft_suppression
from bestiary.ops.soft_suppression import batched_soft_nms, matrix_nms, soft_nms, softened_in_torch

Picks = list[tuple[int, float]]
Decayed = Callable[[float], float]


def random_boxes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    corners, sizes = torch.rand(count, 2, generator=g) * 60, torch.rand(count, 2, generator=g) * 40 + 1
    scores = torch.randint(1, 40, (count,), generator=g).double() / 40
    return torch.cat([corners, corners + sizes], dim=1).double(), scores


def naive(boxes: torch.Tensor, scores: torch.Tensor, method: str, limit: float, sigma: float, least: float) -> Picks:
    """Bodla et al., figure 2, with lists."""
    ious = torch.nan_to_num(pairwise_iou(boxes, boxes)).tolist()
    left = {i: s for i, s in enumerate(scores.tolist()) if s >= least}
    picks = []
    while left:
        best = min(left, key=lambda i: (-left[i], i))
        picks.append((best, left.pop(best)))
        for j in list(left):
            iou = ious[best][j]
            left[j] *= math.exp(-(iou**2) / sigma) if method == "gaussian" else (1 - iou if iou >= limit else 1)
            if left[j] < least:
                del left[j]
    return picks


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("count", [1, 2, 90])
def test_soft_nms_equals_the_loop_and_plain_torch(method: str, count: int) -> None:
    boxes, scores = random_boxes(count, count)
    wanted = naive(boxes, scores, method, 0.3, 0.5, 0.05)
    indices, lowered = soft_nms(boxes, scores, method, 0.3, 0.5, 0.05)
    assert indices.tolist() == [i for i, _ in wanted]
    torch.testing.assert_close(lowered, torch.tensor([s for _, s in wanted], dtype=torch.float64))
    plain = softened_in_torch(boxes, scores, None, method == "gaussian", 0.3, 0.5, 0.05)
    assert torch.equal(plain[0], indices)
    torch.testing.assert_close(plain[1], lowered)


def test_groups_do_not_touch_each_other() -> None:
    boxes, scores = random_boxes(80, 3)
    scores = scores + torch.arange(80) * 1e-4
    idxs = torch.arange(80) % 3 * 50 - 7
    indices, lowered = batched_soft_nms(boxes, scores, idxs)
    assert (lowered.diff() <= 0).all()
    for group in idxs.unique():
        rows = (idxs == group).nonzero()[:, 0]
        own, own_scores = soft_nms(boxes[rows], scores[rows])
        of_group = idxs[indices] == group
        assert torch.equal(indices[of_group], rows[own])
        assert torch.equal(lowered[of_group], own_scores)
    plain = softened_in_torch(boxes, scores, idxs, True, 0.3, 0.5, 0.001)
    assert set(plain[0].tolist()) == set(indices.tolist())


def test_hand_worked_and_exactly_at_the_thresholds() -> None:
    # Half of the first: IoU 1/2 with it.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    scores = torch.tensor([1.0, 0.5, 0.25])
    assert soft_nms(boxes, scores, "linear", 0.5)[1].tolist() == [1, 0.25, 0.25]
    assert soft_nms(boxes, scores, "linear", 0.5)[0].tolist() == [0, 1, 2], "equal scores: the lower index first"
    assert soft_nms(boxes, scores, "linear", 0.500001)[1].tolist() == [1, 0.5, 0.25]
    assert soft_nms(boxes, scores, "linear", 0.5, score_threshold=0.25)[0].tolist() == [0, 1, 2]
    assert soft_nms(boxes, scores, "linear", 0.5, score_threshold=0.2500001)[0].tolist() == [0]
    assert float(soft_nms(boxes, scores, "gaussian", sigma=0.25)[1][2]) == pytest.approx(0.5 * math.exp(-1))
    pixels = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])
    assert soft_nms(pixels, scores[:2], "linear", 0.5, inclusive=True)[1].tolist() == [1, 0.25]


def test_nothing_and_empty_boxes() -> None:
    indices, lowered = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert indices.dtype == torch.int64
    assert len(indices) == len(lowered) == 0
    assert len(batched_soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))[0]) == 0
    assert soft_nms(torch.zeros(2, 4), torch.tensor([0.5, 0.9]))[1].tolist() == pytest.approx([0.9, 0.5])
    assert soft_nms(torch.zeros(2, 4).half(), torch.tensor([0.5, 0.9]).half())[1].dtype == torch.float32


def naive_matrix(ious: list[list[float]], scores: list[float], groups: list[int], f: Decayed) -> list[float]:
    better = [
        [i for i in range(len(scores)) if (-scores[i], i) < (-scores[j], j) and groups[i] == groups[j]]
        for j in range(len(scores))
    ]
    highest = [max((ious[k][i] for k in better[i]), default=0.0) for i in range(len(scores))]
    return [s * min([1.0, *(f(ious[i][j]) / f(highest[i]) for i in better[j])]) for j, s in enumerate(scores)]


@pytest.mark.parametrize(("method", "sigma"), [("linear", 0.5), ("gaussian", 0.5), ("gaussian", 0.2)])
def test_matrix_nms_equals_the_loop(method: str, sigma: float) -> None:
    boxes, scores = random_boxes(40, 5)
    ious, idxs = box_iou(boxes, boxes), torch.arange(40) % 2
    f = (lambda u: 1 - u) if method == "linear" else (lambda u: math.exp(-(u**2) / sigma))
    for groups in (None, idxs):
        wanted = naive_matrix(ious.tolist(), scores.tolist(), [0] * 40 if groups is None else groups.tolist(), f)
        got = matrix_nms(ious, scores, groups, method, sigma)
        torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64))


def test_matrix_nms_by_hand() -> None:
    # b lies half on a; c half on b alone. b is halved; as a suppressor b counts by its own highest overlap, 1/2.
    ious = torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]])
    assert matrix_nms(ious, torch.tensor([0.8, 0.6, 0.4]), method="linear").tolist() == pytest.approx([0.8, 0.3, 0.4])
    # Twins: the second is gone, and what is gone suppresses nothing, so that only the first halves the third.
    twins = torch.tensor([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]])
    assert matrix_nms(twins, torch.full((3,), 0.8), method="linear").tolist() == pytest.approx([0.8, 0, 0.4])
    nans = torch.full((2, 2), float("nan"))
    assert matrix_nms(nans, torch.tensor([0.5, 0.8])).tolist() == pytest.approx([0.5, 0.8])
    assert matrix_nms(torch.zeros(0, 0), torch.zeros(0)).shape == (0,)


def test_matrix_nms_has_gradients_and_compiles() -> None:
    boxes, scores = random_boxes(8, 6)
    ious = box_iou(boxes, boxes).requires_grad_()
    scores = (scores + torch.arange(8) * 1e-3).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, s: matrix_nms(i, s), (ious, scores))
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        compiled = torch.compile(lambda i, s: matrix_nms(i, s), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(ious, scores), matrix_nms(ious, scores))
        call = (boxes, scores.detach(), None, "linear", 0.3, 0.5, 0.01)
        torch.library.opcheck(soft_suppression._soft_nms, call)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_misfits_are_named() -> None:
    boxes, scores = torch.zeros(2, 4), torch.zeros(2)
    with pytest.raises(UsageError, match="wanted 'linear' or 'gaussian'"):
        soft_nms(boxes, scores, "hard")
    with pytest.raises(RecordError, match="above 0"):
        matrix_nms(torch.zeros(2, 2), scores, sigma=0)
    with pytest.raises(RecordError, match="0 or more"):
        soft_nms(boxes, scores, iou_threshold=-1)


def test_a_steep_gaussian_is_hard_suppression() -> None:
    boxes, scores = random_boxes(60, 7)
    indices, _ = soft_nms(boxes, scores, "gaussian", sigma=1e-12, score_threshold=1e-6)
    assert torch.equal(indices, nms(boxes, scores, 0))
