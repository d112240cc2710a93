import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.membranes import MEASURES, MembraneScores, pixel_error, simple_points, warped, warping_error
from bestiary.predictions import Segmentation
from bestiary.records import Target

AROUND = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
FOUR, EIGHT = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)


def betti(cells: np.ndarray, connectivity: int) -> tuple[int, int]:
    """Numbers of cells and of parts of membrane, beyond the picture being membrane."""
    padded = np.pad(cells, 1)
    ours, theirs = (FOUR, EIGHT) if connectivity == 4 else (EIGHT, FOUR)
    return ndimage.label(padded, ours)[1], ndimage.label(~padded, theirs)[1]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_simple_point_keeps_all_parts_of_every_neighbourhood(connectivity: int) -> None:
    for bits in range(256):
        patch = np.zeros((3, 3), bool)
        for n, (dy, dx) in enumerate(AROUND):
            patch[1 + dy, 1 + dx] = bits >> n & 1
        filled = patch.copy()
        filled[1, 1] = True
        # Locally simple: flipping changes neither number, with the ring in place of the rest of the picture.
        ours, theirs = (FOUR, EIGHT) if connectivity == 4 else (EIGHT, FOUR)
        kept = all(
            ndimage.label(a, s)[1] == ndimage.label(b, s)[1]
            for a, b, s in ((patch, filled, ours), (~patch, ~filled, theirs))
        )
        assert simple_points(connectivity)[bits] == kept, bits


def test_counts_of_simple_points() -> None:
    # Known: 116 of the 256 neighbourhoods, for both pairs of connectivities.
    assert int(simple_points(4).sum()) == int(simple_points(8).sum()) == 116


def two_cells(wall: int, gap: int | None = None) -> np.ndarray:
    cells = np.zeros((9, 13), bool)
    cells[1:-1, 1:-1] = True
    cells[:, wall] = False
    if gap is not None:
        cells[gap, wall] = True
    return cells


def test_a_shifted_membrane_costs_nothing_a_hole_in_it_something() -> None:
    truth = two_cells(6)
    shifted = two_cells(7)
    assert pixel_error(truth, shifted) > 0
    assert warping_error(truth, shifted) == 0
    merged = two_cells(6, gap=4)
    assert pixel_error(truth, merged) == warping_error(truth, merged) == 1 / truth.size
    assert np.array_equal(warped(truth, merged), truth), "the pixel that joins two cells may not flip"
    # A split at the same price in pixels.
    assert warping_error(two_cells(6, gap=4), truth) == 1 / truth.size


