"""Ridge regression against the normal equations written out, and what it does to boxes."""

import pytest
import torch
from torch import Tensor

from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import UsageError
from bestiary.heads import ridge_boxes
from bestiary.heads.ridge_boxes import RidgeBoxes, ridge


def written_out(features: Tensor, offsets: Tensor, scale: float, penalty: float, whiten: bool) -> Tensor:
    """(X'X + p)^-1 X'Y in one piece, with the authors' whitening of Y if wanted."""
    rows = torch.cat([features.double() * scale, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    centred = offsets.double() - offsets.double().mean(0)
    forth = back = torch.eye(4, dtype=torch.float64)
    if whiten:
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        forth = vectors @ torch.diag((values + 0.001).rsqrt()) @ vectors.T
        back = vectors @ torch.diag((values + 0.001).sqrt()) @ vectors.T
    gram = rows.T @ rows + penalty * torch.eye(rows.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, rows.T @ (centred @ forth)) @ back


@pytest.mark.parametrize("count", [7, 20, 60])
@pytest.mark.parametrize("at_once", [4, 2048])
def test_the_solution_of_either_form_is_that_of_the_normal_equations(count, at_once, monkeypatch) -> None:
    monkeypatch.setattr(ridge_boxes, "AT_ONCE", at_once)
    torch.manual_seed(0)
    features, offsets = torch.randn(count, 20), torch.randn(count, 4)
    for whiten in (False, True):
        wanted = written_out(features, offsets, 0.7, 3.0, whiten)
        torch.testing.assert_close(ridge(features, offsets, 0.7, 3.0), wanted, rtol=1e-9, atol=1e-12)


def test_features_are_scaled_and_the_mean_offset_is_put_back() -> None:
    torch.manual_seed(0)
    features, offsets, labels = torch.rand(50, 6), torch.randn(50, 4) + 2, torch.arange(50) % 2
    boxes = RidgeBoxes(3, penalty=10.0)
    boxes.fit(features, offsets, labels)
    scale = float(20 / features.norm(dim=1).mean())
    for label in (0, 1):
        mine = labels == label
        solution = written_out(features[mine], offsets[mine], scale, 10.0, True).float()
        wanted = features @ solution[:-1] * scale + solution[-1] + offsets[mine].mean(0)
        torch.testing.assert_close(boxes(features)[:, label], wanted, rtol=1e-4, atol=1e-5)
    assert not boxes(features)[:, 2].any(), "a category without examples"


def test_without_weights_a_box_stays_where_it_is() -> None:
    boxes = RidgeBoxes(2)
    boxes.fit(torch.zeros(0, 5), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    regions = torch.tensor([[3.0, 4.0, 50.0, 60.0]])
    torch.testing.assert_close(BoxCodec().decode(boxes(torch.rand(1, 5))[:, 1], regions), regions)


def test_a_linear_relation_is_learned_and_a_large_penalty_leaves_the_mean() -> None:
    torch.manual_seed(0)
    features = torch.rand(400, 8)
    offsets, labels = features @ torch.randn(8, 4) * 0.1 + 0.3, torch.zeros(400, dtype=torch.int64)
    learned, held = RidgeBoxes(1, penalty=1e-3), RidgeBoxes(1, penalty=1e12)
    for boxes in (learned, held):
        boxes.fit(features, offsets, labels)
    torch.testing.assert_close(learned(features)[:, 0], offsets, atol=1e-3, rtol=0)
    torch.testing.assert_close(held(features)[:, 0], offsets.mean(0).expand(400, 4), atol=1e-4, rtol=0)


def test_at_most_so_many_examples_evenly_spread() -> None:
    torch.manual_seed(0)
    features, offsets, labels = torch.rand(100, 3), torch.randn(100, 4), torch.zeros(100, dtype=torch.int64)
    some, twin = RidgeBoxes(1, most=40), RidgeBoxes(1)
    some.fit(features, offsets, labels)
    scale_kept = features.clone()
    twin.fit(scale_kept[::3], offsets[::3], labels[::3])
    assert some.weight.shape == twin.weight.shape == (1, 4, 3)
    scale = float(20 / features.norm(dim=1).mean())
    solution = written_out(features[::3], offsets[::3], scale, 1000.0, False).float()
    torch.testing.assert_close(some.weight[0], solution[:-1].T * scale)


def test_forgetting_and_refusals() -> None:
    boxes = RidgeBoxes(1)
    boxes.fit(torch.rand(5, 2), torch.rand(5, 4), torch.zeros(5, dtype=torch.int64))
    assert boxes.is_fitted
    boxes.forget()
    assert not boxes.is_fitted
    for wrong in ({"penalty": 0.0}, {"target_norm": -1.0}, {"most": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            RidgeBoxes(1, **wrong)
