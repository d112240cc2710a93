from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary import ops
from bestiary.errors import RecordError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.ops import suppression
from bestiary.ops.overlaps import require_boxes4
from bestiary.ops.suppression import descending_order, rounded_down, suppressed_in_torch


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape checks off: tracers and the compiler cannot look into them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def iou(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    # Areas are small integers and exact; the quotient is rounded to float32, as the operator's is.
    return float(np.float32(w * h / union)) if union else float("nan")


def naive_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: list[int], threshold: float) -> list[int]:
    rows = boxes.double().tolist()
    order = sorted(range(len(rows)), key=lambda i: (-float(scores[i]), i))
    kept: list[int] = []
    for j in order:
        if not any(groups[i] == groups[j] and iou(rows[i], rows[j]) > threshold for i in kept):
            kept.append(j)
    return kept


def random_boxes(count: int, seed: int, extent: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores on coarse grids, so that ties and equal boxes occur, and every area and overlap is exact."""
    g = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, extent, (count, 2), generator=g).float()
    sizes = torch.randint(0, extent // 2, (count, 2), generator=g).float()
    scores = torch.randint(0, 30, (count,), generator=g).float() / 30
    return torch.cat([corners, corners + sizes], dim=1), scores


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 300])
def test_nms_equals_the_loop_over_all_pairs(count: int, threshold: float) -> None:
    boxes, scores = random_boxes(count, seed=count)
    assert ops.nms(boxes, scores, threshold).tolist() == naive_nms(boxes, scores, [0] * count, threshold)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 4))
def test_batched_nms_equals_the_loop_within_groups(count: int, seed: int, threshold: float, groups: int) -> None:
    boxes, scores = random_boxes(count, seed)
    idxs = torch.randint(0, groups, (count,), generator=torch.Generator().manual_seed(seed)) * 7 - 3
    got = ops.batched_nms(boxes, scores, idxs, threshold)
    assert got.tolist() == naive_nms(boxes, scores, idxs.tolist(), threshold)


def test_a_box_exactly_at_the_threshold_stays_and_one_above_goes() -> None:
    # 10 x 10 against 10 x 5 inside it: IoU is exactly 1/2.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.4999999).tolist() == [0]


def test_the_threshold_is_not_rounded_up_to_float32() -> None:
    # IoU 1/10 in float32 is more than the double 0.1; torchvision compares with the double, and suppresses.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert torch.tensor(0.1).double() > 0.1
    assert ops.nms(boxes, scores, 0.1).tolist() == [0]
    assert ops.nms(boxes.double(), scores.double(), 0.1).tolist() == [0, 1]
    assert rounded_down(0.1, torch.float32) < 0.1 < float(torch.tensor(0.1))
    assert rounded_down(0.5, torch.float32) == 0.5


def test_hand_worked_chain() -> None:
    # b overlaps a and c; a suppresses b, so c, which only b would suppress, stays.
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert ops.nms(boxes, scores, 0.3).tolist() == [0, 2]
    assert ops.nms(boxes, torch.tensor([0.7, 0.9, 0.8]), 0.3).tolist() == [1]


def test_equal_scores_rank_by_index_and_empty_boxes_never_suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 9, 9], [9, 9, 9, 9]])
    assert ops.nms(boxes, torch.full((4,), 0.5), 0.5).tolist() == [0, 2, 3]


def test_no_boxes() -> None:
    empty = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert empty.shape == (0,)
    assert empty.dtype == torch.int64
    assert ops.batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).shape == (0,)


def test_nms_is_idempotent_and_does_not_depend_on_order() -> None:
    boxes, _ = random_boxes(400, seed=5, extent=200)
    scores = torch.rand(400, generator=torch.Generator().manual_seed(1))
    kept = ops.nms(boxes, scores, 0.4)
    assert ops.nms(boxes[kept], scores[kept], 0.4).tolist() == list(range(len(kept)))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    assert torch.equal(order[ops.nms(boxes[order], scores[order], 0.4)], kept)


def in_torch(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor | None, threshold: float) -> torch.Tensor:
    def overlaps(better: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return pairwise_iou(boxes[better], boxes[others])

    return suppressed_in_torch(overlaps, scores, idxs, rounded_down(threshold, boxes.dtype))


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_plain_torch_path_equals_the_kernel(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "_BLOCK", 128)
    boxes, scores = random_boxes(1000, seed=8, extent=300)
    groups = torch.randint(0, 3, (1000,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(in_torch(boxes, scores, groups, threshold), ops.batched_nms(boxes, scores, groups, threshold))
    assert torch.equal(in_torch(boxes, scores, None, threshold), ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize("shift", [0.0, -400.0, 30_000.0])
@pytest.mark.parametrize("threshold", [0.0, 0.06, 0.2, 0.5, 0.9, 1.0])
def test_filing_boxes_in_a_grid_leaves_none_out(threshold: float, shift: float) -> None:
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(1500, 2, generator=g) * torch.tensor([500.0, 60.0])
    size = torch.rand(1500, 2, generator=g).mul(4).exp() * torch.tensor([3.0, 6.0])
    boxes, scores = torch.cat([centre - size / 2, centre + size / 2], dim=1) + shift, torch.rand(1500, generator=g)
    boxes[700:900] = boxes[500:700] + torch.rand(200, 1, generator=g)  # near twins
    boxes[3], boxes[4, 2], boxes[5, 0] = float("nan"), float("inf"), float("-inf")
    boxes[6] = boxes[6, [2, 1, 0, 3]]  # inverted
    assert torch.equal(ops.nms(boxes, scores, threshold), in_torch(boxes, scores, None, threshold))
    assert torch.equal(ops.nms(boxes.double(), scores, threshold), in_torch(boxes.double(), scores, None, threshold))


@pytest.mark.parametrize("count", [0, 1, 2, 255, 3000])
def test_the_order_is_that_of_a_stable_sort(count: int) -> None:
    g = torch.Generator().manual_seed(count)
    scores = (
        torch.randint(-40, 40, (count,), generator=g).float()
        / 7
        * 10.0 ** torch.randint(-30, 30, (count,), generator=g)
    )
    if count > 200:
        scores[10:20], scores[40], scores[41] = float("nan"), float("inf"), float("-inf")
        scores[50], scores[51], scores[52] = -0.0, 0.0, 1e-45
        scores[60] = -torch.tensor(float("nan"))
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        wanted = torch.sort(scores.to(dtype), descending=True, stable=True).indices
        assert torch.equal(descending_order(scores.to(dtype)), wanted)


def test_groups_may_be_any_integers() -> None:
    boxes, scores = random_boxes(60, seed=3)
    idxs = torch.arange(60) % 3
    far = torch.tensor([-(2**40), 5, 2**40])[idxs]
    assert torch.equal(ops.batched_nms(boxes, scores, far, 0.4), ops.batched_nms(boxes, scores, idxs, 0.4))
    assert torch.equal(ops.batched_nms(boxes, scores, idxs.int(), 0.4), ops.batched_nms(boxes, scores, idxs, 0.4))


def test_inclusive_ends_are_pixel_numbers() -> None:
    # 10 x 10 and 10 x 5 pixels: half, at the threshold. Read as continuous, 9 x 4 of 9 x 9 is less.
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])
    scores, idxs = torch.tensor([0.9, 0.8]), torch.tensor([1, 1])
    assert ops.nms(boxes, scores, 0.49, inclusive=True).tolist() == [0]
    assert ops.nms(boxes, scores, 0.5, inclusive=True).tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.49).tolist() == [0, 1]
    assert ops.batched_nms(boxes, scores, idxs, 0.49, inclusive=True).tolist() == [0]
    # One pixel each, the same one: continuous boxes would be empty.
    same = torch.zeros(2, 4)
    assert ops.nms(same, scores, 0.5, inclusive=True).tolist() == [0]
    assert ops.nms(same, scores, 0.5).tolist() == [0, 1]


def test_the_eager_call_and_the_operator_agree() -> None:
    boxes, scores = random_boxes(300, seed=9)
    idxs = torch.arange(300) % 5
    assert torch.equal(suppression._nms(boxes, scores, 0.4), ops.nms(boxes, scores, 0.4))
    assert torch.equal(suppression._batched_nms(boxes, scores, idxs, 0.4), ops.batched_nms(boxes, scores, idxs, 0.4))


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(RecordError, match="0 or more"):
        ops.nms(torch.zeros(1, 4), torch.zeros(1), -0.1)


def test_half_precision_and_noncontiguous_boxes() -> None:
    boxes, scores = random_boxes(50, seed=4)
    wanted = ops.nms(boxes, scores, 0.5)
    assert torch.equal(ops.nms(boxes.to(torch.bfloat16), scores, 0.5), wanted)
    assert torch.equal(ops.nms(boxes.t().contiguous().t(), scores, 0.5), wanted)
    assert torch.equal(ops.nms(boxes.clone().requires_grad_(), scores.clone().requires_grad_(), 0.5), wanted)


def test_shifted_boxes_of_the_exporters_form_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = random_boxes(200, seed=6)
    boxes = boxes - 30  # negative coordinates must not reach into the neighbouring group
    idxs = torch.arange(200) % 4
    wanted = ops.batched_nms(boxes, scores, idxs, 0.5)
    monkeypatch.setattr(suppression, "exporting", lambda: True)
    assert torch.equal(ops.batched_nms(boxes, scores, idxs, 0.5), wanted)
    assert ops.batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).shape == (0,)


def test_compiled_whole(unchecked: None) -> None:
    boxes, scores = random_boxes(40, seed=2)

    def both(boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        idxs = torch.zeros(len(scores), dtype=torch.int64)
        return scores[ops.nms(boxes, scores, 0.5)], scores[ops.batched_nms(boxes, scores, idxs, 0.5)]

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
        for got, wanted in zip(compiled(boxes, scores), both(boxes, scores), strict=True):
            assert torch.equal(got, wanted)


def test_traced_graph_holds_one_translatable_node(unchecked: None) -> None:
    boxes, scores = random_boxes(40, seed=2)
    idxs = torch.arange(40) % 3
    graph = torch.jit.trace(lambda b, s, i: ops.batched_nms(b, s, i, 0.5), (boxes, scores, idxs), check_trace=False)
    kinds = [node.kind() for node in graph.graph.nodes()]
    assert kinds.count("bestiary::nms") == 1
    assert "bestiary::batched_nms" not in kinds


def refuse(boxes: torch.Tensor, scores: torch.Tensor) -> None:
    require_boxes4("nms(boxes)", boxes)
    suppression.require_candidates("nms", boxes, scores, 0.5)


@pytest.mark.parametrize(
    ("boxes", "scores"), [(torch.zeros(3, 5), torch.zeros(3)), (torch.zeros(3, 4), torch.zeros(2))]
)
def test_misfits_are_named(boxes: torch.Tensor, scores: torch.Tensor) -> None:
    with pytest.raises(Exception) as caught:  # beartype is first to see some of them in the suite
        ops.nms(boxes, scores, 0.5)
    assert "nms" in str(caught.value)
    with pytest.raises(RecordError, match="wanted"):
        refuse(boxes, scores)


def test_operators_are_well_formed(unchecked: None) -> None:
    boxes, scores = random_boxes(20, seed=1)
    torch.library.opcheck(suppression._nms, (boxes, scores, 0.5))
    torch.library.opcheck(suppression._batched_nms, (boxes, scores, torch.zeros(20, dtype=torch.int64), 0.5))