def test_a_cell_that_is_not_there_shrinks_to_one_pixel_and_a_new_one_costs_all() -> None:
    nothing, square = np.zeros((7, 7), bool), np.zeros((7, 7), bool)
    square[2:5, 2:5] = True
    assert warping_error(square, nothing) == 1 / 49
    assert warping_error(nothing, square) == 9 / 49
    assert warping_error(square, square) == 0


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_warping_keeps_the_topology_and_ends_where_no_flip_is_left(seed: int, connectivity: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = ndimage.zoom(rng.random((2, 6, 6)), (1, 4, 4), order=1) > 0.5
    found = warped(truth, said, connectivity=connectivity)
    assert betti(found, connectivity) == betti(truth, connectivity)
    assert (found != said).sum() <= (truth != said).sum()
    assert not ((found != said) & (truth == said)).any(), "only pixels that differed have moved"
    table = simple_points(connectivity)
    padded = np.pad(found, 1)
    for y, x in np.argwhere(found != said).tolist():
        bits = sum(int(padded[y + 1 + dy, x + 1 + dx]) << n for n, (dy, dx) in enumerate(AROUND))
        assert not table[bits]


def test_surer_pixels_flip_first() -> None:
    # The truth has one membrane; the prediction has one left of it and one right of it, and is surer of the right one.
    truth = two_cells(6)
    probs = np.where(two_cells(4) & two_cells(8), 1.0, 0.3)
    probs[1:-1, 8] = 0.0
    probs[[0, -1]], probs[:, [0, -1]] = 0.0, 0.0
    found = warped(truth, probs)
    assert not found[4, 8]
    assert warping_error(truth, probs) > 0
    assert betti(found, 4) == betti(truth, 4)


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = ndimage.zoom(rng.random((6, 6)), 5, order=1)
    truth = (smooth > 0.4).astype(np.uint8)
    return truth, np.clip(smooth + rng.normal(0, 0.05, smooth.shape), 0, 1).astype(np.float32)


def predicted(probs: np.ndarray, name: str = "") -> Segmentation:
    both = torch.from_numpy(np.stack([1 - probs, probs]))
    return Segmentation((both[1] > 0.5).to(torch.uint8), tuple(probs.shape), probs=both, name=name)


def target(truth: np.ndarray) -> Target:
    return Target(label_map=torch.from_numpy(truth))


def test_each_measure_is_taken_at_its_best_threshold() -> None:
    scores = MembraneScores(["membrane", "cell"], thresholds=(0.2, 0.4, 0.6))
    for seed in range(3):
        truth, probs = maps(seed)
        scores.update([predicted(probs)], [target(truth)])
    found = scores.compute()
    rows = found.details["by threshold"]
    assert set(rows) == {"0.2", "0.4", "0.6"}
    assert found.values["rand_f"] == max(row["rand_f"] for row in rows.values())
    assert found.values["warping_error"] == min(row["warping_error"] for row in rows.values())
    best = found.details["best thresholds"]["rand_f"]
    assert found.values["rand_split"] == rows[f"{best:g}"]["rand_split"]
    errors = [pixel_error(maps(seed)[0] == 1, maps(seed)[1] > 0.4) for seed in range(3)]
    assert rows["0.4"]["pixel_error"] == pytest.approx(np.mean(errors))


def test_a_right_answer_is_perfect_with_and_without_probabilities() -> None:
    truth, _ = maps(0)
    for prediction in (predicted(truth.astype(np.float32)), Segmentation(torch.from_numpy(truth), truth.shape)):
        scores = MembraneScores(["membrane", "cell"])
        scores.update([prediction], [target(truth)])
        values = scores.compute().values
        assert set(values) == set(MEASURES)
        assert (values["rand_f"], values["info_f"], values["pixel_f"]) == pytest.approx((1, 1, 1))
        assert values["warping_error"] == values["pixel_error"] == 0


def test_unknown_pixels_change_nothing_whatever_was_said_there() -> None:
    truth, probs = maps(1)
    truth[5:9, 5:9] = 255
    results = []
    for value in (0.0, 1.0):
        changed = probs.copy()
        changed[6:8, 6:8] = value
        scores = MembraneScores(["membrane", "cell"], thresholds=(0.5,))
        scores.update([predicted(changed)], [target(truth)])
        results.append(scores.compute().values)
    assert results[0]["pixel_error"] == results[1]["pixel_error"]
    assert results[0]["warping_error"] == results[1]["warping_error"]


def test_thick_membranes_cost_nothing_where_cells_are_grown() -> None:
    truth = two_cells(6).astype(np.uint8)
    thick = two_cells(6).astype(np.uint8)
    thick[:, 5:8] = 0
    numbers = []
    for thin in (False, True):
        scores = MembraneScores(["membrane", "cell"], thin=thin)
        scores.update([Segmentation(torch.from_numpy(thick), thick.shape)], [target(truth)])
        numbers.append(scores.compute().values["rand_f"])
    assert numbers[0] < numbers[1] == 1


def test_halves_merge_to_the_whole() -> None:
    whole, left, right = (MembraneScores(["membrane", "cell"], thresholds=(0.3, 0.5)) for _ in range(3))
    for seed in range(4):
        truth, probs = maps(seed)
        for scores in (whole, left if seed < 2 else right):
            scores.update([predicted(probs)], [target(truth)])
    left.merge(right)
    assert left.compute().values == pytest.approx(whole.compute().values)
    with pytest.raises(UsageError, match="thin"):
        left.merge(MembraneScores(["membrane", "cell"], thresholds=(0.3, 0.5), thin=True))


def test_nothing_seen_is_nan_and_bad_input_is_named() -> None:
    scores = MembraneScores(["membrane", "cell"])
    assert all(math.isnan(v) for v in scores.compute().values.values())
    truth, probs = maps(0)
    with pytest.raises(RecordError, match=r"a\.png: got a target without label_map"):
        scores.update([predicted(probs, "a.png")], [Target()])
    with pytest.raises(RecordError, match="a map of"):
        scores.update([predicted(probs[:8], "a.png")], [target(truth)])
    with pytest.raises(RecordError, match="1 predictions"):
        scores.update([predicted(probs)], [])
    for wrong in ({"categories": ["a"]}, {"cell": 2}, {"thresholds": ()}, {"thresholds": (0.5, 1.0)}):
        with pytest.raises(UsageError):
            MembraneScores(**{"categories": ["a", "b"], **wrong})
    with pytest.raises(RecordError, match="size"):
        warped(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
