"""k-means: Lloyd's alternation from k-means++ centres (Arthur, Vassilvitskii, SODA 2007)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.errors import UsageError

SPREAD_LIMIT = 1000
"""Up to so many centres the start is k-means++; more start from random points, as in large vocabularies, where the
k passes of a careful start would take longer than the alternation."""

START_SHARE = 20
"""k-means++ draws from so many random points a centre (at least `LEAST_START`), not from all: each centre is a pass."""

LEAST_START = 10_000

_BLOCK_BYTES = 1 << 26
"""Distances held at a time."""

Assign = Callable[[Float32[Tensor, "N D"], Float32[Tensor, "K D"]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class KMeans:
    """Centres, and how they were found.

    Attributes:
        centres: K of them.
        objective: mean squared distance of a point to its centre, before each update of the centres: never rising
            (where the nearest centre is found exactly).
    """

    centres: Float32[Tensor, "K D"]
    objective: tuple[float, ...]


def nearest_centres(
    points: Float32[Tensor, "N D"], centres: Float32[Tensor, "K D"]
) -> tuple[Int64[Tensor, " N"], Float32[Tensor, " N"]]:
    """The nearest centre of each point (the first of equally near ones), and its squared distance.

    Exact, by blocked matrix products: never more than some 64 MB of distances at once.
    """
    index = torch.empty(len(points), dtype=torch.int64)
    distance = torch.empty(len(points))
    offsets = (centres * centres).sum(1) / 2
    step = max(1, _BLOCK_BYTES // (4 * len(centres)))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        likeness, index[start : start + step] = torch.addmm(offsets, part, centres.T, beta=-1).max(1)
        distance[start : start + step] = ((part * part).sum(1) - 2 * likeness).clamp_(min=0)
    return index, distance


def kmeans(
    points: Float32[Tensor, "N D"],
    count: int,
    seed: int = 0,
    iterations: int = 50,
    tolerance: float | int = 1e-3,
    assign: Assign = nearest_centres,
) -> KMeans:
    """`count` centres of `points`.

    A centre that no point is nearest to moves to the point that is farthest from its own (several take the next
    farthest): no centre is left without points where there are as many different ones.

    Args:
        points: at least `count`.
        seed: of the start.
        iterations: at most.
        tolerance: ends when the objective falls by less than this share of itself.
        assign: finds the nearest centre of each point: exactly, or approximately for very many centres.

    Raises:
        UsageError: fewer points than centres, or no centre asked for.
    """
    if not 1 <= count <= len(points):
        mend = "Take more pictures, or fewer words"
        raise UsageError(f"got {len(points)} points for {count} centres", where="kmeans", mend=mend)
    generator = torch.Generator().manual_seed(seed)
    centres = _start(points, count, generator)
    objective: list[float] = []
    for _ in range(max(1, iterations)):
        index, distance = assign(points, centres)
        objective.append(float(distance.double().mean()))
        if len(objective) > 1 and objective[-2] - objective[-1] <= tolerance * objective[-2]:
            break
        centres = _means(points, index, distance, count)
    return KMeans(centres, tuple(objective))


def _start(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    drawn = count if count > SPREAD_LIMIT else max(LEAST_START, START_SHARE * count)
    points = points[torch.randperm(len(points), generator=generator)[:drawn]]
    if count > SPREAD_LIMIT:
        return points
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    squares = (points * points).sum(1)
    distance = torch.full((len(points),), torch.inf)
    for _ in range(count - 1):
        last = points[chosen[-1]]
        torch.minimum(distance, (squares - 2 * (points @ last) + last @ last).clamp_(min=0), out=distance)
        reach = distance.double().cumsum(0)
        draw = torch.rand(1, dtype=torch.float64, generator=generator) * reach[-1]
        chosen.append(min(int(torch.searchsorted(reach, draw, right=True)), len(points) - 1))
    return points[chosen]


def _means(points: Tensor, index: Tensor, distance: Tensor, count: int) -> Tensor:
    sums = torch.zeros(count, points.shape[1]).index_add_(0, index, points)
    sizes = torch.bincount(index, minlength=count)
    centres = sums / sizes.clamp(min=1)[:, None]
    empty = (sizes == 0).nonzero()[:, 0]
    if len(empty):
        centres[empty] = points[distance.topk(len(empty)).indices]
    return centres
