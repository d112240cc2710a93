"""Gaussian filtering of scattered points on the permutohedral lattice (Adams, Baek and Davis, Eurographics 2010).

    out_i = sum over j of exp(-|f_i - f_j|^2 / 2) v_j        (section 2, equation 1)

in time linear in the number of points: values are spread onto the vertices of a lattice (splat), blurred along its
d + 1 directions, and read back (slice). Only vertices that some point touches exist, as in the paper; what is blurred
onto others is lost.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.boxes import at_least_float32
from bestiary.records import require

_FURTHEST = 1e9
"""Largest coordinate of a feature: beyond it a simplex is no more told from the next."""


class PermutohedralLattice(NamedTuple):
    """Where N points of d dimensions lie among M vertices: built once, it filters any number of values.

    Attributes:
        vertices: the d + 1 vertices around each point.
        weights: their barycentric weights; a row sums to one.
        starts: where each vertex's share in `points` begins.
        points: the points around each vertex, in ascending order.
        shares: their weights.
        neighbours: along each direction the next vertex and the one before; M where there is none.
    """

    vertices: Int32[Tensor, "N d1"]
    weights: Float[Tensor, "N d1"]
    starts: Int64[Tensor, " M1"]
    points: Int32[Tensor, " T"]
    shares: Float[Tensor, " T"]
    neighbours: Int32[Tensor, "d1 2 M"]


def permutohedral_lattice(features: Float[Tensor, "N d"]) -> PermutohedralLattice:
    """The lattice around points.

    Convention: of `permutohedral_filter`, whose answer it does not change: it spares building the lattice again.

    Args:
        features: coordinates in units of the Gaussian's standard deviation: positions / sigma.

    Raises:
        RecordError: not [N, d] with d at least 1, or a coordinate is not finite or beyond 1e9.
    """
    fits = features.ndim == 2 and features.shape[1] > 0
    where = "permutohedral_lattice(features)"
    require(fits, where, f"shape {tuple(features.shape)}", "(N, d) with at least one dimension")
    return PermutohedralLattice(*_lattice(features.detach()))


def permutohedral_filter(
    values: Float[Tensor, "N C"], features: Float[Tensor, "N d"] | PermutohedralLattice
) -> Float[Tensor, "N C"]:
    """Sum of all points' values, each weighted by a Gaussian of its distance: in O(N d^2), nearly.

    Convention: the Gaussian is exp(-|f_i - f_j|^2 / 2) with peak 1, not normalised, and j = i is included; divide by
    the same filter of ones for a weighted mean, which leaves constants unchanged. The answer is an approximation: on
    points that fill their space within some percent, on scattered points of many dimensions the sums come out smaller
    while weighted means stay close. Gradients flow to the values (the transposed filter, the directions in reverse
    order), not to the features. No points and no channels are legal. Half precision is computed in float32. On the CPU
    the answer does not depend on the number of threads.

    Args:
        values: a row a point.
        features: the points' coordinates in units of the Gaussian's standard deviation, or the lattice that
            `permutohedral_lattice` made of them.

    Raises:
        RecordError: shapes do not fit, or a coordinate is not finite or beyond 1e9.
    """
    lattice = features if isinstance(features, PermutohedralLattice) else permutohedral_lattice(features)
    points = lattice.vertices.shape[0]
    fits = values.ndim == 2 and values.shape[0] == points
    require(fits, "permutohedral_filter(values)", f"shape {tuple(values.shape)}", f"({points}, C), a row a point")
    computed = at_least_float32(values)
    return scaled_filter(computed, lattice, *(computed.new_ones(points),) * 2).to(values.dtype)


def scaled_filter(
    values: Float[Tensor, "N C"],
    lattice: PermutohedralLattice,
    before: Float[Tensor, " N"],
    after: Float[Tensor, " N"],
) -> Float[Tensor, "N C"]:
    """`permutohedral_filter` of values times a factor a point, and the answer times another: at no cost within it.

    Gradients flow to the values alone.
    """
    return _filter(values, before.detach(), after.detach(), *lattice)


def _lift(dimensions: int) -> Float64[Tensor, "d1 d"]:
    """Orthogonal map onto the hyperplane of zero sum, scaled so that the blur's standard deviation is one.

    Section 3.1: the blur along d + 1 directions and the interpolation together have the variance 2/3 (d + 1)^2.
    """
    lift = torch.zeros(dimensions + 1, dimensions, dtype=torch.float64)
    for j in range(dimensions):
        lift[: j + 1, j] = 1
        lift[j + 1, j] = -(j + 1)
        lift[:, j] *= (dimensions + 1) * math.sqrt(2 / 3 / ((j + 1) * (j + 2)))
    return lift


def _peak(dimensions: int) -> float:
    """What a sum-preserving blur is to be multiplied by, so that its integral is that of a Gaussian with peak 1.

    (2 pi)^(d/2) over the volume that a vertex serves, (3/2)^(d/2) / sqrt(d + 1).
    """
    return (4 * math.pi / 3) ** (dimensions / 2) * math.sqrt(dimensions + 1)


def _strides(features: Float64[Tensor, "N d"], lift: Float64[Tensor, "d1 d"]) -> list[int]:
    """Factors by which the coordinates of a vertex sum to its key; 0 for the last, which the others imply.

    Mixed radix where 62 bits hold it; else arbitrary odd numbers modulo 2^64, whose sums agree for two of M vertices
    with a probability of M^2 / 2^65.
    """
    corners = lift.shape[0]
    if not len(features):
        return [0] * corners
    ends = torch.stack([lift * features.amin(dim=0), lift * features.amax(dim=0)])
    # Rounding to a vertex moves a coordinate by less than two corners; so does the step to a neighbour.
    spans = (ends.amax(dim=0).sum(dim=1) - ends.amin(dim=0).sum(dim=1)).tolist()
    strides, total = [], 1
    for span in spans[:-1]:
        strides.append(total)
        total *= int(span) + 8 * corners
    if total >= 1 << 62:
        import numpy as np

        drawn = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, corners - 1)
        strides = [int(n) | 1 for n in drawn]
    return [*strides, 0]


def _steps(strides: list[int]) -> list[int]:
    """Difference in key to the next vertex along each direction: d back in one coordinate, one ahead in the others."""
    steps = [sum(strides) - len(strides) * stride for stride in strides]
    return [(step + (1 << 63)) % (1 << 64) - (1 << 63) for step in steps]


@torch.library.custom_op("bestiary::permutohedral_lattice", mutates_args=())
def _lattice(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    points = features.double()
    within = bool((points.abs() <= _FURTHEST).all())
    require(within, "permutohedral_lattice(features)", "a coordinate that is not", "finite coordinates of at most 1e9")
    lift = _lift(features.shape[1])
    if features.device.type == "cpu":
        return lattice_by_kernel(points.contiguous(), lift, dtype)
    return lattice_in_torch(points, lift.to(features.device), dtype)


@_lattice.register_fake
def _(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    count, corners = features.shape[0], features.shape[1] + 1
    vertices = torch.library.get_ctx().new_dynamic_size()
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    return (
        features.new_empty((count, corners), dtype=torch.int32),
        features.new_empty((count, corners), dtype=dtype),
        features.new_empty((vertices + 1,), dtype=torch.int64),
        features.new_empty((count * corners,), dtype=torch.int32),
        features.new_empty((count * corners,), dtype=dtype),
        features.new_empty((corners, 2, vertices), dtype=torch.int32),
    )


def lattice_by_kernel(
    points: Float64[Tensor, "N d"], lift: Float64[Tensor, "d1 d"], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of a `PermutohedralLattice`, vertices numbered by first appearance."""
    import numpy as np

    from bestiary.ops._kernels.permutohedral import by_vertex, locate, number_vertices
    from bestiary.ops._kernels.threads import in_threads

    count, corners = len(points), len(lift)
    strides = _strides(points, lift)
    keys, vertices = np.empty((count, corners), np.int64), torch.empty(count, corners, dtype=torch.int32)
    weights = torch.empty(count, corners, dtype=dtype)
    arrays = points.numpy(), lift.numpy(), np.array(strides), keys, weights.numpy()
    in_threads(lambda start, stop: locate(*arrays, start, stop), count, torch.get_num_threads(), grain=4096)
    steps = np.array(_steps(strides)).view(np.uint64)
    neighbours = number_vertices(keys.view(np.uint64), steps, vertices.numpy())
    starts = torch.empty(neighbours.shape[2] + 1, dtype=torch.int64)
    of_vertex, shares = torch.empty(count * corners, dtype=torch.int32), torch.empty(count * corners, dtype=dtype)
    by_vertex(vertices.numpy(), weights.numpy(), starts.numpy(), of_vertex.numpy(), shares.numpy())
    return vertices, weights, starts, of_vertex, shares, torch.from_numpy(neighbours)


