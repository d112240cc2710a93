import math
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.ops import permutohedral
from bestiary.ops.gaussian_filters import exact_gaussian_filter
from bestiary.ops.permutohedral import (
    PermutohedralLattice,
    filter_by_kernel,
    filter_in_torch,
    lattice_by_kernel,
    lattice_in_torch,
    permutohedral_filter,
    permutohedral_lattice,
    scaled_filter,
)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape checks off: the compiler cannot look into them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def cloud(count: int, dimensions: int, extent: float, seed: int = 0) -> Tensor:
    return torch.rand(count, dimensions, generator=torch.Generator().manual_seed(seed)) * extent - extent / 3


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def naive_lattice_filter(values: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The paper's algorithm with vertices as tuples of coordinates in a dictionary."""
    dimensions = features.shape[1]
    corners = dimensions + 1
    lift = permutohedral._lift(dimensions).numpy()
    located: list[list[tuple[tuple[int, ...], float]]] = []
    grid: dict[tuple[int, ...], np.ndarray] = {}
    for feature, value in zip(features, values, strict=True):
        lifted = lift @ feature
        best = np.round(lifted / corners) * corners
        offset = lifted - best
        excess = round(best.sum() / corners)
        order = sorted(range(corners), key=lambda i: (-offset[i], i))
        for i in order[corners - excess :] if excess > 0 else ():
            best[i] -= corners
        for i in order[:-excess] if excess < 0 else ():
            best[i] += corners
        offset = np.sort((lifted - best) / corners)[::-1]
        order = sorted(range(corners), key=lambda i: (-(lifted - best)[i], i))
        shares = []
        for k in range(corners):
            vertex = best + k
            for i in order[corners - k :]:
                vertex[i] -= corners
            weight = 1 - offset[0] + offset[-1] if k == 0 else offset[corners - k - 1] - offset[corners - k]
            shares.append((tuple(int(v) for v in vertex), weight))
            grid[shares[-1][0]] = grid.get(shares[-1][0], 0) + weight * value
        located.append(shares)
    nothing = np.zeros(values.shape[1])
    for direction in range(corners):
        step = np.ones(corners, int)
        step[direction] -= corners
        grid = {
            key: value / 2 + (grid.get(tuple(key + step), nothing) + grid.get(tuple(np.array(key) - step), nothing)) / 4
            for key, value in grid.items()
        }
    sliced = [sum(weight * grid[key] for key, weight in shares) for shares in located]
    return np.array(sliced) * permutohedral._peak(dimensions)


def one(values: Tensor) -> Tensor:
    return values.new_ones(len(values))


def fields(features: Tensor, plain: bool, dtype: torch.dtype = torch.float64) -> PermutohedralLattice:
    build = lattice_in_torch if plain else lattice_by_kernel
    return PermutohedralLattice(*build(features.double(), permutohedral._lift(features.shape[1]), dtype))


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_both_paths_equal_the_paper_with_a_dictionary_of_vertices(dimensions: int) -> None:
    features, values = cloud(60, dimensions, 4.0).double(), numbers(60, 3).double()
    wanted = torch.from_numpy(naive_lattice_filter(values.numpy(), features.numpy()))
    for plain, compute in ((False, filter_by_kernel), (True, filter_in_torch)):
        torch.testing.assert_close(
            compute(values, fields(features, plain), one(values), one(values)), wanted, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize(("dimensions", "extent", "error"), [(1, 40, 0.02), (2, 10, 0.04), (3, 5, 0.06), (5, 3, 0.12)])
def test_it_is_near_the_sum_over_all_pairs(dimensions: int, extent: float, error: float) -> None:
    features, ones = cloud(3000, dimensions, extent), torch.ones(3000, 1)
    lattice, total = permutohedral_lattice(features), exact_gaussian_filter(ones, features)
    assert ((permutohedral_filter(ones, lattice) - total) / total).square().mean().sqrt() < error
    # Weighted means of what varies as slowly as the filter sees are right within 3 % of its range.
    values = torch.sin(features)
    means = permutohedral_filter(values, lattice) / permutohedral_filter(ones, lattice)
    assert (means - exact_gaussian_filter(values, features) / total).abs().mean() < 0.03


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_a_dense_cloud_has_the_mass_of_a_gaussian(dimensions: int) -> None:
    # One unit at the origin, read everywhere: the integral is (2 pi)^(d / 2) and the variance 1 an axis.
    reach = 5.0
    points = (torch.rand(60_000, dimensions, generator=torch.Generator().manual_seed(3)) * 2 - 1) * reach
    points[0] = 0.3
    values = torch.zeros(60_000, 1)
    values[0] = 1
    seen = permutohedral_filter(values, points)[:, 0] * (2 * reach) ** dimensions / 60_000
    assert float(seen.sum()) == pytest.approx((2 * math.pi) ** (dimensions / 2), rel=0.1)
    variance = ((points - points[0]).square() * seen[:, None]).sum(dim=0) / seen.sum()
    torch.testing.assert_close(variance, torch.ones(dimensions), rtol=0.12, atol=0)


def test_weighted_means_leave_constants_alone_and_stay_within_the_values() -> None:
    features, values = cloud(500, 4, 6.0), numbers(500, 3)
    lattice = permutohedral_lattice(features)
    total = permutohedral_filter(torch.ones(500, 1), lattice)
    torch.testing.assert_close(
        permutohedral_filter(torch.full((500, 2), 7.0), lattice) / total, torch.full((500, 2), 7.0)
    )
    means = permutohedral_filter(values, lattice) / total
    assert means.min() >= values.min() - 1e-5
    assert means.max() <= values.max() + 1e-5
    torch.testing.assert_close(
        permutohedral_filter(2 * values + 1, lattice), 2 * permutohedral_filter(values, lattice) + total
    )


def test_hand_worked_line() -> None:
    # d = 1: vertices lie sqrt(3) / 2 apart. A point on one gives it all, and touches one neighbour with
    # weight zero: (1, 0) -> (1/2, 1/4) -> (1/4 + 1/16, 1/8 + 1/8).
    peak = math.sqrt(4 * math.pi / 3) * math.sqrt(2)
    alone = permutohedral_filter(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
    assert float(alone) == pytest.approx(2 * peak * 5 / 16, rel=1e-6)
    pair = permutohedral_filter(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [math.sqrt(3) / 2]]))
    torch.testing.assert_close(pair[:, 0], torch.tensor([5 / 16, 4 / 16]) * peak, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_transposed_filter() -> None:
    features = cloud(25, 3, 3.0).double()
    values = numbers(25, 2).double().requires_grad_()
    lattice = permutohedral_lattice(features)
    assert torch.autograd.gradcheck(lambda v: permutohedral_filter(v, lattice), (values,))
    assert torch.autograd.gradgradcheck(lambda v: permutohedral_filter(v, lattice), (values,))
    matrix = permutohedral_filter(torch.eye(25, dtype=torch.float64), features)
    (grad,) = torch.autograd.grad(permutohedral_filter(values, lattice)[4, 1], values)
    torch.testing.assert_close(grad[:, 1], matrix[4])
    assert (matrix - matrix.t()).abs().max() > 1e-6, "the order of directions matters, else this tests nothing"


def test_factors_before_and_after_are_those_of_the_points() -> None:
    features, values, before, after = cloud(40, 3, 3.0), numbers(40, 2).double(), numbers(40), numbers(40, seed=2)
    lattice = permutohedral_lattice(features)
    wanted = after[:, None] * permutohedral_filter(before[:, None] * values, lattice)
    torch.testing.assert_close(scaled_filter(values, lattice, before, after), wanted)
    torch.testing.assert_close(filter_in_torch(values, lattice, before.double(), after.double()), wanted)
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: scaled_filter(v, lattice, before, after), (values,))


def test_few_and_no_points_and_points_on_top_of_each_other() -> None:
    assert permutohedral_filter(torch.zeros(0, 3), torch.zeros(0, 2)).shape == (0, 3)
    assert permutohedral_filter(torch.zeros(4, 0), torch.zeros(4, 2)).shape == (4, 0)
    nothing = torch.zeros(0, 3)
    assert filter_in_torch(nothing, fields(nothing, plain=True), one(nothing), one(nothing)).shape == (0, 3)
    same = permutohedral_filter(numbers(6, 1), torch.full((6, 3), 0.7))
    torch.testing.assert_close(same, same[:1].expand(6, 1))


def test_layout_and_half_precision() -> None:
    features, values = cloud(200, 3, 5.0), numbers(200, 5)
    wanted = permutohedral_filter(values, features)
    turned = permutohedral_filter(values.t().contiguous().t(), features.t().contiguous().t())
    assert torch.equal(turned, wanted)
    half = permutohedral_filter(values.half(), features)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, permutohedral_filter(values.half().float(), features).half())
    torch.testing.assert_close(permutohedral_filter(values.double(), features).float(), wanted)


