"""Nearest descriptors against brute force, the tests a pair must pass, and the geometry that pairs agree on."""

import math

import pytest
import torch

from bestiary import draw
from bestiary.draw.matches import keypoints, matches
from bestiary.errors import RecordError
from bestiary.features import matching
from bestiary.features.keypoints import Keypoints
from bestiary.features.matching import match, nearest
from bestiary.features.verification import proposals, verify
from bestiary.geometry.fitting import map_points


def rows(count: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("queries", "stored", "k"), [(37, 500, 1), (5, 3, 9), (130, 64, 4), (3, 65, 65)])
def test_nearest_is_brute_force(monkeypatch: pytest.MonkeyPatch, queries: int, stored: int, k: int) -> None:
    monkeypatch.setattr(matching, "_ROWS_AT_ONCE", 100)
    monkeypatch.setattr(matching, "_QUERIES_AT_ONCE", 50)
    sought, store = rows(queries), rows(stored, seed=1)
    distances, numbers = nearest(sought, store, k)
    wanted, order = torch.cdist(sought.double(), store.double()).sort(dim=1)
    assert torch.equal(numbers, order[:, :k])
    assert torch.allclose(distances.double(), wanted[:, :k], atol=1e-6)


def test_bytes_are_whole_numbers_and_equal_rows_come_in_order() -> None:
    store = torch.tensor([[0, 250], [3, 4], [0, 250], [0, 0]], dtype=torch.uint8)
    distances, numbers = nearest(torch.tensor([[0, 250], [0, 0]], dtype=torch.uint8), store, 3)
    assert numbers.tolist() == [[0, 2, 1], [3, 1, 0]]
    assert distances[1].tolist() == [0.0, 5.0, 250.0]
    assert distances[0, 1] == 0


def test_nothing_to_match_gives_nothing() -> None:
    for one, other in ((0, 5), (5, 0), (0, 0)):
        found = match(rows(one), rows(other), mutual=True)
        assert len(found) == 0
        assert found.first.dtype == torch.int64
    assert nearest(rows(3), rows(0), 2)[0].shape == (3, 0)


def test_the_ratio_leaves_out_what_has_a_rival() -> None:
    second = torch.tensor([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0]])
    first = torch.tensor([[0.5, 0.0], [9.0, 0.0], [0.1, 0.0]])
    found = match(first, second)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(1, 2), (2, 0)]
    assert found.distance.tolist() == pytest.approx([1.0, 0.1])
    assert match(first, second, ratio=None).first.tolist() == [0, 1, 2]
    # 1 / 8 exactly at the ratio is not below it.
    assert match(torch.tensor([[9.0, 0.0]]), second, ratio=1 / 8).first.tolist() == []
    # Nothing else there: no rival.
    assert match(first, second[:1]).first.tolist() == [0, 1, 2]


def test_mutual_asks_both_sides() -> None:
    first, second = torch.tensor([[0.0], [0.4]]), torch.tensor([[0.5], [9.0]])
    assert match(first, second, ratio=None).first.tolist() == [0, 1]
    both = match(first, second, ratio=None, mutual=True)
    assert (both.first.tolist(), both.second.tolist()) == ([1], [0])


def test_widths_and_numbers_that_do_not_fit(unchecked: None) -> None:
    with pytest.raises(RecordError, match="width"):
        nearest(rows(2, 4), rows(2, 5), 1)
    with pytest.raises(RecordError, match="k"):
        nearest(rows(2), rows(2), 0)
    with pytest.raises(RecordError, match="ratio"):
        match(rows(2), rows(2), ratio=1.5)


def scattered(count: int, seed: int = 0) -> Keypoints:
    g = torch.Generator().manual_seed(seed)
    xy, scale = 300 * torch.rand(count, 2, generator=g), 1 + 4 * torch.rand(count, generator=g)
    return Keypoints(xy, scale, 2 * math.pi * torch.rand(count, generator=g))


def seen_from_elsewhere(points: Keypoints, turn: float = 0.7, zoom: float = 1.4) -> tuple[Keypoints, torch.Tensor]:
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    matrix = torch.tensor([[cos, -sin, 30.0], [sin, cos, -12.0]], dtype=torch.float64)
    xy = map_points(points.xy.double(), matrix).float()
    return Keypoints(xy, zoom * points.scale, torch.remainder(points.angle + turn, 2 * math.pi)), matrix


def test_each_pair_proposes_the_map() -> None:
    points = scattered(6)
    seen, matrix = seen_from_elsewhere(points)
    assert torch.allclose(proposals(points, seen), matrix.expand(6, 2, 3), atol=1e-3)