def lattice_in_torch(
    points: Float64[Tensor, "N d"], lift: Float64[Tensor, "d1 d"], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of a `PermutohedralLattice` in plain torch, for any device; vertices numbered by key."""
    corners, device = len(lift), points.device
    strides = _strides(points, lift)
    factors = torch.tensor(strides, device=device)
    lifted = points @ lift.t()
    whole = torch.floor(lifted / corners + 0.5)
    order = torch.sort(lifted - whole * corners, dim=1, descending=True, stable=True).indices
    rank = torch.argsort(order, dim=1) + whole.sum(dim=1, keepdim=True).long()
    turns = torch.div(rank, corners, rounding_mode="floor")
    rank = rank - turns * corners
    nearest = (whole - turns) * corners
    at_rank = torch.argsort(rank, dim=1)
    # Barycentric weights (proposition 4.2): differences between neighbours in rank.
    offsets = ((lifted - nearest) / corners).gather(1, at_rank)
    weights = torch.cat([1 + offsets[:, -1:] - offsets[:, :1], (offsets[:, :-1] - offsets[:, 1:]).flip(1)], dim=1)
    falls = sum(strides) - corners * factors[at_rank].flip(1)[:, :-1]
    keys = (nearest.long() * factors).sum(dim=1, keepdim=True)
    keys = torch.cat([keys, falls], dim=1).cumsum(dim=1)
    distinct, vertices = torch.unique(keys, return_inverse=True)
    neighbours = []
    for step in _steps(strides):
        for sign in (1, -1):
            wanted = distinct + sign * step
            at = torch.searchsorted(distinct, wanted).clamp(max=max(0, len(distinct) - 1))
            neighbours.append(torch.where(distinct[at] == wanted, at, len(distinct)))
    by_vertex = torch.sort(vertices.flatten(), stable=True).indices
    counts = torch.bincount(vertices.flatten(), minlength=len(distinct))
    return (
        vertices.int(),
        weights.to(dtype),
        F.pad(counts.cumsum(0), (1, 0)),
        (by_vertex // corners).int(),
        weights.to(dtype).flatten()[by_vertex],
        torch.stack(neighbours).view(corners, 2, -1).int(),
    )


@torch.library.custom_op("bestiary::permutohedral_filter", mutates_args=())
def _filter(
    values: Tensor,
    before: Tensor,
    after: Tensor,
    vertices: Tensor,
    weights: Tensor,
    starts: Tensor,
    points: Tensor,
    shares: Tensor,
    neighbours: Tensor,
) -> Tensor:
    lattice = PermutohedralLattice(vertices, weights, starts, points, shares, neighbours)
    compute = filter_by_kernel if values.device.type == "cpu" else filter_in_torch
    return compute(values.detach(), lattice, before.to(values.dtype), after.to(values.dtype))


@_filter.register_fake
def _(
    values: Tensor,
    before: Tensor,
    after: Tensor,
    vertices: Tensor,
    weights: Tensor,
    starts: Tensor,
    points: Tensor,
    shares: Tensor,
    neighbours: Tensor,
) -> Tensor:
    return values.new_empty(values.shape)


# ctx is Any: torch hands in a class of its own making.
def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    before, after, *fields = ctx.saved_tensors
    lattice = PermutohedralLattice(*fields)
    # Splat and slice are each other's transpose, and every single blur is its own: only their order turns round.
    turned = lattice._replace(neighbours=lattice.neighbours.flip(0))
    return _filter(grad.contiguous(), after, before, *turned), *(None,) * 8


_filter.register_autograd(_backward, setup_context=_remember)


def filter_by_kernel(
    values: Float[Tensor, "N C"],
    lattice: PermutohedralLattice,
    before: Float[Tensor, " N"],
    after: Float[Tensor, " N"],
) -> Float[Tensor, "N C"]:
    """Splat, blur and slice on the CPU, with a factor a point before and after."""
    from bestiary.ops._kernels.permutohedral import blur, slice_points, splat
    from bestiary.ops._kernels.threads import in_threads

    threads, corners, count = torch.get_num_threads(), *lattice.neighbours.shape[::2]
    vertices, weights, starts, points, shares, neighbours = (t.to(_kernel_type(t, values)).numpy() for t in lattice)
    source, factors = values.contiguous().numpy(), before.contiguous().numpy()
    spread = factors, starts, points, shares
    # One more row stays zero: it is what a missing neighbour holds.
    here, there = (values.new_zeros(count + 1, values.shape[1]).numpy() for _ in range(2))
    in_threads(lambda a, b: splat(source, *spread, a, b, here), count, threads, grain=256)
    for direction in range(corners):
        pair = here, neighbours[direction], there
        in_threads(lambda a, b, p=pair: blur(p[0], p[1], a, b, p[2]), count, threads, grain=2048)
        here, there = there, here
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    gathered, target = (here, vertices, weights, (after * _peak(corners - 1)).numpy()), out.numpy()
    in_threads(lambda a, b: slice_points(*gathered, a, b, target), len(values), threads, grain=2048)
    return out


def _kernel_type(field: Tensor, values: Tensor) -> torch.dtype:
    """The values' type for weights, so that the kernels are compiled for float32 alone and float64 alone."""
    return values.dtype if field.is_floating_point() else field.dtype


def filter_in_torch(
    values: Float[Tensor, "N C"],
    lattice: PermutohedralLattice,
    before: Float[Tensor, " N"],
    after: Float[Tensor, " N"],
) -> Float[Tensor, "N C"]:
    """The same in plain torch, for any device."""
    corners, count = lattice.neighbours.shape[::2]
    weights = lattice.weights.to(values.dtype)
    spread, scaled = values.new_zeros(count + 1, values.shape[1]), values * before[:, None]
    for corner in range(corners):
        spread.index_add_(0, lattice.vertices[:, corner], weights[:, corner, None] * scaled)
    for ahead, behind in lattice.neighbours:
        blurred = spread[:-1] / 2 + (spread.index_select(0, ahead) + spread.index_select(0, behind)) / 4
        spread = F.pad(blurred, (0, 0, 0, 1))
    out = torch.zeros_like(values)
    for corner in range(corners):
        out += weights[:, corner, None] * spread.index_select(0, lattice.vertices[:, corner])
    return out * (after * _peak(corners - 1))[:, None]
