"""The sum over hypotheses is that of brute force, learning never falls, and a planted star is found."""

import itertools
import math

import numpy as np
import pytest

from bestiary.errors import RecordError
from bestiary.features.constellation import Background, PartModel, Views, explain, reordered
from bestiary.features.constellation_learning import LearnSettings, improved, learn, objective

STAR = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 25.0], [-18.0, 14.0]])
LOOKS = np.array([[3.0, 0, 0, 0, 1], [0, 3, 0, -2, 0], [0, 0, -3, 0, 2], [-2, -2, 0, 3, 0]])
RADIUS = 5.0


def star_views(pictures: int, seed: int, clutter: float = 8, missing: float = 0.1) -> Views:
    """Four parts that stand in a star anywhere in 100 x 100 pixels, each missing now and then, among clutter."""
    rng = np.random.default_rng(seed)
    places, looks, starts = [], [], [0]
    for _ in range(pictures):
        centre = rng.uniform(30, 70, 2)
        for p in range(4):
            if rng.random() >= missing:
                places.append([*(centre + STAR[p] + rng.normal(size=2)), math.log(RADIUS) + 0.1 * rng.normal()])
                looks.append(LOOKS[p] + 0.3 * rng.normal(size=5))
        for _ in range(rng.poisson(clutter)):
            places.append([*rng.uniform(0, 100, 2), math.log(rng.uniform(3, 16))])
            looks.append(1.5 * rng.normal(size=5))
        starts.append(len(places))
    return Views(np.array(places), np.array(looks), np.array(starts), np.full(pictures, 1e4))


def background_of(views: Views) -> Background:
    count = len(views.places) / len(views)
    return Background(views.appearances.mean(0), views.appearances.var(0), count, math.log(16 / 3))


def random_model(parts: int, seed: int, size: int = 3) -> PartModel:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3 * parts - 3, 3 * parts - 3))
    found = rng.uniform(0.1, 1, 1 << parts)
    return PartModel(
        rng.normal(size=3 * parts - 3),
        root @ root.T + np.eye(3 * parts - 3),
        rng.normal(size=(parts, size)),
        rng.uniform(0.5, 2, (parts, size)),
        found / found.sum(),
        2.5,
    )


