"""The descent ends where liblinear does."""

import pytest
import torch
from sklearn.svm import LinearSVC

from bestiary.errors import RecordError
from bestiary.layers.hinge_machine import separate


def examples(count: int = 300, positives: int = 80, width: int = 40) -> torch.Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    rows[:positives, :4] += 0.8
    return rows


def objective(
    weight, bias: float, rows: torch.Tensor, positives: int, cost: float, scale: float, extra: float
) -> float:
    signs = torch.where(torch.arange(len(rows)) < positives, 1.0, -1.0).double()
    costs = torch.where(torch.arange(len(rows)) < positives, extra, 1.0).double() * cost
    hinges = (1 - signs * (rows.double() @ torch.as_tensor(weight).double() + bias)).clamp(min=0)
    return float(0.5 * (torch.as_tensor(weight).double().square().sum() + (bias / scale) ** 2) + (costs * hinges).sum())


@pytest.mark.parametrize(("cost", "scale", "extra"), [(0.01, 1.0, 1.0), (1.0, 3.0, 1.0), (0.1, 1.0, 2.5)])
def test_the_objective_is_liblinears(cost: float, scale: float, extra: float) -> None:
    rows, positives = examples(), 80
    plane = separate(
        rows, positives, cost=cost, bias_scale=scale, positive_weight=extra, tolerance=1e-4, most_passes=50_000
    )
    weights = {1: extra, 0: 1.0}
    solver = LinearSVC(C=cost, loss="hinge", intercept_scaling=scale, class_weight=weights, tol=1e-6, max_iter=100_000)
    solver.fit(rows.double().numpy(), (torch.arange(300) < positives).int().numpy())
    best = objective(solver.coef_[0], float(solver.intercept_[0]), rows, positives, cost, scale, extra)
    assert objective(plane.weight, plane.bias, rows, positives, cost, scale, extra) == pytest.approx(best, rel=1e-4)
    torch.testing.assert_close(plane.weight.double(), torch.from_numpy(solver.coef_[0]), atol=2e-3, rtol=0)


def test_alphas_are_those_of_the_optimum() -> None:
    """Examples beyond the margin have none, those within it all of their cost, and together they make the weights."""
    rows, positives = examples(), 80
    plane = separate(rows, positives, cost=0.1, tolerance=1e-4)
    signs = torch.where(torch.arange(300) < positives, 1.0, -1.0)
    room = signs * (rows @ plane.weight + plane.bias)
    assert (plane.alphas[room > 1.01] == 0).all()
    assert torch.allclose(plane.alphas[room < 0.99], torch.tensor(0.1))
    torch.testing.assert_close((plane.alphas * signs) @ rows, plane.weight, atol=1e-5, rtol=0)


def test_the_answer_is_the_same_again() -> None:
    one, other = (separate(examples(), 80, cost=1.0, seed=3) for _ in range(2))
    assert torch.equal(one.weight, other.weight)
    assert one.bias == other.bias


def test_one_class_alone_is_everywhere() -> None:
    assert separate(examples(), 300, cost=1.0).bias == 1
    assert separate(examples(), 0, cost=1.0).bias == -1
    assert not separate(examples(), 0, cost=1.0).weight.any()


def test_numbers_that_cannot_be_are_named() -> None:
    with pytest.raises(RecordError, match="positives"):
        separate(examples(), 301, cost=1.0)
    with pytest.raises(RecordError, match="cost"):
        separate(examples(), 80, cost=0)
