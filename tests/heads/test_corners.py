"""From maps of corners to boxes, against plain loops."""

import pytest
import torch
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.heads.corners import (
    HEAT_BIAS,
    NEVER,
    CornerHead,
    CornerMaps,
    CornerPool,
    Corners,
    PairSettings,
    best_corners,
    pair_corners,
    peaks_of,
)
from bestiary.ops import corner_pool


def maps_of(seed: int, categories: int = 3, size: tuple[int, int] = (9, 12), batch: int = 2) -> CornerMaps:
    rng = torch.Generator().manual_seed(seed)
    heat = torch.randn(batch, categories, *size, generator=rng)
    return CornerMaps(heat, torch.randn(batch, 1, *size, generator=rng), torch.rand(batch, 2, *size, generator=rng))


def corner(score: float, label: int, x: float, y: float, tag: float) -> Corners:
    return Corners(torch.tensor([[score]]), torch.tensor([[label]]), torch.tensor([[[x, y]]]), torch.tensor([[tag]]))


# -- the head ----------------------------------------------------------------------------------------------------------


def test_a_top_left_corner_sees_what_lies_below_and_to_its_right() -> None:
    for which, sees in (("top_left", lambda y, x: y <= 5 and x <= 6), ("bottom_right", lambda y, x: y >= 5 and x >= 6)):
        torch.manual_seed(0)
        pool = CornerPool(8, 8, which).eval()  # pyright: ignore[reportArgumentType]
        maps = torch.zeros(1, 8, 10, 12)
        still = pool(maps)
        maps[0, :, 5, 6] = 100
        moved = (pool(maps) - still).abs().sum(1)[0] > 1e-6
        # beyond the three 3x3 convolutions only cells on the corner's side know of the point
        for y, x in ((0, 6), (5, 0)):
            assert bool(moved[y, x]) == sees(y, x)
        for y, x in ((9, 6), (5, 11)):
            assert bool(moved[y, x]) == sees(y, x)
        assert not moved[0, 0]
        assert not moved[9, 11]


def test_the_corner_pool_is_its_equation() -> None:
    torch.manual_seed(0)
    pool, maps = CornerPool(4, 3, "bottom_right").eval(), torch.randn(2, 4, 6, 7)
    summed = corner_pool(pool.vertical(maps), "bottom") + corner_pool(pool.horizontal(maps), "right")
    wanted = pool.out(torch.relu(pool.sum_bn(pool.sum_conv(summed)) + pool.skip_bn(pool.skip_conv(maps))))
    torch.testing.assert_close(pool(maps), wanted)


def test_heat_starts_at_a_probability_of_a_tenth() -> None:
    head = CornerHead(4, 4, 3, 5, "top_left")
    maps = head(torch.randn(1, 4, 8, 9))
    assert [tuple(m.shape) for m in maps] == [(1, 5, 8, 9), (1, 1, 8, 9), (1, 2, 8, 9)]
    assert torch.sigmoid(torch.tensor(HEAT_BIAS)).item() == pytest.approx(0.1, abs=1e-3)
    assert head.get_parameter("heat.1.bias").eq(HEAT_BIAS).all()


# -- corners -----------------------------------------------------------------------------------------------------------


def peaks_by_loops(heat: Tensor) -> list[tuple[float, int, int, int]]:
    """Probability, category, row and column of every cell that no neighbour exceeds, best first."""
    found = []
    for k, y, x in torch.cartesian_prod(*(torch.arange(n) for n in heat.shape)).tolist():
        neighbours = heat[k, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        if heat[k, y, x] >= neighbours.max():
            found.append((float(heat[k, y, x].sigmoid()), k, y, x))
    return sorted(found, reverse=True)


def test_corners_are_the_best_peaks_where_their_offsets_say() -> None:
    maps = maps_of(0)
    found = best_corners(maps, 10)
    for picture in range(2):
        wanted = peaks_by_loops(maps.heat[picture])[:10]
        assert found.scores[picture].tolist() == pytest.approx([w[0] for w in wanted])
        assert found.labels[picture].tolist() == [w[1] for w in wanted]
        for place, (_, _, y, x) in enumerate(wanted):
            dx, dy = maps.offset[picture, :, y, x].tolist()
            assert found.xy[picture, place].tolist() == pytest.approx([x + dx, y + dy])
            assert float(found.tags[picture, place]) == float(maps.tag[picture, 0, y, x])


def test_cells_that_are_no_peaks_are_no_corners() -> None:
    maps = maps_of(1, categories=1, size=(4, 5), batch=1)
    found = best_corners(maps, 100)
    count = int(peaks_of(maps.heat).sum())
    assert found.scores.shape == (1, 20)
    assert (found.scores[0, :count] > 0).all()
    assert (found.scores[0, count:] == NEVER).all()


# -- pairs -------------------------------------------------------------------------------------------------------------

GOOD = corner(0.9, 1, 2.5, 3.25, 0.1), corner(0.5, 1, 7.0, 9.5, 0.6)


def test_two_corners_make_a_box_with_the_mean_of_their_scores() -> None:
    boxes, scores, labels = pair_corners(*GOOD, PairSettings())
    assert boxes.tolist() == [[[2.5, 3.25, 7.0, 9.5]]]
    assert scores.tolist() == [[pytest.approx(0.7)]]
    assert labels.tolist() == [[1]]


@pytest.mark.parametrize(
    "second",
    [
        corner(0.5, 0, 7.0, 9.5, 0.1),  # of another category
        corner(0.5, 1, 7.0, 9.5, 0.61),  # of another object
        corner(0.5, 1, 2.5, 9.5, 0.1),  # not to its right
        corner(0.5, 1, 7.0, 3.0, 0.1),  # above it
        corner(NEVER, 1, 7.0, 9.5, 0.1),  # no peak
    ],
)
def test_corners_that_make_no_box(second: Corners) -> None:
    assert pair_corners(GOOD[0], second, PairSettings())[1].tolist() == [[NEVER]]


def test_pairs_equal_plain_loops() -> None:
    settings = PairSettings(pairs=20, max_distance=1.5)
    first, second = (best_corners(maps_of(seed, categories=2, size=(10, 12)), 30) for seed in (2, 3))
    boxes, scores, labels = pair_corners(first, second, settings)
    for b in range(2):
        wanted = []
        for i, j in torch.cartesian_prod(torch.arange(30), torch.arange(30)).tolist():
            if first.scores[b, i] != NEVER and second.scores[b, j] != NEVER:
                same = first.labels[b, i] == second.labels[b, j]
                near = (first.tags[b, i] - second.tags[b, j]).abs() <= 1.5
                if same and near and (first.xy[b, i] < second.xy[b, j]).all():
                    score = float(first.scores[b, i] + second.scores[b, j]) / 2
                    box = [*first.xy[b, i].tolist(), *second.xy[b, j].tolist()]
                    wanted.append((score, int(first.labels[b, i]), box))
        wanted = sorted(wanted, reverse=True)[:20]
        assert len(wanted) > 3
        alive = scores[b] > NEVER
        assert scores[b, alive].tolist() == pytest.approx([w[0] for w in wanted])
        assert labels[b, alive].tolist() == [w[1] for w in wanted]
        torch.testing.assert_close(boxes[b, alive], torch.tensor([w[2] for w in wanted]))


def test_settings_that_cannot_be() -> None:
    for corners, pairs, max_distance in ((0, 1, 0.5), (1, 0, 0.5), (1, 1, -0.1)):
        with pytest.raises(UsageError, match="wanted at least one corner and pair"):
            PairSettings(corners, pairs, max_distance)
