"""The four kinds of suppression against their definitions."""

import pytest
import torch
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads import suppression
from bestiary.heads.suppression import Suppression
from bestiary.ops import batched_nms, batched_soft_nms


def crowd(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 30
    boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2, generator=draw) * 8], 1)
    return boxes, torch.rand(count, generator=draw), torch.randint(0, 3, (count,), generator=draw)


def test_hard_is_batched_nms() -> None:
    boxes, scores, labels = crowd()
    for rule, overlap in ((Suppression(), 0.4), (Suppression(iou=0.3), 0.3)):
        kept, same = rule(boxes, scores, labels, 0.4)
        assert torch.equal(kept, batched_nms(boxes, scores, labels, overlap))
        assert torch.equal(same, scores[kept])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_is_batched_soft_nms(method: str) -> None:
    boxes, scores, labels = crowd()
    kept, lowered = Suppression(f"soft_{method}", sigma=0.3)(boxes, scores, labels, 0.4)  # type: ignore[arg-type]
    wanted, values = batched_soft_nms(boxes, scores, labels, method, 0.4, 0.3, 0.001)
    assert torch.equal(kept, wanted)
    assert torch.equal(lowered, values)


def test_matrix_by_the_loops_of_its_equations() -> None:
    boxes, scores, labels = crowd(25)
    kept, lowered = Suppression("matrix", sigma=0.4, min_score=0.05)(boxes, scores, labels)
    ious, by_hand = pairwise_iou(boxes, boxes), {}
    for j in range(25):
        factor = 1.0
        for i in range(25):
            if labels[i] == labels[j] and scores[i] > scores[j]:
                better = [float(ious[k, i]) for k in range(25) if labels[k] == labels[i] and scores[k] > scores[i]]
                own = max(better, default=0.0)
                factor = min(factor, float(torch.exp(torch.tensor((own**2 - float(ious[i, j]) ** 2) / 0.4))))
        if float(scores[j]) * factor >= 0.05:
            by_hand[j] = float(scores[j]) * factor
    assert dict(zip(kept.tolist(), lowered.tolist(), strict=True)) == pytest.approx(by_hand, rel=1e-5)
    assert lowered.tolist() == sorted(lowered.tolist(), reverse=True)


def test_matrix_keeps_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "MATRIX_MOST", 4)
    boxes, scores, labels = crowd(50)
    kept, _ = Suppression("matrix", min_score=0.0)(boxes, scores, labels)
    assert len(kept) == 12
    for label in range(3):
        mine = scores[labels == label].sort(descending=True).values[:4]
        assert torch.equal(scores[kept[labels[kept] == label]].sort(descending=True).values, mine)


@pytest.mark.parametrize("kind", ["nms", "soft_linear", "soft_gaussian", "matrix"])
def test_no_box_gives_no_box(kind: str) -> None:
    kept, scores = Suppression(kind)(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))  # type: ignore[arg-type]
    assert (kept.dtype, len(kept), len(scores)) == (torch.int64, 0, 0)


def test_a_kind_that_does_not_exist_is_named(unchecked: None) -> None:
    with pytest.raises(UsageError, match="soft_gaussian"):
        Suppression("soft")  # type: ignore[arg-type]