def test_the_map_is_found_among_three_quarters_wrong() -> None:
    points = scattered(80)
    seen, matrix = seen_from_elsewhere(points)
    noise = scattered(80, seed=9)
    right = torch.arange(80) < 20
    mixed = Keypoints(
        torch.where(right[:, None], seen.xy, 400 + noise.xy),
        torch.where(right, seen.scale, noise.scale),
        torch.where(right, seen.angle, noise.angle),
    )
    found = verify(points, mixed, 3.0)
    assert torch.equal(found.inliers, right)
    assert torch.allclose(found.matrix, matrix, atol=1e-3)


def test_a_point_at_the_right_place_but_turned_or_of_another_size_does_not_agree() -> None:
    points = scattered(12)
    seen, _ = seen_from_elsewhere(points)
    angle, scale = seen.angle.clone(), seen.scale.clone()
    angle[0], scale[1] = torch.remainder(angle[0] + 1.0, 2 * math.pi), 3 * scale[1]
    found = verify(points, Keypoints(seen.xy, scale, angle), 1.0)
    assert found.inliers.tolist() == [False, False] + [True] * 10


def test_a_point_counts_once_however_many_are_matched_with_it() -> None:
    points = scattered(5)
    crowd = Keypoints(*(torch.cat([f, f[:1].expand(4, *f.shape[1:])]) for f in (points.xy, points.scale, points.angle)))
    seen, _ = seen_from_elsewhere(crowd)
    assert verify(crowd, seen, 5.0).inliers.sum() == 5
    many_to_one = Keypoints(seen.xy[[0] * 5], seen.scale[[0] * 5], seen.angle[[0] * 5])
    assert verify(points, many_to_one, 1e5).inliers.sum() == 1


def test_none_one_and_collinear_pairs() -> None:
    nothing = verify(Keypoints.empty(), Keypoints.empty(), 1.0)
    assert nothing.inliers.shape == (0,)
    one = scattered(1)
    seen, matrix = seen_from_elsewhere(one)
    alone = verify(one, seen, 1.0)
    assert alone.inliers.tolist() == [True]
    assert torch.allclose(alone.matrix, matrix, atol=1e-3)
    line = Keypoints(torch.arange(12.0).reshape(6, 2) * 9, torch.ones(6), torch.zeros(6))
    moved, matrix = seen_from_elsewhere(line)
    found = verify(line, moved, 0.5)
    assert found.inliers.all()
    # An affine fit would be free to squeeze what lies beside the line.
    assert torch.allclose(found.matrix, matrix, atol=1e-3)


def test_matches_are_drawn_between_their_points() -> None:
    left, right = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.zeros(1, 40, 50)
    ends = torch.tensor([[10.5, 20.5]]), torch.tensor([[30.5, 20.5]])
    drawn = matches(left, right, *ends)
    assert drawn.shape == draw.side_by_side(left, right).shape
    # A line that is smoothed at its sides is a little darker than its colour.
    for x in (40, 84 + 26):
        assert drawn[:, 20, x].tolist() == pytest.approx(draw.colour_of(0), abs=25)
    assert drawn[:, 40, 20].tolist() == [0, 0, 0]
    wrong = matches(left, right, *ends, right_ones=torch.tensor([False]))
    assert wrong[:, 20, 40].tolist() == pytest.approx([128] * 3, abs=15)


def test_points_without_partners_are_not_drawn(unchecked: None) -> None:
    picture, ends = torch.zeros(3, 30, 30), torch.ones(2, 2)
    with pytest.raises(RecordError, match="right_xy"):
        matches(picture, picture, ends, ends[:1])
    with pytest.raises(RecordError, match="right_ones"):
        matches(picture, picture, ends, ends, torch.tensor([True]))
    with pytest.raises(RecordError, match="scale"):
        keypoints(picture, ends, torch.ones(2), torch.ones(1))


def test_keypoints_are_drawn_as_circles_with_their_angle() -> None:
    picture = torch.zeros(3, 60, 60, dtype=torch.uint8)
    drawn = keypoints(picture, torch.tensor([[30.5, 30.5]]), torch.tensor([5.0]), torch.tensor([math.pi / 2]))
    assert drawn[:, 38, 30].any()
    assert drawn[:, 30, 45].any()
    assert not drawn[:, 22, 30].any()
    assert not keypoints(picture, torch.tensor([[float("nan"), 1]]), torch.ones(1), torch.ones(1)).any()