def gaussian(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    gap = x - mean
    return float(
        np.exp(-0.5 * gap @ np.linalg.solve(covariance, gap)) / math.sqrt(np.linalg.det(2 * math.pi * covariance))
    )


def brute_ratio(model: PartModel, background: Background, views: Views, is_scaled: bool) -> float:
    """The likelihood ratio of one picture, hypothesis by hypothesis, from the formula in the module's docstring."""
    parts, count = model.parts, len(views.places)
    mean = np.concatenate([np.zeros(3), model.means])
    covariance = np.zeros((3 * parts, 3 * parts))
    covariance[3:, 3:] = model.covariance
    total = 0.0
    for chosen in itertools.product(range(-1, count), repeat=parts):
        found = [p for p in range(parts) if chosen[p] >= 0]
        if len({chosen[p] for p in found}) < len(found):
            continue
        value = model.found[sum(1 << p for p in found)]
        for p in found:
            look = views.appearances[chosen[p]]
            value *= gaussian(look, model.appearance_means[p], np.diag(model.appearance_variances[p]))
            value /= gaussian(look, background.means, np.diag(background.variances)) * model.clutter
        if len(found) > 1:
            first = views.places[chosen[found[0]]]
            unit = math.exp(-first[2]) if is_scaled else 1.0
            relative = [(views.places[chosen[p]] - first) * (unit, unit, 1) for p in found[1:]]
            take = np.zeros((3 * len(found) - 3, 3 * parts))
            for row, p in enumerate(found[1:]):
                take[3 * row : 3 * row + 3, 3 * p : 3 * p + 3] = np.eye(3)
                take[3 * row : 3 * row + 3, 3 * found[0] : 3 * found[0] + 3] -= np.eye(3)
            value *= gaussian(np.concatenate(relative), take @ mean, take @ covariance @ take.T)
            value *= (views.areas[0] * background.log_radius_range * unit**2) ** (len(found) - 1)
        total += value
    poisson = (model.clutter / background.count) ** count * math.exp(background.count - model.clutter)
    return math.log(total * poisson)


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize(("parts", "count"), [(2, 6), (3, 4), (3, 0), (4, 3)])
def test_the_sum_over_hypotheses_is_that_of_brute_force(parts: int, count: int, is_scaled: bool) -> None:
    rng = np.random.default_rng(parts + 10 * count)
    model, background = random_model(parts, 1), Background(np.zeros(3), np.ones(3), 4.0, 1.7)
    places = np.concatenate([rng.normal(size=(count, 2)) * 3, rng.uniform(-0.5, 1, (count, 1))], 1)
    views = Views(places, rng.normal(size=(count, 3)), np.array([0, count]), np.array([50.0]))
    got = explain(model, background, views, is_scaled)
    assert got.log_ratios[0] == pytest.approx(brute_ratio(model, background, views, is_scaled), abs=3e-6)
    assert got.sums.moments[0, :, 0, 0].sum() == pytest.approx(1)
    assert (got.sums.owners.sum(1) <= 1 + 1e-9).all()


def test_the_best_hypothesis_holds_most_of_the_sum_where_all_is_clear() -> None:
    views = star_views(1, seed=3, clutter=3, missing=0.0)
    model = true_model()
    best = explain(model, background_of(star_views(40, 0)), views, is_scaled=False, tolerance=0.0)
    assert best.best[0].tolist() == [0, 1, 2, 3]
    whole = explain(model, background_of(star_views(40, 0)), views, is_scaled=False)
    assert 0 <= whole.log_ratios[0] - best.log_ratios[0] < 0.1


def true_model(found: float = 0.9) -> PartModel:
    sets = np.arange(16)
    here = np.array([int(s).bit_count() for s in sets])
    relative = np.concatenate([STAR[1:], np.zeros((3, 1))], 1).reshape(-1)
    covariance = np.kron(np.ones((3, 3)) + np.eye(3), np.diag([1.0, 1.0, 0.01]))
    return PartModel(relative, covariance, LOOKS, np.full((4, 5), 0.1), found**here * (1 - found) ** (4 - here), 8.0)


def test_a_moved_star_scores_the_same() -> None:
    views = star_views(5, seed=4)
    background = background_of(views)
    moved = Views(views.places + np.array([13.0, -7.0, 0.0]), views.appearances, views.starts, views.areas)
    here, there = (explain(true_model(), background, v, is_scaled=False).log_ratios for v in (views, moved))
    np.testing.assert_allclose(here, there, atol=1e-9)


def test_a_larger_star_scores_the_same_where_scale_is_removed() -> None:
    views = star_views(5, seed=4)
    background, scale = background_of(views), 1.7
    larger = views.places * (scale, scale, 1.0) + (0.0, 0.0, math.log(scale))
    model = true_model()
    model = PartModel(
        model.means * np.tile([1 / RADIUS, 1 / RADIUS, 1], 3), model.covariance * 0.1, *list(vars(model).values())[2:]
    )
    grown = Views(larger, views.appearances, views.starts, views.areas * scale**2)
    here, there = (explain(model, background, v, is_scaled=True).log_ratios for v in (views, grown))
    np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize("gone", range(4))
def test_a_missing_part_costs_but_does_not_forbid(gone: int) -> None:
    whole = star_views(1, seed=5, clutter=0, missing=0.0)
    keep = np.array([p for p in range(4) if p != gone])
    background = Background(np.zeros(5), np.full(5, 2.25), 11.6, math.log(16 / 3))
    less = Views(whole.places[keep], whole.appearances[keep], np.array([0, 3]), whole.areas)
    full, short = (explain(true_model(), background, v, is_scaled=False).log_ratios[0] for v in (whole, less))
    assert math.isfinite(short)
    assert short < full
    assert short > 0  # three parts at their places still are no clutter


@pytest.mark.parametrize("is_scaled", [False, True])
def test_no_step_lowers_the_likelihood(is_scaled: bool) -> None:
    views = star_views(12, seed=6, missing=0.3)
    background, settings = background_of(views), LearnSettings(parts=3, is_scaled=is_scaled)
    model = learn(
        views, background, LearnSettings(3, is_scaled, restarts=1, swaps=0, steps=1), np.random.default_rng(0)
    )
    heights = []
    for _ in range(25):
        explanation = explain(model, background, views, is_scaled, tolerance=1e-12)
        heights.append(objective(model, explanation))
        model = improved(model, background, views, explanation, settings.position_floor)
    assert all(later >= sooner - 1e-7 for sooner, later in itertools.pairwise(heights))
    assert heights[-1] > heights[0] + 1


def test_a_planted_star_is_learned_from_clutter() -> None:
    views = star_views(60, seed=0)
    history: list[float] = []
    settings = LearnSettings(parts=4, is_scaled=False)
    model = learn(views, background_of(views), settings, np.random.default_rng(1), history.append)
    assert all(later >= sooner - 1e-4 for sooner, later in itertools.pairwise(history))
    order = [int(((model.appearance_means - look) ** 2).sum(1).argmin()) for look in LOOKS]
    assert sorted(order) == [0, 1, 2, 3]
    model = reordered(model, order)
    assert np.abs(model.means.reshape(3, 3)[:, :2] - STAR[1:]).max() < 2
    assert model.found[-1] == pytest.approx(0.9**4, abs=0.15)
    assert model.clutter == pytest.approx(8, abs=1)


def test_the_seed_decides_what_is_learned() -> None:
    views, quick = star_views(10, seed=8), LearnSettings(parts=3, restarts=2, swaps=4, steps=4)
    first, second, other = (learn(views, background_of(views), quick, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first.means, second.means)
    assert not np.array_equal(first.means, other.means)


def test_another_order_of_the_parts_says_the_same() -> None:
    views = star_views(4, seed=7, missing=0.4)
    background, model = background_of(views), random_model(4, 2, 5)
    here = explain(model, background, views, is_scaled=False).log_ratios
    there = explain(reordered(model, [2, 0, 3, 1]), background, views, is_scaled=False).log_ratios
    np.testing.assert_allclose(here, there, atol=3e-6)
    back = reordered(reordered(model, [2, 0, 3, 1]), [1, 3, 0, 2])
    np.testing.assert_allclose(back.means, model.means, atol=1e-12)
    np.testing.assert_allclose(back.found, model.found)


def test_pictures_without_regions_enough_are_refused() -> None:
    views = Views(np.zeros((2, 3)), np.zeros((2, 4)), np.array([0, 2]), np.array([100.0]))
    with pytest.raises(RecordError, match="3 or more"):
        learn(views, Background(np.zeros(4), np.ones(4), 2.0, 1.0), LearnSettings(parts=3), np.random.default_rng(0))


def test_views_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecordError, match="starts"):
        Views(np.zeros((2, 3)), np.zeros((2, 4)), np.array([0, 1]), np.array([100.0]))
