"""The convex solver against liblinear, its own certificate, bounds and groups; and the bounded cache."""

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.latent_svm import ExampleCache, WeightRules


def free_rules(blocks: int, width: int) -> WeightRules:
    return WeightRules(torch.ones(blocks, width), torch.full((blocks, width), -torch.inf))


def keys_of(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers).long()[:, None].repeat(1, 4)


def noisy(count: int = 200, width: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = (0.4 * rng.normal(size=(count, width))).astype(np.float32)
    return rows, np.where(rows @ rng.normal(size=width) + rng.normal(size=count) > 0, 1, -1)


def filled(rules: WeightRules, rows: np.ndarray, signs: np.ndarray, cost: float, groups: np.ndarray) -> ExampleCache:
    cache = ExampleCache(rules, len(rows), cost)
    blocks = torch.arange(len(rows)) % len(rules.floors)
    for sign in (1, -1):
        mine = np.flatnonzero(signs == sign)
        cache.add(torch.from_numpy(rows[mine]), blocks[mine], sign, keys_of(groups[mine]))
    return cache


@pytest.mark.parametrize("cost", [0.01, 1.0])
def test_it_finds_liblinears_hyperplane(cost: float) -> None:
    from sklearn.svm import LinearSVC

    rows, signs = noisy()
    cache = filled(free_rules(1, 30), rows, signs, cost, np.arange(len(rows)))
    found = cache.solve(tolerance=1e-4)
    svm = LinearSVC(C=cost, loss="hinge", fit_intercept=False, tol=1e-8, max_iter=200_000).fit(rows, signs)
    wanted = 0.5 * (svm.coef_**2).sum() + cost * np.maximum(0, 1 - signs * (rows @ svm.coef_[0])).sum()
    assert found.objective == pytest.approx(wanted, rel=1e-4)
    assert 0 <= found.gap <= 1e-4 * found.objective  # as far as single precision goes
    # The objective is 1-strongly convex: so near must be weights whose objective is so near.
    assert ((cache.weights[0].numpy() - svm.coef_[0]) ** 2).sum() <= 2 * found.gap + 1e-3


def test_bounds_hold_and_nothing_allowed_is_better() -> None:
    rows, signs = noisy(seed=1)
    rules = free_rules(2, 30)
    rules.floors[:, :8] = 0.1
    rules.weighing[1] = 3
    groups = np.where(signs > 0, np.arange(200), 1000 + np.arange(200) % 40)
    cache = filled(rules, rows, signs, 0.2, groups)
    found = cache.solve(tolerance=1e-4)
    assert bool((cache.weights >= rules.floors).all())
    assert bool((cache.weights[:, :8] == 0.1).any())  # a bound that binds
    best, generator = cache.weights, torch.Generator().manual_seed(0)
    for size in (0.1, 0.01, 0.001):
        for _ in range(50):
            other = best + size * torch.randn(best.shape, generator=generator)
            cache.start_from(torch.maximum(other, rules.floors))
            assert cache.objective() >= found.objective - found.gap - 1e-5


def test_a_negative_with_several_placements_counts_once_by_the_worst() -> None:
    rules = free_rules(1, 2)
    cache = ExampleCache(rules, 10, 0.5)
    same = torch.zeros(2, 4, dtype=torch.int64)
    cache.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2).long(), -1, same)
    cache.start_from(torch.tensor([[0.5, 2.0]]))
    assert cache.objective() == pytest.approx(0.5 * (0.25 + 4) + 0.5 * 3.0)
    cache.add(torch.tensor([[1.0, 1.0]]), torch.zeros(1).long(), 1, same[:1] + 1)
    # Alone, two negatives along the axes and a positive between them; the group's dual variables share one cost.
    found = cache.solve(tolerance=1e-6)
    grid = torch.linspace(-1, 1, 201)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    every = 0.5 * (a**2 + b**2) + 0.5 * ((1 + torch.maximum(a, b)).clamp(min=0) + (1 - a - b).clamp(min=0))
    assert found.objective == pytest.approx(float(every.min()), abs=1e-3)


def test_adding_rows_never_lowers_the_minimum_and_solving_never_raises_it() -> None:
    rows, signs = noisy(seed=2)
    cache = ExampleCache(free_rules(1, 30), 200, 0.5)
    least = 0.0
    for part in np.array_split(np.arange(200), 4):
        for sign in (1, -1):
            mine = part[signs[part] == sign]
            cache.add(torch.from_numpy(rows[mine]), torch.zeros(len(mine)).long(), sign, keys_of(mine))
        before = cache.objective()
        found = cache.solve(tolerance=1e-4)
        assert found.objective <= before + 1e-6
        assert found.objective >= least - 1e-6
        least = found.objective - found.gap


def test_the_cache_is_bounded_and_forgets_what_is_easy() -> None:
    rows, signs = noisy(seed=3)
    cache = ExampleCache(free_rules(1, 30), 120, 1.0)
    numbers = np.arange(200)
    mine = numbers[signs < 0][:90]
    assert cache.add(torch.from_numpy(rows[mine]), torch.zeros(90).long(), -1, keys_of(mine)) == 90
    assert cache.add(torch.from_numpy(rows[mine]), torch.zeros(90).long(), -1, keys_of(mine)) == 0  # known
    other = numbers[signs > 0][:90]
    assert cache.add(torch.from_numpy(rows[other]), torch.zeros(90).long(), 1, keys_of(other)) == 30
    assert (len(cache), cache.room, cache.num_positives) == (120, 0, 30)
    before = cache.solve(tolerance=1e-5)
    gone = cache.drop_easy()
    assert 0 < gone < 90
    assert cache.num_positives == 30
    assert cache.objective() == pytest.approx(before.objective, rel=1e-6)
    assert cache.solve(tolerance=1e-5).objective == pytest.approx(before.objective, rel=1e-4)
    cache.drop_positives()
    assert cache.num_positives == 0
    assert len(cache) == 90 - gone


def test_shorter_rows_are_followed_by_zeros() -> None:
    cache = ExampleCache(free_rules(2, 5), 4, 1.0)
    cache.add(torch.ones(1, 3), torch.ones(1).long(), 1, torch.zeros(1, 4).long())
    cache.start_from(torch.arange(10.0).view(2, 5))
    assert cache.margins().tolist() == [5 + 6 + 7]


def test_nothing_to_learn_from_gives_the_least_weights() -> None:
    rules = free_rules(1, 3)
    rules.floors[0, 1] = 0.25
    cache = ExampleCache(rules, 4, 1.0)
    assert cache.solve().objective == pytest.approx(0.5 * 0.25**2)
    assert cache.weights.tolist() == [[0, 0.25, 0]]


def test_bad_rules_are_refused() -> None:
    with pytest.raises(RecordError):
        WeightRules(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(RecordError):
        ExampleCache(free_rules(1, 2), 0, 1.0)