def test_the_number_of_threads_changes_nothing() -> None:
    features, values, before = cloud(20_000, 3, 20.0), numbers(20_000, 5), torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            answers.append(permutohedral_filter(values, features))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)


def test_more_vertices_than_the_first_table_holds_and_more_than_a_key_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = cloud(4000, 3, 60.0), numbers(4000, 2)
    assert fields(features, plain=False).neighbours.shape[2] > 4096
    plain = filter_in_torch(values, fields(features, plain=True), one(values), one(values))
    torch.testing.assert_close(permutohedral_filter(values, features), plain)
    # 18 dimensions do not fit in mixed radix: numbers drawn once, modulo 2^64.
    wide, values = cloud(300, 18, 40.0), numbers(300, 2)
    strides = permutohedral._strides(wide.double(), permutohedral._lift(18))
    assert max(abs(s) for s in strides) > 1 << 60
    plain = filter_in_torch(values, fields(wide, plain=True), one(values), one(values))
    torch.testing.assert_close(permutohedral_filter(values, wide), plain)
    close = features[:500]
    wanted = permutohedral_filter(values[:1].expand(500, 2), close)
    monkeypatch.setattr(permutohedral, "_strides", lambda f, lift: [*strides[: len(lift) - 1], 0])
    torch.testing.assert_close(permutohedral_filter(values[:1].expand(500, 2), close), wanted)


def test_compiled_and_checked_as_operators(unchecked: None) -> None:
    features, values = cloud(30, 2, 4.0), numbers(30, 3).requires_grad_()
    compiled = torch.compile(permutohedral_filter, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(values, features), permutohedral_filter(values, features))
    torch.library.opcheck(permutohedral._lattice, (features,))
    torch.library.opcheck(permutohedral._filter, (values, one(values), one(values), *permutohedral_lattice(features)))


@pytest.mark.parametrize(
    ("values", "features", "words"),
    [
        (torch.zeros(3, 1), torch.zeros(4, 2), r"wanted \(4, C\)"),
        (torch.zeros(3, 1), torch.zeros(3, 0), "at least one dimension"),
        (torch.zeros(3, 1), torch.full((3, 2), math.nan), "finite"),
        (torch.zeros(3, 1), torch.full((3, 2), 2e9), "1e9"),
    ],
)
def test_errors(values: Tensor, features: Tensor, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        permutohedral_filter(values, permutohedral_lattice(features))
