"""Objectness: each cue against a naive twin and where it must speak, the draw, the model, and what is learned."""

import numpy as np
import pytest
import torch
from tests.proposals.proposal_scenes import recall, scene

from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.proposals._kernels.objectness import (
    contrasts,
    draw_salient,
    edge_densities,
    integral,
    integral_counts,
    straddlings,
)
from bestiary.proposals.objectness import CUES, Objectness
from bestiary.proposals.objectness_cues import SmallPicture, salience_map
from bestiary.proposals.objectness_model import Places, Table, relative

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, (20, 30)).astype(np.int32)
WINDOWS = np.array([[0, 0, 30, 20], [3, 4, 9, 12], [0, 5, 1, 6], [10, 0, 30, 20], [29, 19, 30, 20]], np.int32)
QUICK = {"windows": 6000, "training_pictures": 6, "training_windows": 600}


def inside(window: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[window[1] : window[3], window[0] : window[2]] = True
    return mask


def test_integrals_are_sums() -> None:
    values = RNG.normal(size=(7, 9))
    np.testing.assert_allclose(integral(values)[1:, 1:], values.cumsum(0).cumsum(1))
    counts = integral_counts(LABELS, 5)
    for k in range(5):
        np.testing.assert_array_equal(counts[1:, 1:, k], (k == LABELS).cumsum(0).cumsum(1))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_contrast_is_the_chi_square_of_within_and_around(factor: float) -> None:
    found = np.zeros(len(WINDOWS), np.float32)
    contrasts(integral_counts(LABELS, 5), WINDOWS, factor, found)
    for window, value in zip(WINDOWS, found, strict=True):
        x1, y1, x2, y2 = window
        grow = (np.sqrt(1 + factor) - 1) / 2
        wide, tall = grow * (x2 - x1), grow * (y2 - y1)
        outer = np.array(
            [max(0, np.rint(x1 - wide)), max(0, np.rint(y1 - tall)), np.rint(x2 + wide), np.rint(y2 + tall)]
        )
        within = inside(window, LABELS.shape)
        around = inside(outer.astype(int), LABELS.shape) & ~within
        if not around.any():
            assert value == 0
            continue
        p, q = (np.bincount(LABELS[m], minlength=5) / m.sum() for m in (within, around))
        seen = p + q > 0
        assert value == pytest.approx(((p - q)[seen] ** 2 / (p + q)[seen]).sum(), abs=1e-5)


def test_straddling_counts_the_smaller_parts() -> None:
    found = np.zeros(len(WINDOWS), np.float32)
    straddlings(integral_counts(LABELS, 5), WINDOWS, found)
    for window, value in zip(WINDOWS, found, strict=True):
        within = inside(window, LABELS.shape)
        cut = sum(min((LABELS[within] == k).sum(), (LABELS[~within] == k).sum()) for k in range(5))
        assert value == pytest.approx(1 - cut / within.sum(), abs=1e-6)
    assert found[0] == 1  # the whole picture cuts nothing


def test_edges_in_the_ring_count() -> None:
    edges = np.zeros((40, 40))
    edges[10, 10:30] = edges[29, 10:30] = edges[10:30, 10] = edges[10:30, 29] = 1  # an outline of 76 pixels
    windows = np.array([[10, 10, 30, 30], [12, 12, 28, 28], [0, 0, 40, 40]], np.int32)
    found = np.zeros(3, np.float32)
    edge_densities(integral(edges), windows, 0.25, found)
    assert found[0] == pytest.approx(76 / (4 * 16))  # the ring is 2 pixels wide, the inner window 16
    assert found[1] == 0
    assert found[2] == 0  # the outline is deep inside


def test_windows_are_drawn_in_proportion_to_their_scores() -> None:
    rng = np.random.default_rng(3)
    salience = rng.random((9, 9)) ** 3
    above = salience >= 0.2
    mass, ones = integral(salience * above), integral(above.astype(float))
    weights = {}
    for y1 in range(8):
        for x1 in range(8):
            for y2 in range(y1 + 2, 10):
                for x2 in range(x1 + 2, 10):
                    part = above[y1:y2, x1:x2]
                    weights[x1, y1, x2, y2] = (salience[y1:y2, x1:x2] * part).sum() * part.sum() / part.size
    drawn: dict[tuple[int, ...], int] = dict.fromkeys(weights, 0)
    rounds = 400
    for offset in (np.arange(rounds) + 0.5) / rounds:
        windows, scores = draw_salient(mass, ones, (2, 2), 100, float(offset))
        assert 90 <= len(windows) <= 101
        assert len(np.unique(windows, axis=0)) == len(windows)
        for window, score in zip(windows.tolist(), scores.tolist(), strict=True):
            drawn[tuple(window)] += 1
            assert score == pytest.approx(weights[tuple(window)], rel=1e-5)
    total = sum(weights.values())
    expected = np.array([min(1.0, 100 * w / total) for w in weights.values()])
    np.testing.assert_allclose(np.array(list(drawn.values())) / rounds, expected, atol=2 / rounds)
    assert len(draw_salient(np.zeros((10, 10)), np.zeros((10, 10)), (2, 2), 100, 0.5)[0]) == 0


def test_what_stands_out_is_salient() -> None:
    rng = np.random.default_rng(0)
    picture = 0.5 + 0.05 * rng.normal(size=(64, 64))
    picture[20:28, 36:44] = 1.0
    found = salience_map(picture)
    assert found.min() == 0
    assert found.max() == 1
    assert found[18:30, 34:46].mean() > 3 * found.mean()
    assert (salience_map(np.full((16, 16), 0.3)) <= 1).all()


def test_each_cue_prefers_the_object_to_windows_beside_it() -> None:
    image = torch.full((3, 120, 160), 90, dtype=torch.uint8)
    image[0, 40:80, 60:110] = 230
    picture = SmallPicture.of(image, 256)
    windows = picture.windows(np.array([[60, 40, 110, 80], [40, 20, 90, 60], [5, 85, 55, 118]], np.float64))
    for values in (
        picture.contrast(windows, 1.0),
        picture.straddling(windows, 450.0),
        picture.edge_density(windows, 0.3),
    ):
        assert values[0] > values[1:].max()
    assert picture.straddling(windows, 450.0)[0] == pytest.approx(1, abs=0.1)


def test_windows_of_a_small_copy() -> None:
    picture = SmallPicture.of(torch.zeros(3, 400, 800, dtype=torch.uint8), 200)
    assert picture.size_hw == (100, 200)
    found = picture.windows(np.array([[80.0, 40, 160, 80], [799, 399, 800, 400], [0, 0, 0.1, 0.1]]))
    assert found.tolist() == [[20, 10, 40, 20], [199, 99, 200, 100], [0, 0, 1, 1]]


def test_a_table_says_how_much_a_value_speaks_for_objects() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(40_000) < 8000
    values = (rng.normal(size=40_000) + 1.5 * positive).astype(np.float32)
    table = Table.fitted(values, positive)
    at = np.linspace(-1, 2.5, 15, dtype=np.float32)
    np.testing.assert_allclose(table.of(at), 1.5 * at - 1.125, atol=0.35)  # of two Gaussians the truth is a line
    strong = Table.fitted(values + 3 * positive.astype(np.float32), positive)
    assert strong.certainty(values + 3 * positive.astype(np.float32), positive) > table.certainty(values, positive)
    assert (Table.silent().of(at) == 0).all()
    assert np.isfinite(Table.fitted(np.zeros(5, np.float32), np.array([True, False, True, False, False])).of(at)).all()


def test_places_are_dense_where_boxes_were() -> None:
    rng = np.random.default_rng(0)
    boxes = np.clip(rng.normal([0.3, 0.5, 0.2, 0.2], 0.03, (200, 4)), 0.01, 1)
    places = Places.fitted(boxes, rng)
    at = np.array([[0.3, 0.5, 0.2, 0.2], [0.3, 0.5, 0.5, 0.5], [0.8, 0.5, 0.2, 0.2]])
    found = places.densities(at)
    naive = [
        sum(
            np.exp(-0.5 * ((p - c) ** 2).sum() / r**2) / r**4
            for c, r in zip(places.centres, places.reaches, strict=True)
        )
        for p in at
    ]
    np.testing.assert_allclose(found, np.array(naive) / 200, rtol=1e-3, atol=1e-4)
    assert found[0] > 100 * max(found[1:])
    assert relative(np.array([[10.0, 20, 30, 60]]), (100, 200)).tolist() == [[0.1, 0.4, 0.1, 0.4]]


def test_it_learns_to_find_objects_and_says_what() -> None:
    said: list[str] = []
    proposer = Objectness(**QUICK)  # type: ignore[arg-type]
    proposer.fit([scene(50 + i) for i in range(10)], say=said.append)
    assert "thresholds of salience" in said[0]
    assert "6 pictures" in said[1]
    samples = [scene(i) for i in range(6)]
    together = recall(proposer, samples, 30)
    assert together > 0.6
    alone = Objectness(cues=("salience",), **QUICK)  # type: ignore[arg-type]
    for name in proposer.declared:
        alone.learn(name, getattr(proposer, name))
    assert together > recall(alone, samples, 30)
    assert alone.identity() != proposer.identity()
    boxes = proposer.propose(samples[0].image).boxes_xyxy
    overlaps = pairwise_iou(boxes, boxes)
    assert float((overlaps - torch.eye(len(boxes))).max()) <= 0.5 + 1e-6


def test_settings_out_of_range_are_named() -> None:
    for bad in ({"count": 0}, {"overlap": 1.0}, {"windows": 0}, {"side": 0}, {"cues": ()}):
        with pytest.raises(UsageError, match="objectness"):
            Objectness(**bad)  # type: ignore[arg-type]
    assert Objectness(cues=("place", "salience")).cues == ("salience", "place")
    assert Objectness().cues == CUES
