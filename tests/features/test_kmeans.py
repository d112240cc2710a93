"""k-means: its objective, its empty clusters, its exact assignment."""

import itertools

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.features import kmeans as module
from bestiary.features.kmeans import kmeans, nearest_centres


def blobs(count: int, each: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = 10 * torch.rand(count, 5, generator=generator)
    return centres, centres.repeat_interleave(each, 0) + 0.05 * torch.randn(count * each, 5, generator=generator)


def test_the_objective_never_rises() -> None:
    points = torch.rand(500, 8, generator=torch.Generator().manual_seed(0))
    objective = kmeans(points, 20, tolerance=0.0, iterations=40).objective
    assert len(objective) > 5
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(objective))


def test_blobs_are_found() -> None:
    centres, points = blobs(12)
    found = kmeans(points, 12)
    distance = torch.cdist(centres, found.centres).min(1).values
    assert float(distance.max()) < 0.05
    assert found.objective[-1] < 0.02


def test_an_empty_cluster_moves_to_the_farthest_point() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    index, distance = torch.tensor([0, 0, 0, 0]), torch.tensor([1.0, 0.0, 1.0, 2401.0])
    centres = module._means(points, index, distance, 2)
    assert centres[:, 0].tolist() == [13.25, 50.0]


def test_every_centre_is_used_where_there_are_points_enough() -> None:
    points = torch.cat([torch.zeros(60, 2), torch.eye(2).repeat(20, 1), torch.ones(20, 2)])
    found = kmeans(points, 4, iterations=20, tolerance=0.0)
    assert found.objective[-1] == 0
    assert torch.bincount(nearest_centres(points, found.centres)[0], minlength=4).min() > 0


def test_more_centres_than_different_points_end_without_error() -> None:
    found = kmeans(torch.ones(6, 3), 3)
    assert torch.isfinite(found.centres).all()


def test_the_same_seed_gives_the_same_centres() -> None:
    points = torch.rand(300, 4)
    assert torch.equal(kmeans(points, 9, seed=3).centres, kmeans(points, 9, seed=3).centres)
    assert not torch.equal(kmeans(points, 9, seed=3).centres, kmeans(points, 9, seed=4).centres)


def test_many_centres_start_from_different_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPREAD_LIMIT", 4)
    points = torch.arange(40.0)[:, None]
    start = module._start(points, 10, torch.Generator().manual_seed(0))
    assert len(start.unique()) == 10


def test_assignment_is_exact_and_ties_go_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 7 * 11)  # several blocks, the last one short
    points, centres = torch.randn(100, 6), torch.randn(7, 6)
    index, distance = nearest_centres(points, centres)
    wanted = torch.cdist(points, centres)
    assert torch.equal(index, wanted.argmin(1))
    torch.testing.assert_close(distance, wanted.min(1).values ** 2, atol=1e-4, rtol=1e-4)
    assert nearest_centres(torch.zeros(3, 6), centres[:1].repeat(4, 1))[0].tolist() == [0, 0, 0]


def test_another_way_of_finding_the_nearest_may_be_handed_in() -> None:
    asked = []

    def assign(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(centres))
        return nearest_centres(points, centres)

    kmeans(torch.rand(50, 3), 5, assign=assign)
    assert set(asked) == {5}


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_points(count: int) -> None:
    with pytest.raises(UsageError, match="3 points"):
        kmeans(torch.rand(3, 2), count)
